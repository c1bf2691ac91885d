"""Disks: the client's VMM is an NBD client on the channel's unix socket."""

from __future__ import annotations

import json
from functools import partial
from xml.etree.ElementTree import Element, SubElement

from ..domain import Attachment
from .frontend import Frontend, alias, nothing, serial_number

NVME_PATIENCE = 60
"""Seconds that a request to an NVMe disk waits for its device VM to come back, before the guest hears of it."""


def letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa: how disks are counted."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def _disk(bus: str, prefix: str, attachment: Attachment, number: int, *, device: str = "disk") -> list[Element]:
    disk = Element("disk", {"type": "network", "device": device})
    # cache=none: no copy in the host's page cache, and every flush of the guest reaches the emulator.
    # A request that fails, because the device VM has gone, is kept, and the client is paused by its VMM: what was not
    # acknowledged is asked again when it goes on (Driver.resume), and the guest never hears of it.
    kept = "report" if attachment.faulty else "stop"
    policy = {"error_policy": kept, "rerror_policy": kept}
    SubElement(disk, "driver", {"name": "qemu", "type": "raw", "cache": "none", **policy})
    source = SubElement(disk, "source", {"protocol": "nbd"})
    SubElement(source, "host", {"transport": "unix", "socket": attachment.channel.address})
    SubElement(disk, "target", {"dev": prefix + letters(number), "bus": bus})
    if attachment.read_only:
        SubElement(disk, "readonly")
    SubElement(disk, "serial").text = serial_number(attachment.name)
    disk.append(alias(attachment))
    return [disk]


def _nvme(attachment: Attachment, number: int, bus: str, boots: bool) -> tuple[str, ...]:
    """libvirt's own NVMe disks are the host's, given whole. QEMU's emulated one has no policy for errors, so that its
    NBD client waits instead."""
    node = f"nvme-{number}"
    backend = {
        "driver": "nbd",
        "node-name": node,
        "server": {"type": "unix", "path": attachment.channel.address},
        "cache": {"direct": True, "no-flush": False},
        "read-only": attachment.read_only,
        "reconnect-delay": 0 if attachment.faulty else NVME_PATIENCE,
        "discard": "unmap",
    }
    # As JSON, like libvirt's own: QEMU makes all that is not before those, in PCI slots that libvirt has given them.
    device = {
        "driver": "nvme",
        "id": f"ua-{attachment.name}",
        "drive": node,
        "serial": serial_number(attachment.name),
        "bus": bus,
        **({"bootindex": 1} if boots else {}),
    }
    return "-blockdev", json.dumps(backend), "-device", json.dumps(device)


SCSI = (("scsi", "virtio-scsi"),)
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
        controllers=SCSI,
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
    Frontend(
        name="nvme",
        protocol="nbd",
        live=False,
        reconnects=False,
        elements=nothing,
        arguments=_nvme,
        numbering="nvme",
    ),
    Frontend(
        name="ide",
        protocol="nbd",
        live=False,
        reconnects=True,
        elements=partial(_disk, "ide", "hd"),
        numbering="hd",
        last=3,
        machine="pc",
    ),
    Frontend(
        name="scsi-cdrom",
        protocol="nbd",
        live=True,
        reconnects=True,
        elements=partial(_disk, "scsi", "sd", device="cdrom"),
        numbering="sd",
        controllers=SCSI,
        read_only=True,
    ),
    Frontend(
        name="sata-cdrom",
        protocol="nbd",
        live=False,
        reconnects=True,
        elements=partial(_disk, "sata", "sd", device="cdrom"),
        numbering="sd",
        read_only=True,
    ),
)
