"""Where the devices of a client that is the host itself appear: paths, mounts and taps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import Problem
from ..part.part import HOST_KINDS
from .declared import Declared
from .document import Document, Place
from .storage import absolute, relative_finding

_ONLY = {"mount": "nbd", "tap": "ethernet"}
"""What devices of one protocol alone can say."""
_WHOSE = {"path": "has its devices at paths", "mount": "mounts its disks", "tap": "has taps"}
_FILESYSTEM = "ext4"


def where_of(device: dict[str, Any], folder: Path | None) -> str:
    """Where a device appears: a path from the root, or the name of a tap; empty for one that says neither."""
    if "tap" in device:
        return str(device["tap"]["name"])
    return absolute(device["path"], folder) if "path" in device else ""


def part_options(device: dict[str, Any], folder: Path | None) -> dict[str, str]:
    """What a device says of its mount or tap, as its host part has it."""
    if mount := device.get("mount"):
        options = {"options": ",".join(mount["options"])} if "options" in mount else {}
        return {"mount": absolute(mount["path"], folder), "type": mount.get("type", _FILESYSTEM), **options}
    address = device.get("tap", {}).get("address")
    return {"address": address} if address else {}


def place_problems(
    document: Document, place: Place, device: dict[str, Any], declared: Declared, *, on_host: bool
) -> Iterator[Problem]:
    """The host has no front ends: a device is there as a file or a tap, and nobody else has it so."""
    if not on_host:
        for key, what in _WHOSE.items():
            if key in device:
                yield document.problem((*place, key), f"only the host {what}", f"take {key} away")
        return
    if "frontend" in device:
        yield document.problem((*place, "frontend"), "the host has no front ends", "path says where the device appears")
    for at, path in (("path",), device.get("path")), (("mount", "path"), device.get("mount", {}).get("path")):
        for finding in relative_finding((*place, *at), path, document.folder) if path else ():
            yield document.problem(*finding)
    class_ = declared.find("DeviceClass", device["class"])
    if class_:
        yield from _protocol_problems(document, place, device, class_)


def _protocol_problems(document: Document, place: Place, device: dict[str, Any], class_: Document) -> Iterator[Problem]:
    """Not every protocol is one that the host can be shown, and each is shown in its own way."""
    protocol = class_.spec["protocol"]
    if protocol not in HOST_KINDS:
        message = f"the host cannot have a device of class {class_.name}, which speaks {protocol}"
        hint = f"it can have those that speak {', '.join(HOST_KINDS)}; a file system of its own is a disk with mount"
        yield document.problem((*place, "class"), message, hint)
        return
    for key, only in _ONLY.items():
        if key in device and protocol != only:
            message = f"class {class_.name} speaks {protocol}, and {key} is for those that speak {only}"
            yield document.problem((*place, key), message, f"take {key} away")
    if protocol == "ethernet":
        if "tap" not in device:
            yield document.problem(place, "tap is missing", "it says what the host calls its end of the network")
        if "path" in device:
            yield document.problem((*place, "path"), "a tap has no path", "tap says what it is called")
    elif "path" not in device:
        yield document.problem(place, "path is missing", "it says where the device appears on the host")
