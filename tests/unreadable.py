"""A store with a sector that cannot be read: QEMU's blkdebug, shown as a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECTOR = 512
CAN_BE_SHOWN = bool(shutil.which("qemu-storage-daemon")) and os.access("/dev/fuse", os.W_OK) and os.getuid() == 0


@contextmanager
def unreadable(store: Path, place: int) -> Iterator[Path]:
    """A file with what the store has, and a sector at `place` that is never read; it can be written."""
    shown = store.with_name("shown")
    shown.touch()
    pid = store.with_name("shown.pid")
    bad = f"inject-error.0.event=read_aio,inject-error.0.errno=5,inject-error.0.sector={place // SECTOR}"
    daemon = subprocess.Popen(
        [
            "qemu-storage-daemon",
            *("--blockdev", f"driver=raw,node-name=disk,file.driver=blkdebug,file.{bad.replace(',', ',file.')},"
              f"file.image.driver=file,file.image.filename={store}"),
            *("--export", f"type=fuse,id=disk,node-name=disk,mountpoint={shown},writable=on"),
            *("--pidfile", str(pid)),
        ]
    )  # fmt: skip
    try:
        end = time.monotonic() + 20
        while not pid.exists() and daemon.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        yield shown
    finally:
        daemon.terminate()
        daemon.wait(20)
