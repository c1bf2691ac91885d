"""Element trees in few words: every piece of XML that devicevm makes or reads goes through here."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError, SubElement

from ...errors import DevicevmError

MAX_DOCUMENT = 8 * 2**20
"""Bytes of a document that are read at most; libvirt's own limit for a domain is 4 MiB."""


def element(tag: str, text: str = "", /, **attributes: str) -> Element:
    """`<tag attributes>text</tag>`; attributes are in the order given."""
    made = Element(tag, attributes)
    if text:
        made.text = text
    return made


def add(parent: Element, tag: str, text: str = "", /, **attributes: str) -> Element:
    """The same as `element`, appended to `parent`."""
    made = SubElement(parent, tag, attributes)
    if text:
        made.text = text
    return made


def to_text(tree: Element, *, pretty: bool = False) -> str:
    """The tree as XML text; `pretty` is for people and goldens (it changes white space between elements)."""
    if pretty:
        ElementTree.indent(tree)
    return ElementTree.tostring(tree, encoding="unicode") + ("\n" if pretty else "")


def parse(text: str, what: str) -> Element:
    """The root element of `text`; DevicevmError says where `what` is malformed.

    Document types are refused: no domain has one, and entities are how a small document becomes a large one.
    """
    if len(text) > MAX_DOCUMENT:
        raise DevicevmError(f"{what} is {len(text)} characters long, {MAX_DOCUMENT} are allowed")
    if "<!DOCTYPE" in text:
        raise DevicevmError(f"{what} has a document type", hint="remove the <!DOCTYPE ...> declaration")
    try:
        return ElementTree.fromstring(text)
    except ParseError as error:
        line, column = error.position
        raise DevicevmError(f"{what} is no XML: line {line}, column {column + 1}: {error.msg.split(':')[0]}") from error
