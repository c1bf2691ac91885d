"""Resources of a class or a device VM, as the alternatives that the planner tries."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..quantity import parse_bytes
from .storage import absolute
from .topology import ResourceRequest

Alternatives = tuple[tuple[ResourceRequest, ...], ...]

CPU_OPTIONS = ("numaNode", "smt", "float", "emulator", "near")
"""What a request for processors may say beyond how many, and whether alone."""
PC_MACHINE = "pc"
"""What UEFI applications and ROMs run on when nothing is said; a microcontroller's program is for one machine."""


SIMULATOR = "simulator"
"""The image that runs a design, when no other is named."""


def alternatives_of(data: Iterable[dict[str, Any]], folder: Path | None) -> Alternatives:
    """Checked `resources`; relative paths start at `folder`."""
    return tuple(tuple(request_of(kind, options, folder) for kind, options in sorted(item.items())) for item in data)


def request_of(kind: str, data: Any, folder: Path | None = None) -> ResourceRequest:
    """A request, with what only its kind understands in `options` (planner/resources)."""
    if kind == "isa":
        return ResourceRequest(kind, options={"features": sorted(data)})
    if kind == "microcode":
        options = dict(data)
        if isinstance(options.get("revision"), str):
            options["revision"] = int(options["revision"], 16)
        return ResourceRequest(kind, options=options)
    if kind == "memory":
        return ResourceRequest(kind, options={"pageSize": parse_bytes(data["pageSize"])})
    if kind == "firmware":
        return ResourceRequest(kind, options=_firmware(data, folder))
    if kind == "block":
        return ResourceRequest(kind, options=_block(data, folder))
    if kind == "program":
        return ResourceRequest(kind, options={"image": data.get("image", ""), "command": data.get("command", [])})
    options = {key: data[key] for key in CPU_OPTIONS if key in data and data[key] is not False}
    return ResourceRequest(kind, data.get("count", 1), data.get("dedicated", False), options)


def _block(data: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    if data.get("provider") == "simulated":
        return {
            "provider": "simulated",
            "file": absolute(data["design"], folder),
            "image": data.get("image", SIMULATOR),
        }
    return {"provider": "host", "kind": data.get("kind", "pci"), **data}


def _firmware(data: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    return {
        "kind": data["kind"],
        "file": absolute(data["file"], folder),
        "arch": data.get("arch", "x86_64"),
        "machine": data.get("machine", PC_MACHINE),
        "memory": parse_bytes(data.get("memory", 0)),
    }
