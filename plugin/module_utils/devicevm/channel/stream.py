"""The `stream` channel: bytes over a unix socket, one virtio-serial port in the device VM at its other end.

The device VM's VMM listens, the client's connects: no process on the host is in between. One peer at a time;
a second one waits in the socket's queue until the first has gone.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

CONTROLLER_PORTS = 16
"""Ports of a virtio-serial controller; QEMU keeps port 0 to itself. QEMU tells a booting guest of each port in two
messages, name and peer, into a queue of 32, and drops what the queue does not hold: a guest with more ports on one
controller never hears of some peers that were there before it, and they wait for ever."""


def controllers_for(devices: int) -> int:
    """How many virtio-serial controllers a device VM has for that many devices and its control port."""
    return 1 + devices // (CONTROLLER_PORTS - 1)


def server_element(address: str, port: str) -> Element:
    """The device VM's end: `<channel>`, a virtio-serial port named `port` behind a listening socket."""
    channel = Element("channel", {"type": "unix"})
    SubElement(channel, "source", {"mode": "bind", "path": address})
    SubElement(channel, "target", {"type": "virtio", "name": port})
    return channel


def connect_source(address: str, *, reconnect: bool = False) -> Element:
    """The client's end for character devices: `<source mode='connect'>`.

    `reconnect`: try again every second when the device VM goes away.
    """
    source = Element("source", {"mode": "connect", "path": address})
    if reconnect:
        SubElement(source, "reconnect", {"enabled": "yes", "timeout": "1"})
    return source
