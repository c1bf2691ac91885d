"""What a front end is: the same few facts for every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from ..domain import Attachment
from ..record import digest

MAX_SERIAL = 20
"""Bytes of a serial number that virtio-blk (VIRTIO_BLK_ID_BYTES) and ATA hand to the guest."""


@dataclass(frozen=True)
class Frontend:
    """A kind of device as a client's guest sees it.

    `protocol` is what it speaks over the channel: nbd, egd, 9p, bytes, ethernet, memory, tpm or
    usbredir.
    `elements(attachment, number)` makes its libvirt devices, `arguments(attachment, number, bus, boots)` what libvirt
    has no words for: arguments of QEMU, for a device on the PCI bus of that name; `boots`: the client boots from it.
    `number` counts, from `first`, the client's devices with the same `numbering` (disk target prefix, serial port), at
    most up to `last`. `live`: it can be attached to a running client.
    `reconnects`: its client goes on by itself, with nothing lost, after its device VM was restarted, as long as
    what was on the device is still there. A USB device counts as well: it is pulled out and plugged in again, which its
    guest is made for.
    `machine`: it is only in this kind of machine (registry.MACHINES); `read_only`: no guest can write to it.
    `controllers` are (type, model) pairs that the client needs once; `ports` is how many PCIe ports each takes.
    """

    name: str
    protocol: str
    live: bool
    reconnects: bool
    elements: Callable[[Attachment, int], list[Element]]
    numbering: str
    first: int = 0
    last: int = 10**6
    controllers: tuple[tuple[str, str], ...] = ()
    ports: int = 0
    channels: tuple[str, ...] = ("stream",)
    arguments: Callable[[Attachment, int, str, bool], tuple[str, ...]] | None = None
    part: str = ""
    """The kind of the host part that is between the channel and the client's VMM; empty = nothing is."""
    machine: str = ""
    read_only: bool = False
    attachable: bool = True
    """Whether libvirt can give it to a domain that is there; what it has no words for, it cannot give either."""


def alias(attachment: Attachment) -> Element:
    """`<alias>`: the device's name in the VMM's own words; libvirt keeps those that start with `ua-`."""
    return Element("alias", {"name": f"ua-{attachment.name}"})


def nothing(attachment: Attachment, number: int) -> list[Element]:
    """The devices of a front end that libvirt has no words for."""
    return []


def serial_number(name: str) -> str:
    """The device's name as its guest finds it (/dev/disk/by-id); long names are cut and stay distinct."""
    return name if len(name) <= MAX_SERIAL else f"{name[: MAX_SERIAL - 7]}-{digest(name, 6)}"
