"""TPMs: the client's VMM speaks to a relay on the host (part/tpm.py), since it hands over a file descriptor."""

from __future__ import annotations

from functools import partial
from xml.etree.ElementTree import Element, SubElement

from ..channel.stream import connect_source
from ..domain import Attachment
from .frontend import Frontend


def _tpm(model: str, attachment: Attachment, number: int) -> list[Element]:
    # No alias: libvirt keeps none of a user's for a TPM.
    tpm = Element("tpm", {"model": model})
    backend = SubElement(tpm, "backend", {"type": "external"})
    source = connect_source(attachment.channel.address)
    source.set("type", "unix")
    backend.append(source)
    return [tpm]


TPMS = tuple(
    Frontend(
        name=model,
        protocol="tpm",
        live=False,
        reconnects=False,
        elements=partial(_tpm, model),
        numbering="tpm",
        # QEMU takes one.
        last=0,
        part="tpm",
        attachable=False,
    )
    for model in ("tpm-crb", "tpm-tis")
)
