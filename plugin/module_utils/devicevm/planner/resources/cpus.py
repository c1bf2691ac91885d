"""What the kinds that are made of logical processors have in common: choosing on one NUMA node after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ...domain import CpuPlacement, DomainSpec
from ...inventory.cpuset import format_cpuset
from ...inventory.free import describe_taken
from ...manifest.topology import ResourceRequest
from ...quantity import format_bytes
from ..book import Book, CpuState, cpus_of
from .kind import Footing, Misfit, nodes_for


@dataclass(frozen=True)
class Choice:
    """The processors for a request, those that stay empty because of it, and why these."""

    cpus: tuple[int, ...]
    why: str
    idle: tuple[int, ...] = ()


Chooser = Callable[[ResourceRequest, Book, "int | None"], "Choice | Callable[[], str]"]
"""Chooses on one node (None: anywhere); or gives what says how many there are."""


def fit_cpus(
    request: ResourceRequest, book: Book, footing: Footing, unit: str, choose: Chooser, dedicated: bool
) -> Footing | Misfit:
    """The first node on which the processors are, and the memory when a node was asked for."""
    short: list[Callable[[], str]] = []
    for node in nodes_for(request, book):
        choice = choose(request, book, node)
        if not isinstance(choice, Choice):
            short.append(choice)
            continue
        if node is not None and (lacks := _lacks_memory(footing, book, node)):
            short.append(lacks)
            continue
        placement = CpuPlacement(
            vcpus=tuple((cpu,) for cpu in choice.cpus),
            emulator=choice.cpus if dedicated else (),
            nodes=() if node is None else (node,),
            dedicated=dedicated,
            unit=unit,
            idle=choice.idle,
        )
        reason = f"CPU {format_cpuset(choice.cpus)}{'' if node is None else f' of NUMA node {node}'}: {choice.why}"
        return replace(footing, placement=placement, vcpus=len(choice.cpus), reasons=(*footing.reasons, reason))
    if not short:
        return Misfit(lambda: f"there is no NUMA node {request.options['numaNode']}")
    return Misfit(lambda: "; ".join(words() for words in short))


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
        left = book.huge_pages(size, (node,))
        if asked // size <= left:
            return None
        return lambda: f"NUMA node {node}: {asked // size} pages of {format_bytes(size)} asked, {left} left"
    left = book.memory_on((node,))
    if asked <= left:
        return None
    return lambda: f"NUMA node {node}: {format_bytes(asked)} of memory asked, {format_bytes(max(left, 0))} left"


def on_node(groups: Iterable[tuple[CpuState, ...]], node: int | None) -> list[tuple[CpuState, ...]]:
    """The groups of processors that are on a node."""
    return [group for group in groups if node is None or group[0].node == node]


def same_node(request: ResourceRequest, placement: CpuPlacement) -> bool:
    """Whether a placement is on the nodes that are asked for."""
    wanted = request.options.get("numaNode")
    if wanted is None:
        return not placement.nodes
    return len(placement.nodes) == 1 and wanted in ("one", placement.nodes[0])


def count_of(spec: DomainSpec, book: Book, key: Callable[[CpuState], str]) -> int:
    """How many cores or sockets a device VM is on."""
    return len({key(book.cpus[cpu]) for cpu in cpus_of(spec.placement) if cpu in book.cpus})
