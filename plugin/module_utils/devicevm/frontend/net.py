"""NICs: the client's end of a link to its device VM, whose other end is a port of a network there."""

from __future__ import annotations

from functools import partial
from xml.etree.ElementTree import Element

from ..channel.link import client_netdev
from ..domain import Attachment
from .frontend import Frontend

FIRST_SLOT = 0x10
"""libvirt does not know of these devices: they stay clear of the PCI slots that it gives away, which it does from 1
upwards, and from 0x1f downwards what a machine has by itself. So the n-th NIC is always in the same slot."""
NICS_OF_A_CLIENT = 8


def _nothing(attachment: Attachment, number: int) -> list[Element]:
    return []


def _nic(model: str, attachment: Attachment, number: int, bus: str) -> tuple[str, ...]:
    name = f"link-{attachment.name}"
    # No ROM: firmware would try to boot from the network.
    device = f"{model},id=nic-{attachment.name},netdev={name},mac={attachment.mac},bus={bus},addr={number:#x},romfile="
    return (*client_netdev(attachment.channel.address, name), "-device", device)


NICS = tuple(
    Frontend(
        name=name,
        protocol="ethernet",
        # libvirt cannot attach what it has no words for.
        live=False,
        reconnects=True,
        elements=_nothing,
        arguments=partial(_nic, model),
        numbering="nic",
        first=FIRST_SLOT,
        last=FIRST_SLOT + NICS_OF_A_CLIENT - 1,
        channels=("link",),
    )
    for name, model in (("virtio-net", "virtio-net-pci"), ("e1000e", "e1000e"))
)
