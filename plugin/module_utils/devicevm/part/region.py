"""Shared memory for the host: the region's file at the path that was asked for.

Who may write has a link to it. Who may only read has it mounted read-only, for no file mode keeps root from writing.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat

from ..errors import DevicevmError
from .command import run
from .file import make
from .mounts import mount_at
from .part import Kind, Part, Stage


def _serve(part: Part, stage: Stage) -> None:
    try:
        if part.options.get("readOnly"):
            _mount(part)
        else:
            _link(part)
        stage.ready()
        select.select([stage.stop], [], [])
    finally:
        _clean(part)


def _link(part: Part) -> None:
    try:
        os.symlink(part.channel, part.address)
    except OSError as error:
        raise DevicevmError(f"cannot make the link {part.address}: {error.strerror}") from error


def _mount(part: Part) -> None:
    if os.getuid() != 0:
        raise DevicevmError("only root can have a region read-only on the host", hint="set readOnly: false")
    make(part.address)
    run("mount", "--bind", part.channel, part.address)
    run("mount", "-o", "remount,bind,ro,nosuid,nodev,noexec", part.address)


def _clean(part: Part) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.lstat(part.address).st_mode):
            if os.readlink(part.address) == part.channel:
                os.unlink(part.address)
            return
        while mount_at(part.address):
            run("umount", "-l", part.address)
        found = os.lstat(part.address)
        if part.options.get("readOnly") and stat.S_ISREG(found.st_mode) and not found.st_size:
            os.unlink(part.address)


REGION = Kind(name="region", serve=_serve, clean=_clean)
