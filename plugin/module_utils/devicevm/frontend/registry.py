"""The front ends: what a client sees of a device. A new one is a line in its file, or a new file and a line here."""

from __future__ import annotations

import re

from ..errors import DevicevmError
from .disk import DISKS
from .frontend import Frontend
from .memory import MEMORIES
from .net import NICS
from .port import PORTS
from .rng import RNGS
from .serial import SERIALS
from .tpm import TPMS
from .usb import USBS

_ALL = (*DISKS, *MEMORIES, *NICS, *PORTS, *RNGS, *SERIALS, *TPMS, *USBS)
FRONTENDS: dict[str, Frontend] = {frontend.name: frontend for frontend in _ALL}

MACHINES = {"pc": re.compile(r"pc|pc-i440fx-.*")}
"""Kinds of machines, and which are of one, in QEMU's words."""


def frontend_named(name: str) -> Frontend:
    """The front end of that name; DevicevmError names the known ones."""
    if name not in FRONTENDS:
        raise DevicevmError(f"front end {name!r} is unknown", hint=f"known front ends: {', '.join(sorted(FRONTENDS))}")
    return FRONTENDS[name]
