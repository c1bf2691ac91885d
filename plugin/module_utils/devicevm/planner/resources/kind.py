"""What a kind of resource answers, and what it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ...domain import CpuPlacement, DomainSpec, HostDevice
from ...manifest.topology import ResourceRequest
from ..book import ANYWHERE, Book
from ..code import Code
from .near import Beside, near_of

_OWN = Code()


@dataclass(slots=True)
class Footing:
    """What a device VM stands on, as far as it is found: each kind of resource adds to it.

    `vcpus` is how many virtual CPUs it gets, `memory` what it needs (bytes), `features` the instruction set extensions
    that are asked of the VMM, `page_size` its memory's (bytes; 0 = usual), `arch` the architecture whose code the VMM
    translates for it (empty = the host's own). `devices` is how many devices it emulates; `machine` is what firmware
    runs on, and `code` what the alternative brings along to run. `why` says why these, and is worded as late as a
    Misfit.
    """

    memory: int
    placement: CpuPlacement = ANYWHERE
    vcpus: int = 1
    features: tuple[str, ...] = ()
    page_size: int = 0
    arch: str = ""
    devices: int = 1
    machine: str = ""
    code: Code = _OWN
    host_devices: tuple[HostDevice, ...] = ()
    beside: Beside | None = None
    """The clients that it serves and where they are; None = not known, and then nearness is not looked at."""
    why: list[Callable[[], str]] = field(default_factory=list)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it stands on these, one for each request."""
        return tuple(why() for why in self.why)


class Misfit(NamedTuple):
    """It cannot be had. The words, with the numbers, are only worked out when somebody asks: on a fleet most hosts
    refuse what another one takes. They are those of the book as it is when they are asked for."""

    why: Callable[[], str]

    @property
    def reason(self) -> str:
        """The numbers."""
        return self.why()


class ResourceKind(Protocol):
    """One kind of resource. It reads the book and writes nothing there."""

    @property
    def name(self) -> str:
        """What manifests call it."""

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        """Add to the footing so far what this request gives; or say why it cannot be had on this host."""

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """Whether what a device VM was given earlier is what is asked for now, as far as this kind goes."""

    def describe(self, request: ResourceRequest) -> str:
        """The request in words: `2 dedicated cores`."""


def words(request: ResourceRequest, noun: str) -> str:
    """`2 dedicated cores on one node`, `1 thread`."""
    dedicated = "dedicated " if request.dedicated else "floating " if request.options.get("float") else ""
    node = request.options.get("numaNode")
    where = "" if node is None else " on one NUMA node" if node == "one" else f" on NUMA node {node}"
    smt = request.options.get("smt", "prefer")
    sibling = {"prefer": "", "isolate": ", each alone on its core", "require": ", siblings together"}[smt]
    beside = {"node": " on the node of its clients", "sibling": " beside its clients' own"}.get(near_of(request), "")
    own = {"own": ", one more for the VMM", "shared": ", the VMM's own threads in the shared pool"}
    emulator = own.get(request.options.get("emulator", ""), "")
    return f"{request.count} {dedicated}{noun}{'s' if request.count != 1 else ''}{sibling}{where}{beside}{emulator}"


def nodes_for(request: ResourceRequest, book: Book) -> list[int | None]:
    """The NUMA nodes to look at, one after the other; None stands for the whole host."""
    wanted = request.options.get("numaNode")
    if wanted is None and request.options.get("near") != "node":
        return [None]
    return list(book.nodes) if wanted in (None, "one") else [node for node in book.nodes if node == wanted]
