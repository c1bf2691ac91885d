"""The kinds of channels between a device VM and its clients. A new kind is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from ..errors import DevicevmError
from . import link, region, stream


@dataclass(frozen=True)
class ChannelKind:
    """A kind of channel.

    `device_vm(address, port)` makes the device VM's end: the device that its VMM gives it. It is a port, at which the
    emulator sits. A kind without one is there as long as the device VM (DomainSpec.links, .regions); the emulator
    then tells by itself when it is ready, and nobody is seen to be connected. `shares_memory`: each end sees memory of
    the other's.
    """

    name: str
    shares_memory: bool
    device_vm: Callable[[str, str], Element] | None = None

    @property
    def has_port(self) -> bool:
        """Whether the emulator sits at a port, where it can be probed and its peer be seen."""
        return self.device_vm is not None


CHANNELS = {
    kind.name: kind
    for kind in (
        ChannelKind(name="stream", shares_memory=False, device_vm=stream.server_element),
        # Without ACPI there is no PCI hot-plug.
        ChannelKind(name=link.LINK, shares_memory=False),
        ChannelKind(name=region.REGION, shares_memory=True),
    )
}

MAX_ADDRESS = 99
"""Bytes of a socket path. The kernel's limit is 107 (unix(7)); libvirt and QEMU append to it in places."""


def channel_kind(name: str) -> ChannelKind:
    """The channel kind of that name; DevicevmError names the known ones."""
    if name not in CHANNELS:
        raise DevicevmError(f"channel {name!r} is unknown", hint=f"known channels: {', '.join(sorted(CHANNELS))}")
    return CHANNELS[name]


def check_address(address: str) -> str:
    """The socket path itself when it can be one: absolute and short enough for every program on the way."""
    size = len(address.encode())
    if not address.startswith("/"):
        raise DevicevmError(f"channel address {address!r} is no absolute path")
    if size > MAX_ADDRESS:
        raise DevicevmError(
            f"channel address {address!r} is {size} bytes long, {MAX_ADDRESS} are allowed",
            hint="set XDG_RUNTIME_DIR to a shorter directory",
        )
    return address
