"""Named ports: bytes between a program in the client and the emulator, for what no driver in the client is for."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from ..channel.stream import CONTROLLER_PORTS, connect_source
from ..domain import Attachment
from .frontend import Frontend, alias


def _port(attachment: Attachment, number: int) -> list[Element]:
    channel = Element("channel", {"type": "unix"})
    channel.append(connect_source(attachment.channel.address, reconnect=True))
    # The client finds it as /dev/virtio-ports/NAME.
    SubElement(channel, "target", {"type": "virtio", "name": attachment.name})
    channel.append(alias(attachment))
    return [channel]


def _frontend(name: str, protocol: str, *, reconnects: bool) -> Frontend:
    return Frontend(
        name=name,
        protocol=protocol,
        live=True,
        reconnects=reconnects,
        elements=_port,
        numbering="port",
        # As many as one controller tells a booting guest of (channel/stream.py).
        last=CONTROLLER_PORTS - 2,
        controllers=(("virtio-serial", "virtio"),),
    )


PORTS = (
    _frontend("virtio-port", "bytes", reconnects=True),
    # A 9p session ends with its connection: what a client has mounted fails until it is mounted anew.
    _frontend("9p-port", "9p", reconnects=False),
)
