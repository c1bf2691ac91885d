"""One apply at a time per VMM: a lock file that says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DevicevmError
from ..part.lock import is_at
from .places import Places, make_runtime, places_of

POLL = 0.1
MAX_NOTE = 4096


@contextmanager
def lock(uri: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the VMM's lock: two applies at once would both take what is free.

    The kernel lets go of it when the process ends, however it ends. DevicevmError says who holds it
    when it is not to be had within `wait` seconds.
    """
    file = _take(places_of(uri), uri, wait)
    try:
        _write_note(file)
        try:
            yield
        finally:
            os.ftruncate(file, 0)
    finally:
        os.close(file)


def is_locked(places: Places) -> bool:
    """Whether somebody holds the VMM's lock."""
    try:
        file = os.open(lock_path(places), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def lock_path(places: Places) -> Path:
    """The lock's file."""
    return places.private / "lock"


def _open(places: Places) -> int:
    make_runtime(places, None)
    try:
        # The group's bits are what an access list of the directory can give.
        mode = 0o660 if places.system else 0o600
        return os.open(lock_path(places), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:
        raise DevicevmError(
            f"the lock {lock_path(places)} cannot be opened: {error.strerror}",
            hint="run it as root, or be given access" if isinstance(error, PermissionError) else "",
        ) from error


def _take(places: Places, uri: str, wait: float) -> int:
    end = time.monotonic() + wait
    while True:
        file = _open(places)
        if _is_taken(file, lock_path(places)):
            return file
        try:
            if time.monotonic() >= end:
                raise DevicevmError(
                    f"{uri} is locked by {_holder(file)}", hint="wait for it to end, or give --lock-timeout"
                )
        finally:
            os.close(file)
        time.sleep(POLL)


def _is_taken(file: int, path: Path) -> bool:
    """Whether it is ours now, and still the lock: of what was removed meanwhile, another may have been made."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return is_at(file, path)


def _write_note(file: int) -> None:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200] if sys.argv else ""
    note = {"pid": os.getpid(), "command": command, "since": time.strftime("%Y-%m-%d %H:%M:%S%z")}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(note).encode(), 0)


def _holder(file: int) -> str:
    try:
        note = json.loads(os.pread(file, MAX_NOTE, 0))
        return f"process {int(note['pid'])} ({note['command']!s}) since {note['since']!s}"
    except (ValueError, KeyError, TypeError):
        return "another process"
