"""What a guest wrote to its console: untrusted text, bounded and without control characters."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import stat
from pathlib import Path

MAX_LOG = 2 << 20
"""Bytes of the disk that a log may take where no virtlogd sees to it; that is virtlogd's figure."""
KEPT = 256 << 10
"""Bytes at the end of a log that was larger which are kept."""
_PUNCH_HOLE = 0b11  # with FALLOC_FL_KEEP_SIZE, from linux/falloc.h

MAX_BYTES = 64 * 1024
"""How far back from its end a log is read."""
MAX_LINE = 400

# Escape sequences as a whole (ECMA-48), then every other control character; tabs stay.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]?|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def tail(path: str, lines: int) -> tuple[str, ...]:
    """The last `lines` lines of the console log; none when there is no readable log."""
    if not path or lines <= 0:
        return ()
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ()
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return ()
        data = os.pread(file, MAX_BYTES, max(status.st_size - MAX_BYTES, 0))
    finally:
        os.close(file)
    return sanitized(data)[-lines:]


def bound(folder: Path) -> None:
    """Give back what console logs in a folder take beyond `MAX_LOG`: their beginnings, while guests go on writing.

    QEMU has the file open and writes on where it was, so the log keeps its length and becomes sparse."""
    for path in folder.glob("*.console"):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                status = os.fstat(file)
                if stat.S_ISREG(status.st_mode) and status.st_blocks * 512 > MAX_LOG:
                    _forget(file, status.st_size - KEPT)
            finally:
                os.close(file)


def _forget(file: int, size: int) -> None:
    punch = ctypes.CDLL(None).fallocate
    if punch(file, _PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(size)) != 0:
        # A file system without holes of its own: then the end goes, too.
        os.ftruncate(file, 0)


def sanitized(data: bytes) -> tuple[str, ...]:
    """Text lines that are safe on a terminal: no control characters, no overlong or empty lines."""
    found = (_CONTROL.sub("", line)[:MAX_LINE].rstrip() for line in re.split(r"[\r\n]+", data.decode(errors="replace")))
    return tuple(line for line in found if line)
