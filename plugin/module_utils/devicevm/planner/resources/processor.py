"""processor: a whole socket with all its cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...domain import DomainSpec
from ...manifest.topology import ResourceRequest
from ..book import Book
from .cpus import Choice, as_asked, count_of, fit_cpus, taken
from .kind import Footing, Misfit, words


@dataclass(frozen=True)
class Processor:
    """`count` whole processors, always had alone: a shared processor would be threads."""

    name: str = "processor"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        """One virtual CPU for each thread of each processor, pinned to it."""
        return fit_cpus(request, book, footing, self.name, _choose, True)

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """All threads of as many processors."""
        sockets = count_of(spec, book, lambda cpu: str(cpu.socket))
        return spec.placement.unit == self.name and sockets == request.count and as_asked(request, spec.placement, book)

    def describe(self, request: ResourceRequest) -> str:
        """`1 processor`."""
        return words(replace(request, dedicated=False), "processor")


def _choose(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    # A processor of several NUMA nodes is on none of them.
    free = book.vacant & book.bits.on[node]
    sockets = [socket for socket in book.bits.sockets if not socket & ~free]
    if len(sockets) < request.count:
        return taken(request, book, "processor", len(sockets), node)
    cpus = book.bits.cpus(sum(sockets[: request.count]))
    return Choice(cpus, f"every thread of its processor{'s' if request.count > 1 else ''}")


KIND = Processor()
