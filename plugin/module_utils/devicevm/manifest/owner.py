"""Owners' names: they stand in domains' metadata, in commands and in hints, so they are plain words."""

from __future__ import annotations

import re

from ..errors import DevicevmError

_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)


def check_owner(name: str) -> str:
    """The name, if it can be an owner's; else DevicevmError."""
    if not _FORM.fullmatch(name):
        raise DevicevmError(
            f"{name[:80]!r} is no owner's name",
            hint="use letters, digits, '-', '.' and '_', a letter or digit first, 63 characters at most",
        )
    return name
