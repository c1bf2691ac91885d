"""All components on their hosts: what is there first, then what is new in the order of names; and when that leaves
something out that could be had elsewhere or otherwise, a search for a better arrangement of what is new.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace

from .component import Component, merged
from .layout import LOOK, Load, Work, lay_out
from .placed import Placed
from .placement import Placement
from .requests import Want
from .search import Arrangement, Item, Rooms, improve

WORK = 30_000 * LOOK
WORK_EACH = 60 * LOOK
"""What a search may cost: under a second, and no more for each component than placing it costs."""
# Enough for one host whatever it takes: what is laid was laid before.
_ENOUGH = 10**9

Known = dict[str, list[list[str]]]
"""An arrangement by names: for each host the components that are laid together, one batch after the other."""
Batches = dict[str, list[tuple[int, ...]]]
"""The same by numbers, as in Arrangement."""
Refusals = dict[str, tuple[str, ...]]
Left = tuple[Component, Refusals]
"""What found no place, and for each host why not together with those that it wants near."""


@dataclass
class Arranged:
    """What was placed; what was not, with the reasons; and the arrangement, when it had to be searched for."""

    placed: list[Placed] = field(default_factory=list)
    refused: list[tuple[Component, Placed]] = field(default_factory=list)
    known: Known = field(default_factory=dict)


def arrange(
    placement: Placement, components: list[Component], wants: dict[str, list[Want]], known: Known | None = None
) -> Arranged:
    """Place all that can be placed.

    `known` is the arrangement of an earlier draft of the same plan: it is taken when it is of these components.
    """
    result = Arranged()
    new: list[list[Component]] = []
    left: list[Left] = []
    for group in placement.neighbours.joined(components):
        if not any(map(placement.is_there, group)):
            new.append(group)
            continue
        for some, placed, why in _one_by_one(placement, group, wants):
            if placed is None:
                left += [(one, why) for one in some]
            else:
                result.placed.append(placed)
    # What may move stays if there is room for it where it is.
    new.sort(key=lambda group: not any(map(placement.homes, group)))
    _New(placement, new, wants, result).arrange(left, known or {})
    # Now that all is booked: so the reasons are those of the plan, not of a moment on the way to it.
    for component, why in left:
        placed = placement.place(component, wants)
        if placed.refusals or not placed.seats:
            hosts = {**placed.refusals, **why}
            both = {host: (*placed.refusals.get(host, ()), *why.get(host, ())) for host in hosts}
            unique = {host: tuple(dict.fromkeys(reasons)) for host, reasons in both.items()}
            result.refused.append((component, replace(placed, refusals=unique)))
        else:
            result.placed.append(placed)
    return result


def _one_by_one(
    placement: Placement, group: list[Component], wants: dict[str, list[Want]]
) -> Iterator[tuple[list[Component], Placed | None, Refusals]]:
    """Place components that are wanted near each other: all on one host, or where none takes all, one by one. With what
    finds no place: why it is alone at all, since those that it wants near may have found none with it."""
    if len(group) == 1:
        yield group, placement.settle(group[0], wants), {}
        return
    together = placement.place(merged(group), wants)
    if not together.refusals:
        yield group, together, {}
        return
    for component in placement.neighbours.apart(group):
        yield [component], placement.settle(component, wants), together.refusals


class _New:
    """What is to be placed anew, in groups that are wanted near each other, and the arrangements of it."""

    def __init__(
        self, placement: Placement, groups: list[list[Component]], wants: dict[str, list[Want]], result: Arranged
    ) -> None:
        self.placement, self.groups, self.wants, self.result = placement, groups, wants, result
        self.components = [component for group in groups for component in group]
        self.marks = {name: book.mark() for name, book in placement.books.items()}

    def arrange(self, left: list[Left], known: Known) -> None:
        """Place what can be placed, and add the rest to `left`."""
        if known and self._take_known(known):
            return
        numbers = {id(component): number for number, component in enumerate(self.components)}
        first = Arrangement({name: [] for name in self.placement.books})
        placed: list[Placed] = []
        reasons: dict[int, Refusals] = {}
        for group in self.groups:
            for some, one, why in _one_by_one(self.placement, group, self.wants):
                batch = tuple(numbers[id(component)] for component in some)
                if one is None:
                    first.out += batch
                    reasons |= dict.fromkeys(batch, why)
                else:
                    placed.append(one)
                    first.batches[one.host].append(batch)
        better = self._better(first)
        searched = self._put(better.batches, instead_of=first.batches) if better else None
        if better is None or searched is None:
            self.result.placed += placed
            left += [(self.components[number], reasons[number]) for number in first.out]
            return
        self.result.placed += searched
        self.result.known = {
            host: [[self.components[number].name for number in batch] for batch in batches]
            for host, batches in better.batches.items()
            if batches
        }
        left += [(self.components[number], {}) for number in sorted(better.out)]

    def _better(self, first: Arrangement) -> Arrangement | None:
        """An arrangement that leaves out less than the first one, or nobody lonely; None if none is found."""
        neighbours = self.placement.neighbours
        unmet = neighbours.unmet({})
        if not first.out and not unmet:
            return None
        self._leave(first.batches)
        rooms = self._rooms()
        start = rooms.contented(first)
        # What no host takes alone is not worth a search.
        hopeful = any(rooms.size(number) for number in start.out)
        better = improve(rooms, start) if hopeful else start
        self._settle(first.batches)
        return None if better is start else better

    def _rooms(self) -> Rooms:
        placement = self.placement
        kinds: dict[Hashable, int] = {}
        everybody = sum(len(one.clients) for one in self.components)
        items = []
        for number, one in enumerate(self.components):
            # Who runs is not left out for whoever is new.
            weight = len(one.clients) * (everybody if placement.runs(one) else 1)
            kind = one.signature, placement.homes(one), placement.neighbours.characters(one.clients), weight
            items.append(Item(number, Load(one), kinds.setdefault(kind, len(kinds)), weight))
        books = {name: book.copy(self.marks[name]) for name, book in placement.books.items()}
        return Rooms(
            books,
            items,
            lambda item, name: placement.suits(item.load.component, name),
            Work(WORK + WORK_EACH * len(items)),
            placement.neighbours,
        )

    def _leave(self, batches: Batches) -> None:
        for batch in (batch for some in batches.values() for batch in some):
            for number in batch:
                self.placement.neighbours.leave(self.components[number].clients)

    def _settle(self, batches: Batches) -> None:
        for host, some in batches.items():
            for number in (number for batch in some for number in batch):
                self.placement.neighbours.settle(self.components[number].clients, host)

    def _take_known(self, known: Known) -> bool:
        numbers = {component.name: number for number, component in enumerate(self.components)}
        if {name for batches in known.values() for batch in batches for name in batch} != numbers.keys():
            return False
        batches = {
            host: [tuple(numbers[name] for name in batch) for batch in batches] for host, batches in known.items()
        }
        placed = self._put(batches, instead_of={})
        if placed is None:
            return False
        self.result.placed += placed
        self.result.known = known
        return True

    def _put(self, batches: Batches, *, instead_of: Batches) -> list[Placed] | None:
        """Book these in place of what is booked; None, and the books as they were, when that cannot be done."""
        books = self.placement.books
        before = {name: book.holdings[self.marks[name] :] for name, book in books.items()}
        for name, book in books.items():
            book.back_to(self.marks[name])
        self._leave(instead_of)
        # Everybody at once: those on one host may be laid one after the other, whoever wants whom near.
        self._settle(batches)
        result = []
        for host in sorted(batches):
            for batch in batches[host]:
                together = [self.components[number] for number in batch]
                mark = books[host].mark()
                picks = lay_out(books[host], [Load(component) for component in together], Work(_ENOUGH))
                books[host].back_to(mark)
                placed = self.placement.put(host, together, self.wants, picks) if picks is not None else None
                if placed is None:
                    for name, book in books.items():
                        book.back_to(self.marks[name])
                        book.hold_all(before[name])
                    self._leave(batches)
                    self._settle(instead_of)
                    return None
                result.append(placed)
        return result
