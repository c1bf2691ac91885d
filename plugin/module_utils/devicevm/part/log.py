"""The bounded log of a host part: what is older goes when it is full."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

MAX_LOG = 64 * 1024
"""Bytes of a log; as many again are kept aside."""
_MAX_LINE = 500


def aside(path: Path) -> Path:
    """Where the older half is."""
    return path.with_name(f"{path.name}.0")


def write(path: Path, text: str) -> None:
    """Add a line. A log that cannot be written is no reason to end."""
    line = "".join(char if char.isprintable() else "?" for char in text)[:_MAX_LINE]
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(file, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n".encode())
            full = os.fstat(file).st_size > MAX_LOG
        finally:
            os.close(file)
        if full:
            path.replace(aside(path))


def tail(path: Path, lines: int) -> tuple[str, ...]:
    """The last lines, oldest first."""
    text = ""
    for file in (aside(path), path):
        with contextlib.suppress(OSError):
            text += file.read_text(encoding="utf-8", errors="replace")
    return tuple(text.splitlines()[-lines:])


def remove(path: Path) -> None:
    """Remove the log and what is aside."""
    for file in (path, aside(path)):
        file.unlink(missing_ok=True)
