"""thread: a processor execution thread, that is one logical processor of the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ...domain import DomainSpec
from ...manifest.topology import ResourceRequest
from ..book import Book, CpuState, cpus_of
from .cpus import Choice, as_asked, fit_cpus, on_node, taken
from .emulator import NO_POOL
from .kind import Footing, Misfit, words


@dataclass(frozen=True)
class Thread:
    """`count` logical processors: dedicated, or the least loaded of those that may be shared.

    `smt` says what becomes of siblings of dedicated ones: prefer (together where that can be had), isolate (each alone
    on its core, the siblings stay empty), require (whole cores, every sibling of them).
    """

    name: str = "thread"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Footing | Misfit:
        """One virtual CPU for each logical processor, pinned to it."""
        return fit_cpus(request, book, footing, self.name, _choose, request.dedicated)

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """As many logical processors, and alone as asked."""
        placement = spec.placement
        cpus = cpus_of(placement)
        asked = (self.name, request.count, request.dedicated)
        if request.options.get("float"):
            there = book.pool(placement.nodes[0] if placement.nodes else None)
            mine = (self.name, request.count, False)
            return (placement.unit, len(placement.vcpus), placement.dedicated) == mine and (
                set(placement.vcpus) == {there} and as_asked(request, placement, book)
            )
        if any(len(pin) > 1 for pin in placement.vcpus):
            return False
        if (placement.unit, len(cpus), placement.dedicated) != asked or not as_asked(request, placement, book):
            return False
        smt = request.options.get("smt", "prefer")
        if smt == "prefer":
            return not placement.idle
        cores = Counter(book.cpus[cpu].core for cpu in cpus if cpu in book.cpus)
        if smt == "isolate":
            held = set(cpus) | set(placement.idle)
            return max(cores.values(), default=1) == 1 and all(
                cpu.id in held for core in book.cores if core[0].core in cores for cpu in core
            )
        return all(cores[core[0].core] == len(core) for core in book.cores if core[0].core in cores)

    def describe(self, request: ResourceRequest) -> str:
        """`1 dedicated thread`."""
        return words(request, "thread")


def _choose(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    if request.options.get("float"):
        return _floating(request, book, node)
    if not request.dedicated:
        return _shared(request, book, node)
    smt = request.options.get("smt", "prefer")
    if smt == "isolate":
        cores = on_node(book.vacant_cores(), node)[: request.count]
        if len(cores) < request.count:
            return taken(request, book, "core", len(cores), node)
        idle = tuple(sorted(cpu.id for core in cores for cpu in core[1:]))
        return Choice(tuple(core[0].id for core in cores), "alone on its core, whose other threads stay empty", idle)
    if smt == "require":
        return _siblings(request, book, node)
    cpus = _vacant(request.count, book, node)
    if len(cpus) < request.count:
        return _parted(book, node, taken(request, book, "thread", len(cpus), node))
    return Choice(tuple(sorted(cpu.id for cpu in cpus)), "nobody else is pinned to it")


def _shared(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    cpus = book.least_loaded(request.count, node)
    if len(cpus) < request.count:
        return _parted(book, node, _shared_out(request, book, node, len(cpus)))
    load = sum(cpu.load for cpu in cpus)
    return Choice(tuple(sorted(cpu.id for cpu in cpus)), f"the least loaded, with {load:g} pinned there")


def _shared_out(request: ResourceRequest, book: Book, node: int | None, room: int) -> Callable[[], str]:
    """The arithmetic of a refusal: which CPUs can be shared, and how full they are."""
    where = "" if node is None else f"NUMA node {node}: "
    plural = "" if request.count == 1 else "s"
    among = "CPUs of the shared pool" if book.policy.shared_cpus else "CPUs that can be shared"
    there = [cpu for cpu in book.cpus.values() if cpu.shareable and node in (None, cpu.node)]
    return lambda: (
        f"{where}{request.count} shared thread{plural} asked, {room} of {len(there)} {among} have room, "
        f"with an overcommit of {book.policy.cpu_overcommit:g}"
    )


def _floating(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    """Every CPU of the shared pool: the host's scheduler moves the threads about in it."""
    where = "" if node is None else f"NUMA node {node}: "
    pool = book.pool(node)
    if request.count > len(pool):
        told = f"the shared pool has {len(pool)}" if book.pool() else NO_POOL
        return lambda: f"{where}{request.count} floating thread{'' if request.count == 1 else 's'} asked, {told}"
    left = int(round(sum(book.policy.cpu_overcommit - book.cpus[cpu].load for cpu in pool), 6))
    if request.count > left:
        return lambda: f"{where}{request.count} virtual CPUs asked, {max(left, 0)} left in the shared pool"
    return Choice(pool, "anywhere in the shared pool", floating=request.count)


def _parted(book: Book, node: int | None, words: Callable[[], str]) -> Callable[[], str]:
    """The words of a refusal, and which processors it could not have because they are another trust domain's."""
    asking = book.parting.asking

    def told() -> str:
        parted = book.parting.told(on_node(book.cores, node), asking)
        return f"{words()}; {parted}" if parted else words()

    return told


def _vacant(count: int, book: Book, node: int | None) -> list[CpuState]:
    """Vacant processors, first of cores that are begun already: whole cores are worth keeping whole. Of whole
    cores then as few as possible."""
    begun: list[CpuState] = []
    whole: list[CpuState] = []
    for core in book.cores if node is None else on_node(book.cores, node):
        vacant = [cpu for cpu in core if cpu.vacant]
        if vacant and book.parted(core[0]):
            (whole if len(vacant) == len(core) else begun).extend(vacant)
    return [*begun, *whole][:count]


def _siblings(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    """Whole cores that come to exactly as many threads."""
    where = "" if node is None else f"NUMA node {node}: "
    plural = "" if request.count == 1 else "s"
    if not any(len(core) > 1 for core in on_node(book.cores, node)):
        return lambda: f"{where}{request.count} thread{plural} with all siblings asked, no core there has siblings"
    found: list[int] = []
    for core in on_node(book.vacant_cores(), node):
        if len(core) > 1 and len(found) + len(core) <= request.count:
            found += [cpu.id for cpu in core]
    if len(found) < request.count:
        return lambda: f"{where}{request.count} thread{plural} on whole cores asked, {len(found)} free"
    return Choice(tuple(sorted(found)), "every thread of its cores")


KIND = Thread()
