"""A disk for the host: a file that is the disk, by QEMU's storage daemon and FUSE.

The daemon connects again by itself when the device VM comes back; until then, and no longer than AWAY, whoever reads or
writes waits.
"""

from __future__ import annotations

import contextlib
import os
import stat
from functools import partial

from ..errors import DevicevmError
from .command import run
from .mounts import mounts
from .part import Kind, Part, Stage
from .program import Work, keep_running

AWAY = 60
"""Seconds that requests wait for a device VM that is away; then they fail, and the next ones try again."""


def _serve(part: Part, stage: Stage) -> None:
    make(part.address)
    try:
        keep_running(daemon(part), stage, Work(partial(is_there, part.address), partial(unmount, part.address)))
    finally:
        clean(part)


def daemon(part: Part) -> list[str]:
    """The command that shows the disk at the part's address."""
    writable = "off" if part.options.get("readOnly") else "on"
    nbd = f"driver=nbd,node-name=disk,server.type=unix,server.path={_value(part.channel)},reconnect-delay={AWAY}"
    if writable == "off":
        nbd += ",read-only=on"
    fuse = f"type=fuse,id=disk,node-name=disk,mountpoint={_value(part.address)},writable={writable}"
    return ["qemu-storage-daemon", "--blockdev", nbd, "--export", fuse]


def _value(text: str) -> str:
    """In QEMU's options a comma is written twice."""
    return text.replace(",", ",,")


def make(path: str) -> None:
    """An empty file to mount on; one that holds anything is somebody's."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        found = os.fstat(file)
        os.close(file)
    except OSError as error:
        raise DevicevmError(f"cannot make the file {path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode) or found.st_size:
        raise DevicevmError(f"{path} holds something", hint="name another path, or remove it")


def is_there(path: str) -> bool:
    """Whether FUSE has something at the path."""
    return any(mount.place == path and mount.kind.startswith("fuse") for mount in mounts())


def unmount(path: str) -> None:
    """Also what a daemon has left that was killed, and what is in use."""
    command = ["umount", "-l"] if os.getuid() == 0 else ["fusermount3", "-u", "-z"]
    while is_there(path):
        try:
            run(*command, path)
        except DevicevmError as error:
            if is_there(path):
                raise DevicevmError(f"{path} cannot be unmounted: {error.message}", hint=error.hint) from error


def clean(part: Part) -> None:
    """Remove what a part has left at its address."""
    unmount(part.address)
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(part.address)
        if stat.S_ISREG(found.st_mode) and not found.st_size:
            os.unlink(part.address)


FILE = Kind(name="file", serve=_serve, clean=clean)
