"""Random number generators: the client's VMM asks the device VM for entropy in EGD's protocol."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from ..channel.stream import connect_source
from ..domain import Attachment
from .frontend import Frontend, alias


def _rng(attachment: Attachment, number: int) -> list[Element]:
    rng = Element("rng", {"model": "virtio"})
    backend = SubElement(rng, "backend", {"model": "egd", "type": "unix"})
    backend.append(connect_source(attachment.channel.address, reconnect=True))
    rng.append(alias(attachment))
    return [rng]


RNGS = (
    Frontend(name="virtio-rng", protocol="egd", live=True, reconnects=True, elements=_rng, numbering="rng", ports=1),
)
