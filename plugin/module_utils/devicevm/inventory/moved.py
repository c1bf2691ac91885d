"""Domains of others that float, and were moved off CPUs that are dedicated to somebody. Pure.

What devicevm did to such a domain stands in the domain itself, in a namespace of its own, so that it can be undone by
whoever reads it, and so that what was moved is still known to float:

    <moved owner="default" cpus="0-3" was="0-5" vcpus="0-1" iothreads="1" emulator="yes"/>

`vcpus`, `iothreads` and `emulator` are the threads that had no pin of their own; nothing else was touched. `was` is
where they were moved before: a move that was interrupted leaves some here and some there.
"""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from ..errors import DevicevmError
from .cpuset import MAX_CPUS, format_cpuset, parse_cpuset

NAMESPACE = "urn:devicevm:moved:v1"
PREFIX = "devicevm-moved"
_SETS = ("cpus", "was", "vcpus", "iothreads")
_TAG = f"{{{NAMESPACE}}}moved"


@dataclass(frozen=True)
class Moved:
    """What was done to a domain. `cpus` is where its floating threads are to run."""

    owner: str
    cpus: tuple[int, ...]
    was: tuple[int, ...] = ()
    vcpus: tuple[int, ...] = ()
    emulator: bool = False
    iothreads: tuple[int, ...] = ()

    @property
    def places(self) -> set[tuple[int, ...]]:
        """Pins that are devicevm's own."""
        return {self.cpus, self.was} - {()}


@dataclass(frozen=True)
class FloatingThreads:
    """Which threads of a domain may run on any CPU, but for what devicevm did."""

    vcpus: tuple[int, ...]
    emulator: bool
    iothreads: tuple[int, ...] = ()


def moved_from_element(root: ET.Element) -> Moved | None:
    """What a domain's XML says of moves; None where it says nothing that makes sense: it is anybody's to edit."""
    mark = root.find(f"metadata/{_TAG}")
    if mark is None:
        return None
    try:
        cpus, was, vcpus, iothreads = (parse_cpuset(mark.get(name, "")) for name in _SETS)
    except DevicevmError:
        return None
    return Moved(mark.get("owner", ""), cpus, was, vcpus, mark.get("emulator") == "yes", iothreads) if cpus else None


def mark_of(moved: Moved) -> ET.Element:
    """The element, without namespace, as virDomainSetMetadata takes it."""
    return ET.Element(
        "moved",
        owner=moved.owner,
        cpus=format_cpuset(moved.cpus),
        was=format_cpuset(moved.was),
        vcpus=format_cpuset(moved.vcpus),
        iothreads=format_cpuset(moved.iothreads),
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
    held = {_thread(pin) for pin in _pins(root) if not _everywhere(pin.get("cpuset", ""), host_cpus)}
    return FloatingThreads(
        tuple(number for number in range(vcpus) if ("vcpupin", str(number)) not in held),
        ("emulatorpin", "") not in held,
        tuple(number for number in _iothreads(root) if ("iothreadpin", str(number)) not in held),
    )


def is_settled(root: ET.Element, moved: Moved, threads: FloatingThreads) -> bool:
    """Whether every thread that floats is where the last move was to bring it."""
    there = {_thread(pin) for pin in _pins(root) if parse_cpuset(pin.get("cpuset", "")) == moved.cpus}
    wanted = {("vcpupin", str(number)) for number in threads.vcpus}
    wanted |= {("iothreadpin", str(number)) for number in threads.iothreads}
    return there.issuperset(wanted | ({("emulatorpin", "")} if threads.emulator else set()))


def _pins(root: ET.Element) -> Iterator[ET.Element]:
    tune = root.find("cputune")
    for pin in tune if tune is not None else ():
        if pin.tag in ("vcpupin", "emulatorpin", "iothreadpin"):
            yield pin


def _thread(pin: ET.Element) -> tuple[str, str]:
    return pin.tag, pin.get("vcpu", pin.get("iothread", ""))


def _iothreads(root: ET.Element) -> list[int]:
    """The numbers of a domain's I/O threads: those that are said, and for the rest the first that are left."""
    said = {int(one.get("id", "")) for one in root.findall("iothreadids/iothread") if one.get("id", "").isdecimal()}
    text = (root.findtext("iothreads") or "0").strip()
    count = min(int(text), MAX_CPUS) if text.isdecimal() and len(text) < 9 else 0
    others = (number for number in range(1, count + len(said) + 1) if number not in said)
    return sorted(said | set(islice(others, max(count - len(said), 0))))


def _is_ours(pin: ET.Element, moved: Moved) -> bool:
    tag, number = _thread(pin)
    if tag == "emulatorpin":
        listed = moved.emulator
    else:
        known = {"vcpupin": moved.vcpus, "iothreadpin": moved.iothreads}.get(tag, ())
        listed = number.isdecimal() and int(number) in known
    return listed and parse_cpuset(pin.get("cpuset", "")) in moved.places


def _everywhere(cpuset: str, host_cpus: frozenset[int]) -> bool:
    return bool(host_cpus) and host_cpus.issubset(parse_cpuset(cpuset))
