"""What a guest wrote to its console: untrusted text, bounded and without control characters."""

from __future__ import annotations

import os
import re
import stat

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


def sanitized(data: bytes) -> tuple[str, ...]:
    """Text lines that are safe on a terminal: no control characters, no overlong or empty lines."""
    found = (_CONTROL.sub("", line)[:MAX_LINE].rstrip() for line in re.split(r"[\r\n]+", data.decode(errors="replace")))
    return tuple(line for line in found if line)
