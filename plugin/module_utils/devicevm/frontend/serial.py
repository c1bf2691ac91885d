"""Serial ports: bytes as they are. Port 0 is the client's console, so the first ISA port is ttyS1."""

from __future__ import annotations

from functools import partial
from xml.etree.ElementTree import Element, SubElement

from ..channel.stream import connect_source
from ..domain import Attachment
from .frontend import Frontend, alias

ISA_PORTS = 4
"""A PC has four ISA serial ports; QEMU refuses a fifth."""


def _serial(kind: str, attachment: Attachment, number: int) -> list[Element]:
    serial = Element("serial", {"type": "unix"})
    serial.append(connect_source(attachment.channel.address, reconnect=True))
    target = SubElement(serial, "target", {"type": kind, "port": str(number)})
    SubElement(target, "model", {"name": kind})
    serial.append(alias(attachment))
    return [serial]


SERIALS = (
    Frontend(
        name="isa-serial",
        protocol="bytes",
        live=False,
        reconnects=True,
        elements=partial(_serial, "isa-serial"),
        numbering="isa",
        first=1,
        last=ISA_PORTS - 1,
    ),
    # libvirt numbers all serial ports in one row; these two stay clear of the ISA ones, so that adding
    # an ISA port renumbers nothing.
    Frontend(
        name="pci-serial",
        protocol="bytes",
        live=True,
        reconnects=True,
        elements=partial(_serial, "pci-serial"),
        numbering="serial",
        first=ISA_PORTS,
        ports=1,
    ),
    Frontend(
        name="usb-serial",
        protocol="bytes",
        live=True,
        reconnects=True,
        elements=partial(_serial, "usb-serial"),
        numbering="serial",
        first=ISA_PORTS,
        controllers=(("usb", "qemu-xhci"),),
    ),
)
