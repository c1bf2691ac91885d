"""libvirt's node devices: the host's PCI functions, mediated devices, USB devices and others.

Format: https://libvirt.org/formatnode.html and libvirt's schema nodedev.rng.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

from ..errors import DevicevmError
from .document import integer, parse_document, pci_address, stripped
from .host import NodeDevice

WHAT = "node device"


def parse_node_device(xml: str) -> NodeDevice:
    """A node device as plain data; DevicevmError when `xml` is none.

    `kind` is libvirt's word for the capability (pci, usb_device, mdev, ap_matrix, net...). `address` is what a
    domain that holds the device is known by, `Holding.node_devices` speaks the same: `0000:02:10.7` for PCI, the
    UUID for a mediated device, `usb:BUS:DEVICE` for USB; other kinds have none. Ids are `0x8086`, classes
    `0x020000`. The `product` of a mediated device is its type.
    """
    root = parse_document(xml, ("device",), WHAT)
    name = stripped(root.findtext("name"))
    capability = root.find("capability")
    if not name or capability is None:
        raise DevicevmError(f"{WHAT} {name}: no <name> or no <capability>", hint="save: virsh nodedev-dumpxml NAME")
    device = NodeDevice(
        name=name,
        kind=capability.get("type", ""),
        parent=stripped(root.findtext("parent")),
        driver=stripped(root.findtext("driver/name")),
        vendor=_id(capability.find("vendor"), f"{WHAT} {name}: vendor"),
        product=_id(capability.find("product"), f"{WHAT} {name}: product"),
        iommu_group=_attribute(capability.find("iommuGroup"), "number", f"{WHAT} {name}: IOMMU group"),
        node=_attribute(capability.find("numa"), "node", f"{WHAT} {name}: NUMA node"),
        mdev_types=_mdev_types(capability, f"{WHAT} {name}: mdev instances"),
    )
    detail = {"pci": _pci, "usb_device": _usb, "mdev": _mdev}.get(device.kind)
    return detail(device, capability, f"{WHAT} {name}") if detail else device


def _pci(device: NodeDevice, capability: ET.Element, what: str) -> NodeDevice:
    domain, bus, slot, function = (
        integer(capability.findtext(part), 0, f"{what}: {part}") for part in ("domain", "bus", "slot", "function")
    )
    class_code = stripped(capability.findtext("class"))
    physical = capability.find("capability[@type='phys_function']/address")
    virtual = capability.findall("capability[@type='virt_functions']/address")
    return replace(
        device,
        address=f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}",
        class_code=f"0x{integer(class_code, 0, f'{what}: class'):06x}" if class_code else "",
        physical_function=pci_address(physical, what) if physical is not None else "",
        virtual_functions=tuple(pci_address(address, what) for address in virtual),
    )


def _usb(device: NodeDevice, capability: ET.Element, what: str) -> NodeDevice:
    bus, number = (integer(capability.findtext(part), 0, f"{what}: {part}") for part in ("bus", "device"))
    return replace(device, address=f"usb:{bus}:{number}")


def _mdev(device: NodeDevice, capability: ET.Element, what: str) -> NodeDevice:
    kind = capability.find("type")
    product = kind.get("id", "") if kind is not None else ""
    uuid = stripped(capability.findtext("uuid")).lower()
    # Before 8.1 libvirt left the UUID out; the name has it, with underscores.
    words = device.name.removeprefix("mdev_").split("_")
    return replace(device, product=product, address=uuid or "-".join(words[:5]).lower())


def _mdev_types(capability: ET.Element, what: str) -> dict[str, int]:
    types = capability.findall("capability[@type='mdev_types']/type")
    return {kind.get("id", ""): integer(kind.findtext("availableInstances"), 0, what) for kind in types}


def _id(element: ET.Element | None, what: str) -> str:
    number = element.get("id") if element is not None else None
    return f"0x{integer(number, 0, what):04x}" if number else ""


def _attribute(element: ET.Element | None, name: str, what: str) -> int:
    return integer(element.get(name), -1, what) if element is not None else -1
