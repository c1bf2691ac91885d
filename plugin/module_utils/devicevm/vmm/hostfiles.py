"""Files of the host that hold emulation code: what the planner has to know of them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..errors import DevicevmError
from ..inventory.host import FileFacts
from .firmware import firmware_digest


def look_at(paths: Iterable[str]) -> tuple[FileFacts, ...]:
    """Size and SHA-256 of each file, or why it cannot be used; sorted by path. What is wrong is no error here: the
    planner tells it where it matters."""
    return tuple(_facts(path) for path in sorted(set(paths)))


def _facts(path: str) -> FileFacts:
    try:
        digest = firmware_digest(path)
        return FileFacts(path, os.stat(path).st_size, digest)
    except DevicevmError as error:
        return FileFacts(path, problem=error.message.removeprefix(f"firmware {path} "))
    except OSError as error:
        return FileFacts(path, problem=f"cannot be read: {error.strerror}")
