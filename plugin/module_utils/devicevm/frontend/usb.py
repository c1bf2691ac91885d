"""USB devices: the client's VMM plugs in what the usbredir protocol tells of on the channel.

When the device VM goes, the device is unplugged, and plugged in again when it is back.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from ..channel.stream import connect_source
from ..domain import Attachment
from .frontend import Frontend, alias


def _redirected(attachment: Attachment, number: int) -> list[Element]:
    device = Element("redirdev", {"bus": "usb", "type": "unix"})
    device.append(connect_source(attachment.channel.address, reconnect=True))
    device.append(alias(attachment))
    return [device]


USBS = (
    Frontend(
        name="usb-redir",
        protocol="usbredir",
        live=True,
        reconnects=True,
        elements=_redirected,
        numbering="redir",
        controllers=(("usb", "qemu-xhci"),),
    ),
)
