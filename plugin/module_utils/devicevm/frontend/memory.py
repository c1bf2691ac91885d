"""Shared memory: a PCI device whose BAR 2 is a region of the device VM's, to read, or to read and write."""

from __future__ import annotations

from ..channel.region import CLIENT_SLOT, FUNCTIONS, REGION, member_arguments, place_of
from ..domain import Attachment
from .frontend import Frontend, nothing


def _ivshmem(attachment: Attachment, number: int, bus: str, boots: bool) -> tuple[str, ...]:
    channel, place = attachment.channel, place_of(bus, CLIENT_SLOT, number)
    name = f"region-{attachment.name}"
    return member_arguments(name, channel.address, channel.size, place, read_only=attachment.read_only)


MEMORIES = (
    Frontend(
        name="ivshmem",
        protocol="memory",
        # libvirt cannot attach what it has no words for.
        live=False,
        reconnects=True,
        elements=nothing,
        arguments=_ivshmem,
        numbering=REGION,
        last=FUNCTIONS - 1,
        channels=(REGION,),
    ),
)
