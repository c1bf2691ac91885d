"""What a class whose devices share memory must say: how much, and who may only read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..channel.region import LEAST
from ..errors import DevicevmError, Problem
from ..quantity import format_bytes, parse_bytes
from .document import Document, Place, shown
from .parameters import names_of, service_schema

MEMORY = "memory"
"""The protocol of such classes."""

_SERVICE: Place = ("spec", "service")


def region_class_problems(document: Document) -> Iterator[Problem]:
    """The memory is one thing for all devices of the class in a device VM: its size is among what is said once."""
    if document.spec["protocol"] != MEMORY:
        return
    if "service" not in document.spec:
        hint = "add service: the program that writes to it, with a parameter size"
        yield document.problem(("spec",), "devices that share memory need a program that runs once for all", hint)
    elif "size" not in names_of(service_schema(document.spec)):
        message = "there is no parameter size, which tells how much memory is shared"
        yield document.problem(_SERVICE, message, "add it to service.parameters.properties, with a default")


def size_problems(document: Document, place: Place, class_: Document, given: Mapping[str, Any]) -> Iterator[Problem]:
    """A PCI device's memory comes in powers of two."""
    if class_.spec["protocol"] != MEMORY:
        return
    if "size" not in given:
        yield document.problem(place, f"class {class_.name} shares memory, and nothing says how much", "give size")
        return
    try:
        size = parse_bytes(given["size"])
    except DevicevmError as error:
        yield document.problem((*place, "size"), error.message, error.hint)
        return
    if size < LEAST or size & (size - 1):
        fitting = format_bytes(max(LEAST, 1 << (size - 1).bit_length()))
        message = f"{shown(given['size'])} of shared memory cannot be had: sizes are powers of two, from 4KiB"
        yield document.problem((*place, "size"), message, f"the next one is {fitting}")
