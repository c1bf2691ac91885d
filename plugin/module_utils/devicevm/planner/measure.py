"""How good a placement is: what `--rebalance` goes by."""

from __future__ import annotations

from dataclasses import dataclass

from ..domain import DomainSpec
from ..manifest.topology import PlacementStrategy
from .book import Book
from .grouping import Unit
from .resources import fulfilled


@dataclass(frozen=True, order=True)
class Measure:
    """How good a placement is: the less the better, the first thing that differs counts."""

    unplaced: int
    """Clients without a place."""
    crossings: int
    """Pairs of domains that share a core across trust domains."""
    maintenance: int
    """Clients on hosts that are in maintenance."""
    alternatives: int
    """How many better alternatives of resources there were before those that device VMs have, added up."""
    hosts: int
    """pack: hosts in use."""
    fullest: float
    """spread: how full the fullest host is, 0 to 1, in hundredths."""


WORDS = {
    "unplaced": "clients that cannot be placed",
    "crossings": "pairs that share a core across trust domains",
    "maintenance": "clients on hosts in maintenance",
    "alternatives": "better alternatives not had",
    "hosts": "hosts in use",
    "fullest": "the fullest host, from 0 to 1",
}


def measure(
    unplaced: int,
    crossings: int,
    specs: list[DomainSpec],
    units: list[Unit],
    books: dict[str, Book],
    strategy: PlacementStrategy,
) -> Measure:
    """The measure of a placement whose domains are `specs`."""
    by_name = {spec.name: spec for spec in specs}
    ranks = [_rank(unit, by_name[unit.name], books) for unit in units if unit.wants and unit.name in by_name]
    used = {spec.host for spec in specs}
    clients = [spec for spec in by_name.values() if not spec.emulators and spec.host in books]
    packed = strategy is PlacementStrategy.PACK
    return Measure(
        unplaced=unplaced,
        crossings=crossings,
        maintenance=sum(books[spec.host].policy.maintenance for spec in clients),
        alternatives=sum(ranks),
        hosts=len(used) if packed else 0,
        fullest=0.0 if packed else round(max((book.pressure for book in books.values()), default=0.0), 2),
    )


def _rank(unit: Unit, spec: DomainSpec, books: dict[str, Book]) -> int:
    book = books.get(spec.host)
    if book is None:
        return 0
    had = (index for index, one in enumerate(unit.resources) if fulfilled((one,), spec, book))
    return next(had, len(unit.resources))
