"""Which of what is new goes to which host, when one by one in the order of their names leaves something out.

The search works on books of its own and knows components by numbers. It tries other orders with the tightest host
first, then makes room for what is left out by moving or exchanging one that is placed, and looks through all ways where
they are few. It is bounded by counts (layout.Work): the same input gives the same answer, on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from ..manifest.topology import Client
from .affinity import Neighbours
from .book import Book
from .layout import LOOK, Load, Work, lay_out

FEW = 2000
"""Up to so many components other orders are tried; beyond, only what is left out is."""

_LOOKED_THROUGH = 20
"""So many components are looked through at what 1 of the work is worth."""


@dataclass(frozen=True)
class Item:
    """A component that is to be placed. `kind`: equal for those that hosts take alike; `weight`: what leaving it out
    costs, one for each client that is new."""

    number: int
    load: Load
    kind: int
    weight: int


@dataclass
class Arrangement:
    """Who is where. `batches`: for each host, those laid together, one batch after the other; `out`: who is nowhere."""

    batches: dict[str, list[tuple[int, ...]]]
    out: list[int] = field(default_factory=list)

    def on(self, host: str) -> tuple[int, ...]:
        """Everybody on a host."""
        return tuple(number for batch in self.batches.get(host, ()) for number in batch)

    def put(self, host: str, numbers: tuple[int, ...]) -> None:
        """These are on the host, laid together."""
        self.batches[host] = [numbers] if numbers else []

    def without(self, numbers: Iterable[int]) -> Arrangement:
        """The same with these nowhere."""
        left = frozenset(numbers)
        batches = {
            host: [some for batch in there if (some := tuple(number for number in batch if number not in left))]
            for host, there in self.batches.items()
        }
        return Arrangement(batches, [*self.out, *sorted(left - frozenset(self.out))])


class Rooms:
    """The books that are tried on, each as it is before anything new, and what was found out about them.

    `suits` tells whether a component may be on a host at all, `neighbours` who may be there with whom.
    """

    def __init__(
        self,
        books: dict[str, Book],
        items: list[Item],
        suits: Callable[[Item, str], bool],
        work: Work,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.books, self.items, self.work = books, items, work
        self.neighbours = neighbours or Neighbours((), {})
        self._unmet = self.neighbours.unmet({})
        self.marks = {name: book.mark() for name, book in books.items()}
        self._suits = suits
        self._kinds = [item.kind for item in items]
        self._total: list[int] = [max(1, sum(amounts)) for amounts in zip(*map(_left, books.values()), strict=True)]
        self._known: dict[tuple[str, tuple[int, ...]], bool] = {}
        self._hosts: dict[int, tuple[str, ...]] = {}
        self._sizes: dict[int, float] = {}

    def hosts(self, number: int) -> tuple[str, ...]:
        """Where a component may be."""
        item = self.items[number]
        if item.kind not in self._hosts:
            self._hosts[item.kind] = tuple(name for name in sorted(self.books) if self._suits(item, name))
        return self._hosts[item.kind]

    def alike(self, one: int, other: int) -> bool:
        """Whether two components are of a kind, so that one in place of the other is no change."""
        return self._kinds[one] == self._kinds[other]

    def size(self, number: int) -> float:
        """The part of the fleet that a component takes, of what it takes most; 0 when no host takes it."""
        item = self.items[number]
        if item.kind not in self._sizes:
            sizes = (self._size(item, name) for name in self.hosts(number))
            self._sizes[item.kind] = next((size for size in sizes if size), 0.0)
        return self._sizes[item.kind]

    def _size(self, item: Item, name: str) -> float:
        book = self.books[name]
        before = _left(book)
        if lay_out(book, [item.load], self.work) is None:
            return 0.0
        taken: list[float] = [was - now for was, now in zip(before, _left(book), strict=True)]
        book.back_to(self.marks[name])
        # Nothing is no size: what takes nothing is the smallest.
        parts = [part / total for part, total in zip(taken, self._total, strict=True)]
        return max(1e-9, *parts)

    def holds(self, host: str, numbers: tuple[int, ...]) -> bool:
        """Whether a host takes these together, and nothing else that is new."""
        if self.work.left <= 0:
            return False
        self.work.left -= 1 + len(numbers) // _LOOKED_THROUGH
        key = host, tuple(sorted(map(self._kinds.__getitem__, numbers)))
        if key not in self._known:
            if host not in self.books or any(host not in self.hosts(number) for number in numbers):
                return False
            book, loads = self.books[host], [self.items[number].load for number in numbers]
            agree = self.neighbours.agree((client for load in loads for client in load.clients), host)
            found = lay_out(book, loads, self.work) if agree else None
            book.back_to(self.marks[host])
            if self.work.over:
                return False
            self._known[key] = found is not None
        return self._known[key]

    def empty(self) -> None:
        """Take back whatever is laid."""
        for name, book in self.books.items():
            book.back_to(self.marks[name])

    def lonely(self, now: Arrangement) -> frozenset[str]:
        """The clients that have nobody near whom they want, those left aside that have not anyhow."""
        if not self.neighbours.ruled:
            return frozenset()
        self.work.left -= LOOK + len(self.items) // _LOOKED_THROUGH
        places = {
            client.name: host for host in now.batches for number in now.on(host) for client in self._clients(number)
        }
        return self.neighbours.unmet(places) - self._unmet

    def change(self, now: Arrangement, puts: dict[str, tuple[int, ...]]) -> bool:
        """Put others on some hosts; False, and all as it was, when somebody would have nobody near then."""
        # Cheap, and what most of them fail by: nobody near on a host that changes.
        for host, numbers in puts.items():
            clients = [client for number in numbers for client in self._clients(number)]
            if not self.neighbours.alone(clients, host) <= self._unmet:
                return False
        before = {host: now.batches[host] for host in puts}
        for host, numbers in puts.items():
            now.put(host, numbers)
        if not (self.neighbours.reaching and self.lonely(now)):
            return True
        now.batches |= before
        return False

    def missing(self, now: Arrangement) -> int:
        """What those cost who are left out."""
        return sum(self.items[number].weight for number in now.out)

    def contented(self, now: Arrangement) -> Arrangement:
        """`now` without those that have nobody near whom they want; the same if there are none."""
        while lonely := self.lonely(now):
            left = [
                number
                for host in now.batches
                for number in now.on(host)
                if any(client.name in lonely for client in self._clients(number))
            ]
            if not left:
                # Somebody who runs and was the first of a kind has got company elsewhere.
                return now.without(number for host in now.batches for number in now.on(host))
            now = now.without(left)
        return now

    def follows(self, number: int) -> bool:
        """Whether one comes after those whom it wants near."""
        return self.neighbours.ruled and any(client.affinity for client in self._clients(number))

    def _clients(self, number: int) -> list[Client]:
        return self.items[number].load.clients


def _left(book: Book) -> tuple[int, int, int]:
    return book.memory, book.vacant.bit_count(), book.vcpus


def improve(rooms: Rooms, first: Arrangement) -> Arrangement:
    """The best arrangement that is found; `first` itself when none has more clients."""
    items, missing = rooms.items, rooms.missing
    least = _least_missing(rooms)
    if missing(first) <= least:
        return first
    starts = [first]
    if len(items) <= FEW:
        starts += [rooms.contented(_in_turn(rooms, order)) for order in _orders(rooms)]
    # Stable: of those as good, the one that comes first.
    starts.sort(key=missing)
    best = starts[0]
    for start in starts:
        if missing(best) <= least or rooms.work.over:
            break
        found = _repaired(rooms, start)
        if missing(found) < missing(best):
            best = found
    if missing(best) > least and not rooms.work.over and len(items) <= FEW:
        best = _Exhaustion(rooms, best, missing(best)).run(least)
    return best if missing(best) < missing(first) else first


def _least_missing(rooms: Rooms) -> int:
    """What those cost at least who are out in every arrangement: no host takes them alone, or more is asked than all
    hosts have together."""
    hopeful = [item for item in rooms.items if rooms.size(item.number)]
    hopeless = sum(item.weight for item in rooms.items) - sum(item.weight for item in hopeful)
    books = rooms.books.values()
    memory = [(item.load.least_memory, item.weight) for item in hopeful]
    vcpus = [(item.load.least_vcpus, item.weight) for item in hopeful]
    return hopeless + max(
        _least_cost(memory, sum(max(0, book.memory - book.policy.headroom_memory) for book in books)),
        _least_cost(vcpus, sum(max(0, book.vcpus - book.policy.headroom_vcpus) for book in books)),
    )


def _least_cost(asked: list[tuple[int, int]], room: int) -> int:
    """What it costs at least to ask for no more than there is room for: those are left out that bring the most for
    what they cost, and of the last one a part."""
    excess = sum(amount for amount, cost in asked) - room
    total = 0
    for amount, cost in sorted(asked, key=lambda one: -one[0] / one[1]):
        if excess <= 0:
            break
        total += cost if amount <= excess else -(-cost * excess // amount)
        excess -= amount
    return total


def _orders(rooms: Rooms) -> list[list[int]]:
    keys: list[Callable[[Item], tuple[float, ...]]] = [
        lambda item: (rooms.size(item.number), item.kind, item.number),
        lambda item: (-rooms.size(item.number), item.kind, item.number),
        lambda item: (-item.load.least_memory, item.kind, item.number),
        lambda item: (item.load.least_memory, item.kind, item.number),
    ]
    orders = [[item.number for item in sorted(rooms.items, key=key)] for key in keys]
    return [sorted(order, key=rooms.follows) for order in orders]


def _in_turn(rooms: Rooms, order: list[int]) -> Arrangement:
    """One by one on the fullest host that takes it."""
    result = Arrangement({name: [] for name in rooms.books})
    # As in order.py: who has refused a demand refuses the like.
    full: dict[Hashable, set[str]] = {}
    fullness = {name: book.pressure for name, book in rooms.books.items()}
    for number in order:
        load = rooms.items[number].load
        rooms.work.left -= len(rooms.books) // _LOOKED_THROUGH
        refused = set().union(*(full.get(demand, ()) for demand in load.demands))
        hosts = [name for name in rooms.hosts(number) if name not in refused] if not rooms.work.over else []
        for name in sorted(hosts, key=lambda name: (-fullness[name], name)):
            book = rooms.books[name]
            if rooms.neighbours.objections(load.clients, name):
                continue
            if lay_out(book, [load], rooms.work) is not None:
                rooms.neighbours.settle(load.clients, name)
                result.batches[name].append((number,))
                fullness[name] = book.pressure
                break
            for demand in load.refused_parts(book, rooms.work):
                full.setdefault(demand, set()).add(name)
        else:
            result.out.append(number)
    rooms.empty()
    for host in result.batches:
        for number in result.on(host):
            rooms.neighbours.leave(rooms.items[number].load.clients)
    return result


def _repaired(rooms: Rooms, start: Arrangement) -> Arrangement:
    """`start` with more of what was out: one that is placed is moved, exchanged, or left out for several others."""
    now = Arrangement({name: list(batches) for name, batches in start.batches.items()}, list(start.out))
    moved = True
    while moved and now.out and not rooms.work.over:
        moved = False
        now.out.sort(key=lambda number: (rooms.size(number), number))
        tried: set[int] = set()
        for number in now.out:
            kind = rooms.items[number].kind
            if kind in tried:
                continue
            tried.add(kind)
            if _insert(rooms, now, number) or _make_room(rooms, now, number):
                now.out.remove(number)
                moved = True
                break
        moved = moved or _exchange(rooms, now)
    return now


def _insert(rooms: Rooms, now: Arrangement, number: int) -> bool:
    for host in rooms.hosts(number):
        together = (*now.on(host), number)
        if rooms.holds(host, together) and rooms.change(now, {host: together}):
            return True
    return False


def _make_room(rooms: Rooms, now: Arrangement, number: int) -> bool:
    """Put one on a host from which another one is moved, or exchanged for one elsewhere."""
    for host in rooms.hosts(number):
        there = now.on(host)
        for other in _one_of_each(rooms, there):
            stay = _without(there, other)
            if rooms.alike(other, number) or not rooms.holds(host, (*stay, number)):
                continue
            for elsewhere in rooms.hosts(other):
                if elsewhere == host:
                    continue
                with_it = (*now.on(elsewhere), other)
                if rooms.holds(elsewhere, with_it) and rooms.change(now, {host: (*stay, number), elsewhere: with_it}):
                    return True
                for third in _one_of_each(rooms, now.on(elsewhere)):
                    if rooms.alike(third, other):
                        continue
                    without = (*_without(now.on(elsewhere), third), other)
                    with_both = (*stay, number, third)
                    holds = rooms.holds(elsewhere, without) and rooms.holds(host, with_both)
                    if holds and rooms.change(now, {host: with_both, elsewhere: without}):
                        return True
                if rooms.work.over:
                    return False
    return False


def _exchange(rooms: Rooms, now: Arrangement) -> bool:
    """Leave out one that is placed for one or two smaller ones that are out, of no less clients."""
    for host in sorted(now.batches):
        there = now.on(host)
        for other in sorted(_one_of_each(rooms, there), key=lambda number: (-rooms.size(number), number)):
            for new in _in_place_of(rooms, now, host, other):
                if not rooms.change(now, {host: (*_without(there, other), *new)}):
                    continue
                now.out = [*(number for number in now.out if number not in new), other]
                return True
            if rooms.work.over:
                return False
    return False


def _in_place_of(rooms: Rooms, now: Arrangement, host: str, other: int) -> Iterator[tuple[int, ...]]:
    items = rooms.items
    stay = _without(now.on(host), other)
    singles = [
        number
        for number in _one_of_each(rooms, tuple(now.out))
        if not rooms.alike(number, other) and rooms.holds(host, (*stay, number))
    ]
    for index, first in enumerate(singles):
        for second in _one_of_each(rooms, _without(tuple(now.out), first)):
            if second not in singles[:index]:
                gain = items[first].weight + items[second].weight > items[other].weight
                if gain and rooms.holds(host, (*stay, first, second)):
                    yield first, second
    for number in singles:
        weight = items[number].weight - items[other].weight
        # Each such exchange makes less of the fleet used, or more clients placed: they come to an end.
        if weight > 0 or (weight == 0 and rooms.size(number) < rooms.size(other)):
            yield (number,)


class _Exhaustion:
    """Looks through all ways, the hardest first, for one that leaves fewer out.

    Of those of a kind only their number on each host counts: none is on a host before that of the one before it.
    """

    def __init__(self, rooms: Rooms, best: Arrangement, missing: int) -> None:
        self.rooms, self.best, self.missing = rooms, best, missing
        self.order = sorted(rooms.items, key=lambda item: (-rooms.size(item.number), item.kind, item.number))
        self.on: dict[str, tuple[int, ...]] = dict.fromkeys(rooms.books, ())
        self.out: list[int] = []
        self.places: list[int] = []
        """Where each of the first ones is: on which of its hosts, or after the last of them, which is out."""

    def run(self, least: int) -> Arrangement:
        """The best; it is known that at least so much is missing."""
        # No function that calls itself: a way is as long as there are components.
        place, missing = 0, 0
        while self.missing > least and not self.rooms.work.over:
            if missing < self.missing and len(self.places) < len(self.order):
                missing += self._put(place)
                place = self._first_place()
                continue
            if missing < self.missing:
                self._keep(missing)
            while self.places and self._is_out(self.places[-1]):
                missing -= self.rooms.items[self.out.pop()].weight
                self.places.pop()
            if not self.places:
                break
            place = self._take_back() + 1
        return self.best

    def _put(self, place: int) -> int:
        """Put the next one on the first host from a place on that takes it; what it costs if there is none."""
        item = self.order[len(self.places)]
        self.rooms.work.left -= 1
        hosts = self.rooms.hosts(item.number)
        for index in range(place, len(hosts)):
            together = (*self.on[hosts[index]], item.number)
            if self.rooms.holds(hosts[index], together):
                self.on[hosts[index]] = together
                self.places.append(index)
                return 0
        self.out.append(item.number)
        self.places.append(len(hosts))
        return item.weight

    def _first_place(self) -> int:
        """From where on the next one is tried."""
        some = self.order[len(self.places) - 1 : len(self.places) + 1]
        return self.places[-1] if some[0].kind == some[-1].kind else 0

    def _keep(self, missing: int) -> None:
        found = Arrangement({name: [numbers] for name, numbers in self.on.items() if numbers}, list(self.out))
        if not self.rooms.lonely(found):
            self.best, self.missing = found, missing

    def _is_out(self, place: int) -> bool:
        return place == len(self.rooms.hosts(self.order[len(self.places) - 1].number))

    def _take_back(self) -> int:
        """Take the last one off its host again; its place there."""
        place = self.places.pop()
        host = self.rooms.hosts(self.order[len(self.places)].number)[place]
        self.on[host] = self.on[host][:-1]
        return place


def _without(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    return tuple(one for one in numbers if one != number)


def _one_of_each(rooms: Rooms, numbers: tuple[int, ...]) -> list[int]:
    """The first of each kind: the others would do the same."""
    found: dict[int, int] = {}
    for number in numbers:
        found.setdefault(rooms.items[number].kind, number)
    return list(found.values())
