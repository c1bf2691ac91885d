"""Domains of others that float, and were moved off CPUs that are dedicated to somebody. Pure.

What devicevm did to such a domain stands in the domain itself, in a namespace of its own, so that it can be undone by
whoever reads it, and so that what was moved is still known to float:

    <moved owner="default" cpus="0-3" was="0-5" vcpus="0-1" emulator="yes"/>

`vcpus` and `emulator` are the threads that had no pin of their own; nothing else was touched. `was` is where they were
moved before: a move that was interrupted leaves some here and some there.
"""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import DevicevmError
from .cpuset import format_cpuset, parse_cpuset

NAMESPACE = "urn:devicevm:moved:v1"
PREFIX = "devicevm-moved"
_TAG = f"{{{NAMESPACE}}}moved"


@dataclass(frozen=True)
class Moved:
    """What was done to a domain. `cpus` is where its floating threads are to run."""

    owner: str
    cpus: tuple[int, ...]
    was: tuple[int, ...] = ()
    vcpus: tuple[int, ...] = ()
    emulator: bool = False

    @property
    def places(self) -> set[tuple[int, ...]]:
        """Pins that are devicevm's own."""
        return {self.cpus, self.was} - {()}


@dataclass(frozen=True)
class FloatingThreads:
    """Which threads of a domain may run on any CPU, but for what devicevm did."""

    vcpus: tuple[int, ...]
    emulator: bool


def moved_from_element(root: ET.Element) -> Moved | None:
    """What a domain's XML says of moves; None where it says nothing that makes sense: it is anybody's to edit."""
    mark = root.find(f"metadata/{_TAG}")
    if mark is None:
        return None
    try:
        cpus, was, vcpus = (parse_cpuset(mark.get(name, "")) for name in ("cpus", "was", "vcpus"))
    except DevicevmError:
        return None
    return Moved(mark.get("owner", ""), cpus, was, vcpus, mark.get("emulator") == "yes") if cpus else None


def mark_of(moved: Moved) -> ET.Element:
    """The element, without namespace, as virDomainSetMetadata takes it."""
    return ET.Element(
        "moved",
        owner=moved.owner,
        cpus=format_cpuset(moved.cpus),
        was=format_cpuset(moved.was),
        vcpus=format_cpuset(moved.vcpus),
        emulator="yes" if moved.emulator else "no",
    )


def without_moves(root: ET.Element, moved: Moved | None) -> ET.Element:
    """The domain as it would be had it never been moved."""
    if moved is None or root.find("cputune") is None:
        return root
    root = copy.deepcopy(root)
    tune = root.find("cputune")
    for pin in list(tune) if tune is not None else ():
        if tune is not None and _is_ours(pin, moved):
            tune.remove(pin)
    return root


def floating_threads(root: ET.Element, vcpus: int, host_cpus: frozenset[int]) -> FloatingThreads:
    """The threads without a pin, of a domain without moves; a pin on all of the host's CPUs is none."""
    vcpu = root.find("vcpu")
    if vcpu is not None and vcpu.get("cpuset") and not _everywhere(vcpu.get("cpuset", ""), host_cpus):
        return FloatingThreads((), False)
    held = {(pin.tag, pin.get("vcpu", "")) for pin in _pins(root) if not _everywhere(pin.get("cpuset", ""), host_cpus)}
    return FloatingThreads(
        tuple(number for number in range(vcpus) if ("vcpupin", str(number)) not in held),
        ("emulatorpin", "") not in held,
    )


def is_settled(root: ET.Element, moved: Moved, threads: FloatingThreads) -> bool:
    """Whether every thread that floats is where the last move was to bring it."""
    there = {(pin.tag, pin.get("vcpu", "")) for pin in _pins(root) if parse_cpuset(pin.get("cpuset", "")) == moved.cpus}
    return all(("vcpupin", str(number)) in there for number in threads.vcpus) and (
        not threads.emulator or ("emulatorpin", "") in there
    )


def _pins(root: ET.Element) -> Iterator[ET.Element]:
    tune = root.find("cputune")
    for pin in tune if tune is not None else ():
        if pin.tag in ("vcpupin", "emulatorpin"):
            yield pin


def _is_ours(pin: ET.Element, moved: Moved) -> bool:
    if pin.tag == "vcpupin":
        listed = pin.get("vcpu", "").isdecimal() and int(pin.get("vcpu", "")) in moved.vcpus
    else:
        listed = pin.tag == "emulatorpin" and moved.emulator
    return listed and parse_cpuset(pin.get("cpuset", "")) in moved.places


def _everywhere(cpuset: str, host_cpus: frozenset[int]) -> bool:
    return bool(host_cpus) and host_cpus.issubset(parse_cpuset(cpuset))
