"""Disks: the client's VMM is an NBD client on the channel's unix socket."""

from __future__ import annotations

from functools import partial
from xml.etree.ElementTree import Element, SubElement

from ..domain import Attachment
from .frontend import Frontend, alias, serial_number


def letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa: how disks are counted."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def _disk(bus: str, prefix: str, attachment: Attachment, number: int) -> list[Element]:
    disk = Element("disk", {"type": "network", "device": "disk"})
    # cache=none: no copy in the host's page cache, and every flush of the guest reaches the emulator.
    # A request that fails, because the device VM has gone, is kept, and the client is paused by its VMM: what was not
    # acknowledged is asked again when it goes on (Driver.resume), and the guest never hears of it.
    policy = {"error_policy": "stop", "rerror_policy": "stop"}
    SubElement(disk, "driver", {"name": "qemu", "type": "raw", "cache": "none", **policy})
    source = SubElement(disk, "source", {"protocol": "nbd"})
    SubElement(source, "host", {"transport": "unix", "socket": attachment.channel.address})
    SubElement(disk, "target", {"dev": prefix + letters(number), "bus": bus})
    if attachment.read_only:
        SubElement(disk, "readonly")
    SubElement(disk, "serial").text = serial_number(attachment.name)
    disk.append(alias(attachment))
    return [disk]


DISKS = (
    Frontend(
        name="virtio-blk",
        protocol="nbd",
        live=True,
        reconnects=True,
        elements=partial(_disk, "virtio", "vd"),
        numbering="vd",
        ports=1,
    ),
    Frontend(
        name="virtio-scsi",
        protocol="nbd",
        live=True,
        reconnects=True,
        elements=partial(_disk, "scsi", "sd"),
        numbering="sd",
        controllers=(("scsi", "virtio-scsi"),),
    ),
    Frontend(
        name="sata", protocol="nbd", live=False, reconnects=True, elements=partial(_disk, "sata", "sd"), numbering="sd"
    ),
    Frontend(
        name="usb",
        protocol="nbd",
        live=True,
        reconnects=True,
        elements=partial(_disk, "usb", "sd"),
        numbering="sd",
        controllers=(("usb", "qemu-xhci"),),
    ),
)
