"""The lock of a host part: held by its process as long as that lives, whatever ends it; it also says who that is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import DevicevmError
from .part import Part

_MAX_NOTE = 16384
# Who only looks takes the lock for a moment.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Held:
    """Whose lock it is: the process, 0 when that cannot be read, and the part that it runs, None when it is another
    version's."""

    pid: int
    part: Part | None


def take(path: Path, part: Part) -> int:
    """Hold the lock of a part from now on; DevicevmError when it runs already. The descriptor must stay open."""
    end = time.monotonic() + _PATIENCE
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(file, path):
                note = json.dumps({"pid": os.getpid(), "part": asdict(part)}).encode()
                os.ftruncate(file, 0)
                os.pwrite(file, note, 0)
                return file
        except BlockingIOError as error:
            if time.monotonic() >= end:
                os.close(file)
                raise DevicevmError(f"host part {part.name} runs already") from error
        os.close(file)
        time.sleep(0.02)


def release(path: Path, file: int) -> None:
    """Let go of it, and leave none."""
    path.unlink(missing_ok=True)
    os.close(file)


def holder(path: Path) -> Held | None:
    """Who holds the lock now; None when nobody does. The kernel says so, not a process id in a file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DevicevmError(f"the lock {path} cannot be read: {error.strerror}") from error
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        return _read(os.pread(file, _MAX_NOTE, 0))
    finally:
        os.close(file)


def _read(note: bytes) -> Held:
    try:
        data = json.loads(note)
        pid = int(data["pid"])
    except (ValueError, KeyError, TypeError):
        # It has just been taken.
        return Held(0, None)
    try:
        return Held(pid, Part(**data["part"]))
    except (KeyError, TypeError):
        return Held(pid, None)


def is_at(file: int, path: Path | str) -> bool:
    """Whether the path still leads to the file: who ends removes it, and a lock on what is removed is nobody's."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
