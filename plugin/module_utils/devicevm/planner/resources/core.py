"""core: a processor core with all its threads, so that no SMT sibling belongs to anybody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...domain import DomainSpec
from ...manifest.topology import ResourceRequest
from ..book import Book
from ..cpubits import lowest
from .cpus import Choice, as_asked, count_of, fit_cpus, taken
from .kind import Footing, Misfit, words


@dataclass(frozen=True)
class Core:
    """`count` whole cores. A core is always had alone: a shared core would be threads."""

    name: str = "core"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        """One virtual CPU for each thread of each core, pinned to it."""
        return fit_cpus(request, book, footing, self.name, _choose, True)

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """All threads of as many cores."""
        cores = count_of(spec, book, lambda cpu: cpu.core)
        return spec.placement.unit == self.name and cores == request.count and as_asked(request, spec.placement, book)

    def describe(self, request: ResourceRequest) -> str:
        """`1 core`."""
        return words(replace(request, dedicated=False), "core")


def _choose(request: ResourceRequest, book: Book, node: int | None) -> Choice | Callable[[], str]:
    cores = book.whole_cores(node)
    if cores.bit_count() < request.count:
        return taken(request, book, "core", cores.bit_count(), node)
    cpus = book.bits.cpus(sum(book.bits.cores(lowest(cores, request.count))))
    return Choice(cpus, f"every thread of its core{'s' if request.count > 1 else ''}")


KIND = Core()
