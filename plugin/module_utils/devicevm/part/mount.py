"""A mounted disk for the host: part/file.py's file, a loop device over it, and a file system on that.

While its device VM is away who uses it waits, no longer than file.AWAY. A file system that has failed by then stays
where it is, so that nobody writes beside it unawares, until the device VM is back; then it is mounted anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from functools import partial

from ..errors import DevicevmError
from .command import Unfinished, run
from .file import AWAY, clean, daemon, is_there, make, unmount
from .mounts import Mount, mount_at
from .part import Kind, Part, Stage
from .program import Work, keep_running
from .sockets import listens

_PATIENCE = AWAY + 10.0
"""Seconds that a file system may take to be made, mounted or unmounted."""
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
    "vfat": ("mkfs.vfat",),
}
_OPTIONS = {"xfs": ("nouuid",)}
"""XFS refuses to be mounted twice, and a failed one is still there when the next takes its place."""
_HEAD, _TAIL = 4 * 2**20, 2**20
"""A disk with nothing but zeros in so many bytes at its begin and at its end is empty, as in guest/layers."""
_FAILED = frozenset(("emergency_ro", "shutdown"))
_MNT_DETACH, _MS_BIND = 2, 4096
_TOLD = 3
"""Users of a mount that an error names."""
_run = partial(run, patience=_PATIENCE)


def _serve(part: Part, stage: Stage) -> None:
    make(part.address)
    try:
        _make_place(_place(part))
        work = Work(
            ready=partial(is_there, part.address),
            # The file system stays until the next one takes its place.
            clear=partial(unmount, part.address),
            begin=partial(_mount, part, stage),
            sound=partial(_is_sound, part),
            finish=partial(_finish, part, stage),
        )
        keep_running(daemon(part), stage, work)
    finally:
        _clean(part)


def _place(part: Part) -> str:
    return os.path.realpath(part.options["mount"])


def _make_place(place: str) -> None:
    if mount_at(place):
        raise DevicevmError(f"something is mounted at {place}", hint="name another place, or unmount it")
    try:
        os.makedirs(place, exist_ok=True)
        found = os.listdir(place)
    except OSError as error:
        raise DevicevmError(f"cannot make the directory {place}: {error.strerror}") from error
    if found:
        raise DevicevmError(f"{place} holds {found[0]}", hint="name another place, or an empty directory")


def _mount(part: Part, stage: Stage) -> None:
    """Mount the disk; one that is empty gets a file system first."""
    kind, read_only = part.options["type"], bool(part.options.get("readOnly"))
    if not read_only and _is_empty(part.address):
        if kind not in _MAKE:
            hint = f"make one on {part.address}, or take {', '.join(_MAKE)}"
            raise DevicevmError(f"the disk is empty, and devicevm makes no {kind}", hint=hint)
        stage.log(f"the disk is empty: {kind} is made on it")
        _run(*_MAKE[kind], part.address)
    # What a device VM serves is not believed to be harmless: who wants programs with rights on it says so.
    options = ["loop", "nosuid", "nodev", *(["ro"] if read_only else []), *_OPTIONS.get(kind, ())]
    options += part.options.get("options", "").split(",")
    os.makedirs(_beside(part), mode=0o700, exist_ok=True)
    try:
        _run("mount", "-t", kind, "-o", ",".join(filter(None, options)), part.address, _beside(part))
        # All that takes time is done: whoever writes by path in between would write to the directory beneath.
        _replace(part)
    finally:
        _clear_beside(part)


def _beside(part: Part) -> str:
    """Where it is mounted first."""
    return f"{_place(part)}.devicevm"


def _clear_beside(part: Part) -> None:
    while mount_at(_beside(part)):
        _run("umount", "-l", _beside(part))
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(_beside(part))


def _replace(part: Part) -> None:
    """What was mounted goes, and what is beside it comes in its place, with as little as can be in between."""
    libc = ctypes.CDLL(None, use_errno=True)
    new, place = _beside(part), _place(part)
    while _ours(part):
        if libc.umount2(os.fsencode(place), _MNT_DETACH):
            raise DevicevmError(f"cannot unmount {place}: {os.strerror(ctypes.get_errno())}")
    if libc.mount(os.fsencode(new), os.fsencode(place), None, ctypes.c_ulong(_MS_BIND), None):
        raise DevicevmError(f"cannot mount {place}: {os.strerror(ctypes.get_errno())}")


def _is_empty(path: str) -> bool:
    with open(path, "rb") as disk:
        size = disk.seek(0, os.SEEK_END)
        for place, count in ((0, _HEAD), (max(size - _TAIL, 0), _TAIL)):
            disk.seek(place)
            if disk.read(count).strip(b"\0"):
                return False
    return True


def _ours(part: Part) -> Mount | None:
    """What is mounted of the part: a loop device over its file, or over one that is gone."""
    mount = mount_at(_place(part))
    name = mount.source.removeprefix("/dev/") if mount else ""
    try:
        with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
            behind = file.read().rstrip("\n")
    except OSError:
        return None
    # The kernel calls a file so that was taken away from under the loop device.
    return mount if behind in (os.path.realpath(part.address), "/") else None


def _is_sound(part: Part) -> bool:
    """Whether the file system works, or cannot be helped yet."""
    return not listens(part.channel) or not _has_failed(part)


def _has_failed(part: Part) -> bool:
    """Whether the file system that is mounted has met an error, after which it writes nothing any more."""
    mount = _ours(part)
    if mount is None:
        return False
    meant = part.options.get("readOnly") or "ro" in part.options.get("options", "").split(",")
    if mount.state & _FAILED or ("ro" in mount.state and not meant):
        return True
    try:
        # XFS does not tell by its options. This much of it is always in memory, so nobody waits for the device VM.
        os.stat(mount.place)
    except OSError:
        return True
    return False


def _leave(part: Part) -> None:
    """Write what is not written yet, and unmount; DevicevmError when it is in use, and then it stays."""
    # Without its device VM nothing can be written, and to wait would help nobody.
    if not _ours(part) or not listens(part.channel):
        return
    place = _place(part)
    try:
        # Of its own: another mount name space may keep what is unmounted here.
        _run("sync", "-f", place)
        _run("umount", place)
    except Unfinished as error:
        hint = "its device VM does not answer, and who waits for it goes on when it does or ends: end it, and try again"
        raise DevicevmError(f"{place} stays mounted: {error.message}", hint=hint) from error
    except DevicevmError as error:
        # What a failed one has not written is lost already.
        if _ours(part) and not _has_failed(part):
            users = ", ".join(_users(place)) or "nobody that could be found"
            hint = f"it is used by {users}; have them let go of it, and try again"
            raise DevicevmError(f"{place} stays mounted: {error.message}", hint=hint) from error


def _users(place: str) -> list[str]:
    """Some processes that have something of it open, or are in it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if any(path == place or path.startswith(f"{place}/") for path in _opened(pid)):
            found.append(f"process {pid}")
            if len(found) == _TOLD:
                break
    return found


def _opened(pid: str) -> Iterator[str]:
    for where in ("cwd", "root", "exe", "fd"):
        path = f"/proc/{pid}/{where}"
        try:
            names = [f"{path}/{name}" for name in os.listdir(path)] if where == "fd" else [path]
            yield from map(os.readlink, names)
        except OSError:
            continue  # it has ended


def _finish(part: Part, stage: Stage) -> None:
    """Whoever ends the part has not asked whether it can be done without."""
    try:
        _leave(part)
    except DevicevmError as error:
        stage.log(f"{error.message}: what was not written is lost")


def _take_away(part: Part) -> None:
    """Remove what cannot be saved any more from the place, also when it is in use."""
    while _ours(part):
        _run("umount", "-l", _place(part))


def _clean(part: Part) -> None:
    _take_away(part)
    _clear_beside(part)
    clean(part)


MOUNT = Kind(name="mount", serve=_serve, clean=_clean, leave=_leave, patience=_PATIENCE)
