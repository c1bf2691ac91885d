"""The emulation code that an alternative brings along, where it is not the class's own program in the class's image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..domain import Firmware
from ..manifest.topology import ResourceRequest, Store, Topology

X86 = ("x86_64", "i686")
PC_SERIAL_PORTS = 4
"""ISA serial ports of a PC; of another machine it is only known that it has one."""


@dataclass(frozen=True)
class Code:
    """What runs on a footing. `image` is a name and `command` a template (docs/classes.md); empty = the class's own.

    `design` is a read-only store of which each emulator has a disk. `firmware` is all that runs: no image, no command.
    """

    image: str = ""
    command: tuple[Any, ...] = ()
    design: Store | None = None
    firmware: Firmware | None = None


def serial_ports(arch: str) -> int:
    """How many devices firmware of that architecture can be: one for each serial port of its machine."""
    return PC_SERIAL_PORTS if arch in X86 else 1


def most_devices(alternative: Iterable[ResourceRequest], otherwise: int) -> int:
    """How many devices one device VM on this alternative can have; `otherwise` when the alternative sets no bound."""
    ports = [serial_ports(request.options["arch"]) for request in alternative if request.kind == "firmware"]
    return min(ports, default=otherwise)


def files_named(topology: Topology) -> tuple[str, ...]:
    """The paths of all emulation code that the declared resources name, sorted: the planner needs to know of them."""
    declared = [*(one.resources for one in topology.classes), *(one.resources for one in topology.device_vms)]
    paths = {
        request.options.get("file", "")
        for alternatives in declared
        for alternative in alternatives
        for request in alternative
    }
    return tuple(sorted(paths - {""}))
