"""In which order hosts are tried, without trying all of a fleet's hosts for each client.

A book only fills while a plan is made: a host that has refused a demand refuses the same demand from then on.
Demands are the same when their signatures are equal (Component.signature).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import Protocol

from ..manifest.topology import PlacementStrategy
from .book import Book


class HostOrder(Protocol):
    """The hosts for a demand, the best first."""

    def hosts(self, signature: Hashable) -> Iterator[str]:
        """Names of hosts that have not refused this demand yet."""

    def refused(self, signature: Hashable, name: str) -> None:
        """A host has no room for the demand."""

    def booked(self, name: str) -> None:
        """Something was booked on a host."""


def order_of(strategy: PlacementStrategy, books: dict[str, Book]) -> HostOrder:
    """The order of a strategy."""
    return Spread(books) if strategy is PlacementStrategy.SPREAD else Pack(books)


class Pack:
    """By name: what comes fills the first hosts and leaves the last ones empty."""

    def __init__(self, books: dict[str, Book]) -> None:
        self._names = sorted(books)
        self._first: dict[Hashable, int] = {}

    def hosts(self, signature: Hashable) -> Iterator[str]:
        yield from self._names[self._first.get(signature, 0) :]

    def refused(self, signature: Hashable, name: str) -> None:
        first = self._first.get(signature, 0)
        if self._names[first] == name:
            self._first[signature] = first + 1

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

    def hosts(self, signature: Hashable) -> Iterator[str]:
        full = self._full.get(signature, set())
        seen: list[tuple[float, str]] = []
        try:
            while self._heap:
                entry = heappop(self._heap)
                pressure, name = entry
                if pressure != self._pressure[name]:
                    continue
                seen.append(entry)
                if name not in full:
                    yield name
        finally:
            for entry in seen:
                if entry[0] == self._pressure[entry[1]]:
                    heappush(self._heap, entry)

    def refused(self, signature: Hashable, name: str) -> None:
        self._full.setdefault(signature, set()).add(name)

    def booked(self, name: str) -> None:
        pressure = self._books[name].pressure
        if pressure != self._pressure[name]:
            self._pressure[name] = pressure
            heappush(self._heap, (pressure, name))
