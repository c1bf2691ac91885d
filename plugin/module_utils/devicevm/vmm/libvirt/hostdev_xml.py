"""Devices of the host in a domain: PCI functions and mediated devices, given whole (VFIO).

Format: https://libvirt.org/formatdomain.html#usb-pci-scsi-devices.
"""

from __future__ import annotations

import re
from uuid import UUID
from xml.etree.ElementTree import Element

from ...domain import DomainSpec, HostDevice
from ...errors import DevicevmError
from .element import add, element

_PCI = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")


def hostdev_elements(spec: DomainSpec) -> list[Element]:
    """`<hostdev>` for each of the specification's host devices; DevicevmError for one that is named twice."""
    twice = sorted({device.address for device in spec.host_devices if spec.host_devices.count(device) > 1})
    if twice:
        raise DevicevmError(f"{spec.name}: host device {', '.join(twice)} is there twice")
    return [hostdev_element(device) for device in spec.host_devices]


def hostdev_element(device: HostDevice) -> Element:
    """One `<hostdev>`. DevicevmError for an unknown kind and for an address that is none.

    A PCI function is managed: libvirt takes it from the host's driver at the start and gives it back at the end.
    A mediated device belongs to VFIO from the beginning.
    """
    if device.kind == "pci":
        match = _PCI.fullmatch(device.address)
        if not match:
            raise DevicevmError(f"{device.address!r} is no PCI address", hint="it is written as 0000:02:10.7")
        made = element("hostdev", mode="subsystem", type="pci", managed="yes")
        parts = {key: f"0x{text}" for key, text in zip(_PARTS, match.groups(), strict=True)}
        add(add(made, "source"), "address", **parts)
        return made
    if device.kind == "mdev":
        made = element("hostdev", mode="subsystem", type="mdev", model="vfio-pci")
        add(add(made, "source"), "address", uuid=_uuid(device.address))
        return made
    raise DevicevmError(f"host device {device.address}: kind {device.kind!r} is unknown", hint="use pci or mdev")


def hostdev_address(hostdev: Element) -> str:
    """The address of a rendered or observed `<hostdev>`, written as HostDevice's; empty for other kinds."""
    address = hostdev.find("source/address")
    if address is None:
        return ""
    if hostdev.get("type") == "mdev":
        return address.get("uuid", "").lower()
    numbers = [address.get(key, "0x0") for key in _PARTS]
    if hostdev.get("type") != "pci" or not all(re.fullmatch("0x[0-9a-fA-F]{1,4}", number) for number in numbers):
        return ""
    domain, bus, slot, function = (int(number, 16) for number in numbers)
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


_PARTS = ("domain", "bus", "slot", "function")


def _uuid(text: str) -> str:
    try:
        made = str(UUID(text))
    except ValueError:
        made = ""
    if made != text:
        raise DevicevmError(f"{text!r} is no UUID of a mediated device", hint="ls /sys/bus/mdev/devices tells them")
    return made
