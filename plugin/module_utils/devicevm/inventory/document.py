"""XML documents of others, read with care: bounded, without DTDs, numbers checked before use."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable

from ..errors import DevicevmError

# libvirt's own limit for one string of its protocol (VIR_NET_MESSAGE_STRING_MAX, 16 MiB since 6.5).
MAX_DOCUMENT = 16 * 2**20
_NUMBER = re.compile(r"-?[0-9]{1,18}|0[xX][0-9a-fA-F]{1,15}", re.ASCII)


class _NoDoctype(ET.TreeBuilder):
    """Refuses a document type: entities, and with them expansion bombs and file access, need one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DevicevmError("a document type (<!DOCTYPE>) is not accepted here")


def parse_document(xml: str, roots: Iterable[str], what: str) -> ET.Element:
    """The root element of `xml`, which must be one of `roots`; DevicevmError, naming `what`, if it is not."""
    expected = " or ".join(f"<{root}>" for root in roots)
    if len(xml) > MAX_DOCUMENT:
        raise DevicevmError(f"{what}: {len(xml)} characters are too many", hint=f"at most {MAX_DOCUMENT} are read")
    # The refusing builder costs a Python call; texts that cannot have a document type take the fast one.
    parser = ET.XMLParser(target=_NoDoctype()) if "<!DOCTYPE" in xml else None
    try:
        root = ET.fromstring(xml, parser)
    except (ET.ParseError, UnicodeError) as error:
        raise DevicevmError(f"{what}: this is no XML: {error}", hint=f"{expected} is expected") from None
    except DevicevmError as error:
        raise DevicevmError(f"{what}: {error.message}", hint=f"{expected} is expected") from None
    if root.tag not in roots:
        raise DevicevmError(f"{what}: <{root.tag}> found", hint=f"{expected} is expected")
    return root


def integer(text: str | None, default: int, what: str) -> int:
    """A number, decimal or `0x...`; `default` when there is none; DevicevmError for anything else.

    Numbers of more than 18 decimal (15 hexadecimal) digits are refused: they fit no field and cost time.
    """
    number = (text or "").strip()
    if not number:
        return default
    if not _NUMBER.fullmatch(number):
        raise DevicevmError(f"{what}: {number[:40]!r} is no number")
    return int(number, 16) if number[:2] in ("0x", "0X") else int(number)


def scaled_bytes(text: str | None, unit: str | None, what: str, default_unit: str = "KiB") -> int:
    """`text` in `unit` as bytes, by libvirt's rules (virScaleInteger); 0 when there is no text.

    b, byte, bytes = 1; k and KiB = 1024, KB = 1000, and so on to E, in any case.
    """
    return integer(text, 0, what) * _scale(unit or default_unit, what)


def pci_address(address: ET.Element, what: str) -> str:
    """`<address domain= bus= slot= function=>` as `0000:02:10.7`, the kernel's way to write it."""
    domain, bus, slot, function = (
        integer(address.get(part), 0, what) for part in ("domain", "bus", "slot", "function")
    )
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def stripped(text: str | None) -> str:
    """Text without white space around it; empty for none."""
    return (text or "").strip()


def _scale(unit: str, what: str) -> int:
    name = unit.lower()
    if name in ("b", "byte", "bytes"):
        return 1
    power = "kmgtpe".find(name[0]) + 1
    base = {"": 1024, "ib": 1024, "b": 1000}.get(name[1:])
    if not power or base is None:
        raise DevicevmError(f"{what}: {unit[:40]!r} is no unit of memory", hint="libvirt's are KiB, MiB, GiB...")
    return int(base**power)
