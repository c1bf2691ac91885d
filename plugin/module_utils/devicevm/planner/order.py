"""In which order hosts are tried, without trying all of a fleet's hosts for each client.

A book only fills while a plan is made: a host that has refused a demand refuses the same demand from then on.
Demands are those of a component as a whole, and of each of its parts (Component.demands): equal ones are the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Protocol

from ..manifest.topology import PlacementStrategy
from .book import Book


class HostOrder(Protocol):
    """The hosts for a demand, the best first."""

    def hosts(self, demands: Iterable[Hashable]) -> Iterator[str]:
        """Names of hosts that have refused none of these demands yet."""

    def refused(self, demand: Hashable, name: str) -> None:
        """A host has no room for a demand."""

    def booked(self, name: str) -> None:
        """Something was booked on a host."""


def order_of(strategy: PlacementStrategy, books: dict[str, Book]) -> HostOrder:
    """The order of a strategy."""
    return Spread(books) if strategy is PlacementStrategy.SPREAD else Pack(books)


class Pack:
    """By name: what comes fills the first hosts and leaves the last ones empty."""

    def __init__(self, books: dict[str, Book]) -> None:
        self._names = sorted(books)
        self._full: dict[Hashable, set[str]] = {}
        # How many of the first hosts have all refused a demand: most of a filled fleet is passed over at once.
        self._first: dict[Hashable, int] = {}

    def hosts(self, demands: Iterable[Hashable]) -> Iterator[str]:
        asked = list(demands)
        start = max([self._first.get(demand, 0) for demand in asked], default=0)
        full = [self._full[demand] for demand in asked if demand in self._full]
        for name in islice(self._names, start, None):
            if not any(name in some for some in full):
                yield name

    def refused(self, demand: Hashable, name: str) -> None:
        full = self._full.setdefault(demand, set())
        full.add(name)
        first = self._first.get(demand, 0)
        while first < len(self._names) and self._names[first] in full:
            first += 1
        self._first[demand] = first

    def booked(self, name: str) -> None:
        """Names do not change."""


class Spread:
    """The host with the most left first, by name where that is equal."""

    def __init__(self, books: dict[str, Book]) -> None:
        self._books = books
        # A host's entry is good while it says what the host's pressure is; older ones are dropped when they come up.
        self._pressure = {name: book.pressure for name, book in books.items()}
        self._heap = [(pressure, name) for name, pressure in self._pressure.items()]
        heapify(self._heap)
        self._full: dict[Hashable, set[str]] = {}

    def hosts(self, demands: Iterable[Hashable]) -> Iterator[str]:
        full = [self._full[demand] for demand in demands if demand in self._full]
        seen: list[tuple[float, str]] = []
        try:
            while self._heap:
                entry = heappop(self._heap)
                pressure, name = entry
                if pressure != self._pressure[name]:
                    continue
                seen.append(entry)
                if not any(name in some for some in full):
                    yield name
        finally:
            for entry in seen:
                if entry[0] == self._pressure[entry[1]]:
                    heappush(self._heap, entry)

    def refused(self, demand: Hashable, name: str) -> None:
        self._full.setdefault(demand, set()).add(name)

    def booked(self, name: str) -> None:
        pressure = self._books[name].pressure
        if pressure != self._pressure[name]:
            self._pressure[name] = pressure
            heappush(self._heap, (pressure, name))
