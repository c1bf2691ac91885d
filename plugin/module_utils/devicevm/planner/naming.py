"""Names, UUIDs and addresses: all derived from what is declared, so that any controller finds the same."""

from __future__ import annotations

import uuid
from functools import lru_cache

from ..record import digest

# Any fixed UUID serves; it must never change, for domains are found again by it.
_NAMESPACE = uuid.UUID("5d8b4a7e-3f0c-5c53-9a55-6465766d7631")
_LABEL = 63


@lru_cache(maxsize=2**16)
def domain_uuid(owner: str, name: str) -> str:
    """The UUID of an owner's domain: the same on every host and in every run."""
    return str(uuid.uuid5(_NAMESPACE, f"{owner}/{name}"))


def label(*parts: str) -> str:
    """`parts` joined by dashes as a DNS label; too long ones are cut and get a digest, so they stay apart."""
    name = "-".join(part for part in parts if part)
    if len(name) <= _LABEL:
        return name
    return f"{name[: _LABEL - 9].rstrip('-')}-{digest(name, 8)}"


def channel_address(runtime_dir: str, owner: str, device_vm: str, device: str) -> str:
    """The path of a device's socket: short whatever the names, for the kernel allows 107 bytes."""
    return f"{_sockets(runtime_dir, owner, device_vm)}-{digest(device, 8)}.sock"


def part_name(owner: str, device_vm: str, device: str) -> str:
    """What a device's host part is called: unique on the VMM, and short as the socket that it makes."""
    return f"{digest([owner, device_vm], 8)}-{digest(device, 8)}-part"


def control_address(runtime_dir: str, owner: str, device_vm: str) -> str:
    """The path of a device VM's control socket."""
    return f"{_sockets(runtime_dir, owner, device_vm)}-control.sock"


def console_log(runtime_dir: str, domain: str) -> str:
    """The path of a domain's console log."""
    return f"{runtime_dir}/{domain}.console"


def hardware_address(*parts: str) -> str:
    """The MAC address of what `parts` name: locally administered, of one station (IEEE 802)."""
    text = digest(["mac", *parts], 10)
    return ":".join(("02", *(text[place : place + 2] for place in range(0, 10, 2))))


@lru_cache(maxsize=2**16)
def backing_serial(owner: str, client: str, device: str) -> str:
    """The serial number by which a device VM finds a device's backing disk (a SCSI disk takes 20 bytes)."""
    return digest([owner, client, device], 16)


@lru_cache(maxsize=2**16)
def _sockets(runtime_dir: str, owner: str, device_vm: str) -> str:
    """What the paths of all of a device VM's sockets begin with."""
    return f"{runtime_dir}/{digest([owner, device_vm], 8)}"
