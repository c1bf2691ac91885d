"""What the kinds that are made of logical processors have in common: choosing on one NUMA node after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ...domain import CpuPlacement, DomainSpec
from ...inventory.cpuset import format_cpuset
from ...inventory.free import describe_taken
from ...manifest.topology import ResourceRequest
from ...quantity import format_bytes
from ..book import Book, CpuState, cpus_of
from .emulator import emulator_cpus, emulator_on, same_emulator
from .kind import Footing, Misfit, nodes_for
from .near import Beside, client_nodes, near_of, siblings, strays


class Choice(NamedTuple):
    """The processors for a request, those that stay empty because of it, and why these. `floating` virtual CPUs run on
    any of them; with none, there is one for each."""

    cpus: tuple[int, ...]
    why: str
    idle: tuple[int, ...] = ()
    floating: int = 0

    @property
    def pins(self) -> tuple[tuple[int, ...], ...]:
        """The host's CPUs for each virtual CPU."""
        return (self.cpus,) * self.floating if self.floating else tuple(zip(self.cpus))


Chooser = Callable[[ResourceRequest, Book, "int | None"], "Choice | Callable[[], str]"]
"""Chooses on one node (None: anywhere); or gives what says how many there are."""


def fit_cpus(
    request: ResourceRequest, book: Book, footing: Footing, unit: str, choose: Chooser, dedicated: bool
) -> Misfit | None:
    """The first node on which the processors are, and the memory when a node was asked for."""
    nodes = nodes_for(request, book)
    if near_of(request) and footing.beside is not None:
        nearby = _nearby(request, book, footing.beside, nodes)
        if not isinstance(nearby, list):
            return Misfit(nearby)
        nodes = nearby
        if near_of(request) == "sibling":
            choose = partial(_beside, beside=footing.beside, dedicated=dedicated)
    asked = emulator_on(request, dedicated)
    short: list[Callable[[], str]] = []
    for node in nodes:
        choice = choose(request, book, node)
        if not isinstance(choice, Choice):
            short.append(choice)
            continue
        emulator = emulator_cpus(asked, book, node, choice.cpus, choice.idle, dedicated)
        if not isinstance(emulator, tuple):
            short.append(emulator)
            continue
        if node is not None and (lacks := _lacks_memory(footing, book, node)):
            short.append(lacks)
            continue
        placement = CpuPlacement(
            vcpus=choice.pins,
            emulator=emulator,
            nodes=() if node is None else (node,),
            dedicated=dedicated,
            unit=unit,
            idle=choice.idle,
            emulator_on=asked,
        )
        footing.placement, footing.vcpus = placement, len(placement.vcpus)
        footing.why.append(partial(_chosen, choice, placement))
        return None
    if not short:
        return Misfit(lambda: f"there is no NUMA node {request.options['numaNode']}")
    return Misfit(lambda: "; ".join(words() for words in short))


def _chosen(choice: Choice, placement: CpuPlacement) -> str:
    where = f" of NUMA node {placement.nodes[0]}" if placement.nodes else ""
    own = f"; the VMM's own threads on CPU {format_cpuset(placement.emulator)}" if placement.emulator_on else ""
    return f"CPU {format_cpuset(choice.cpus)}{where}: {choice.why}{own}"


def _nearby(
    request: ResourceRequest, book: Book, beside: Beside, nodes: list[int | None]
) -> list[int | None] | Callable[[], str]:
    """Those of the nodes that are near the clients; or what says why there are none."""
    if stray := strays(request, beside):
        return stray
    if near_of(request) != "node":
        return nodes
    theirs = client_nodes(beside, book)
    if len(theirs) != 1 or theirs[0] not in nodes:
        return lambda: f"its clients are on NUMA node {format_cpuset(theirs)}, which is not one it may be on"
    return [theirs[0]]


def _beside(
    request: ResourceRequest, book: Book, node: int | None, *, beside: Beside, dedicated: bool
) -> Choice | Callable[[], str]:
    cpus = siblings(request, book, beside, dedicated)
    if not isinstance(cpus, tuple):
        return cpus
    return Choice(cpus, f"of the core of {', '.join(name for name, placement in beside)}")


def taken(request: ResourceRequest, book: Book, unit: str, available: int, node: int | None) -> Callable[[], str]:
    """The arithmetic of a refusal: on the whole host with all holders, on one node by numbers."""
    if node is None:
        return lambda: describe_taken(book.free, request.count, unit)
    plural = "" if request.count == 1 else "s"
    return lambda: f"NUMA node {node}: {request.count} {unit}{plural} asked, {available} free"


def _lacks_memory(footing: Footing, book: Book, node: int) -> Callable[[], str] | None:
    """What says that a node has too little memory of the kind that is asked; None when it has enough."""
    asked, size = footing.memory, footing.page_size
    if size:
        left = book.huge_pages(size, node)
        if asked // size <= left:
            return None
        return lambda: f"NUMA node {node}: {asked // size} pages of {format_bytes(size)} asked, {left} left"
    left = book.memory_on(node)
    if asked <= left:
        return None
    return lambda: f"NUMA node {node}: {format_bytes(asked)} of memory asked, {format_bytes(max(left, 0))} left"


def as_asked(request: ResourceRequest, placement: CpuPlacement, book: Book) -> bool:
    """Whether a placement is on the nodes that are asked for, and the VMM's own threads are where they are to be."""
    return _same_node(request, placement) and same_emulator(request, placement, book)


def _same_node(request: ResourceRequest, placement: CpuPlacement) -> bool:
    wanted = request.options.get("numaNode")
    if wanted is None and near_of(request) != "node":
        return not placement.nodes
    return len(placement.nodes) == 1 and wanted in (None, "one", placement.nodes[0])


def count_of(spec: DomainSpec, book: Book, key: Callable[[CpuState], str]) -> int:
    """How many cores or sockets a device VM is on."""
    return len({key(book.cpus[cpu]) for cpu in cpus_of(spec.placement) if cpu in book.cpus})
