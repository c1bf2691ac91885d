"""thread: a processor execution thread, that is one logical processor of the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ...domain import DomainSpec
from ...manifest.topology import ResourceRequest
from ..book import Book, cpus_of
from ..cpubits import lowest
from .cpus import Choice, as_asked, fit_cpus, taken
from .emulator import NO_POOL
from .kind import Footing, Misfit, words


@dataclass(frozen=True)
class Thread:
    """`count` logical processors: dedicated, or the least loaded of those that may be shared.

    `smt` says what becomes of siblings of dedicated ones: prefer (together where that can be had), isolate (each alone
    on its core, the siblings stay empty), require (whole cores, every sibling of them).
    """

    name: str = "thread"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
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
        return _isolated(request, book, node)
    if smt == "require":
        return _siblings(request, book, node)
    return _vacant(request, book, node)


def _shared(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    cpus = book.least_loaded(request.count, node)
    if len(cpus) < request.count:
        return _parted(book, node, _shared_out(request, book, node, len(cpus)))
    load = sum(cpu.load for cpu in cpus)
    return Choice(tuple(sorted([cpu.id for cpu in cpus])), f"the least loaded, with {load:g} pinned there")


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
        parted = book.parting.told([core for core in book.cores if node in (None, core[0].node)], asking)
        return f"{words()}; {parted}" if parted else words()

    return told


def _vacant(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    """Vacant processors, first of cores that are begun already: whole cores are worth keeping whole. Of whole
    cores then as few as possible."""
    begun, whole = book.begun(node), book.whole & book.bits.on[node]
    missing = request.count - begun.bit_count()
    if missing > whole.bit_count():
        return _parted(book, node, taken(request, book, "thread", (begun | whole).bit_count(), node))
    found = lowest(begun, request.count) if missing <= 0 else begun | lowest(whole, missing)
    return Choice(book.bits.cpus(found), "nobody else is pinned to it")


def _isolated(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    """The first thread of a vacant core each; the others of it stay empty."""
    cores = book.whole_cores(node)
    if cores.bit_count() < request.count:
        return taken(request, book, "core", cores.bit_count(), node)
    first = lowest(cores, request.count)
    idle = sum(book.bits.cores(first)) ^ first
    why = "alone on its core, whose other threads stay empty"
    return Choice(book.bits.cpus(first), why, book.bits.cpus(idle))


def _siblings(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    """Whole cores that come to exactly as many threads."""
    where = "" if node is None else f"NUMA node {node}: "
    plural = "" if request.count == 1 else "s"
    found, count = 0, 0
    for core in book.bits.cores(book.whole & book.bits.on[node]):
        threads = core.bit_count()
        if 1 < threads <= request.count - count:
            found, count = found | core, count + threads
    if count == request.count:
        return Choice(book.bits.cpus(found), "every thread of its cores")
    if not any(core.bit_count() > 1 for core in book.bits.cores(book.bits.on[node])):
        return lambda: f"{where}{request.count} thread{plural} with all siblings asked, no core there has siblings"
    return lambda: f"{where}{request.count} thread{plural} on whole cores asked, {count} free"


KIND = Thread()
