"""Who serves whom, in one line: `virsh list --title` and `virsh desc` need no devicevm to be understood."""

from __future__ import annotations

from ...domain import DomainSpec, Role

MAX_TITLE = 120
"""Characters. A title is one line of a table; the description has everything."""


def title(spec: DomainSpec) -> str:
    """`device VM of web: data (disk), gps (serial)`, cut when it is long."""
    text = _summary(spec)
    return text if len(text) <= MAX_TITLE else text[: MAX_TITLE - 3].rstrip() + "..."


def description(spec: DomainSpec) -> str:
    """The title uncut, and whose the domain is."""
    return f"{_summary(spec)}. Made by devicevm for owner {spec.owner}: change its manifest, not this domain."


def _summary(spec: DomainSpec) -> str:
    devices: dict[str, list[str]] = {}
    if spec.role is Role.DEVICE_VM:
        for emulator in spec.emulators:
            devices.setdefault(emulator.client, []).append(f"{emulator.name} ({emulator.class_})")
        head = "device VM"
    else:
        for attachment in spec.attachments:
            devices.setdefault(attachment.device_vm, []).append(f"{attachment.name} ({attachment.class_})")
        head = "client"
    if not devices:
        return f"{head} without devices"
    return f"{head} of " + "; ".join(f"{name}: {', '.join(items)}" for name, items in devices.items())
