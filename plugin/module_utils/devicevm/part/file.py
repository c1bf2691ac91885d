"""A disk for the host: a file that is the disk, by QEMU's storage daemon and FUSE.

The daemon connects again by itself when the device VM comes back; until then, and no longer than AWAY, whoever reads or
writes waits.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
from functools import partial

from ..errors import DevicevmError
from .part import Kind, Part, Stage
from .program import keep_running

AWAY = 60
"""Seconds that requests wait for a device VM that is away; then they fail, and the next ones try again."""


def _serve(part: Part, stage: Stage) -> None:
    _make(part.address)
    writable = "off" if part.options.get("readOnly") else "on"
    nbd = f"driver=nbd,node-name=disk,server.type=unix,server.path={_value(part.channel)},reconnect-delay={AWAY}"
    if writable == "off":
        nbd += ",read-only=on"
    fuse = f"type=fuse,id=disk,node-name=disk,mountpoint={_value(part.address)},writable={writable}"
    try:
        keep_running(
            ["qemu-storage-daemon", "--blockdev", nbd, "--export", fuse],
            stage,
            ready=partial(_is_mounted, part.address),
            clear=partial(_unmount, part.address),
        )
    finally:
        _clean(part)


def _value(text: str) -> str:
    """In QEMU's options a comma is written twice."""
    return text.replace(",", ",,")


def _make(path: str) -> None:
    """An empty file to mount on; one that holds anything is somebody's."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        found = os.fstat(file)
        os.close(file)
    except OSError as error:
        raise DevicevmError(f"cannot make the file {path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode) or found.st_size:
        raise DevicevmError(f"{path} holds something", hint="name another path, or remove it")


def _is_mounted(path: str) -> bool:
    """Whether FUSE has something at the path (proc(5): blanks and the like are in octal)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields, kind = line.split(" - ")[0].split(), line.split(" - ")[1].split()[0]
            place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
            if place == path and kind.startswith("fuse"):
                return True
    return False


def _unmount(path: str) -> None:
    """Also what a daemon has left that was killed, and what is in use."""
    command = ["umount", "-l"] if os.getuid() == 0 else ["fusermount3", "-u", "-z"]
    while _is_mounted(path):
        done = subprocess.run([*command, path], capture_output=True, text=True, check=False, timeout=10)
        if done.returncode and _is_mounted(path):
            raise DevicevmError(f"{path} cannot be unmounted: {done.stderr.strip()}")


def _clean(part: Part) -> None:
    _unmount(part.address)
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(part.address)
        if stat.S_ISREG(found.st_mode) and not found.st_size:
            os.unlink(part.address)


FILE = Kind(name="file", serve=_serve, clean=_clean)
