"""All components on their hosts: what is there first, then what is new in the order of names; and when that leaves
something out that could be had elsewhere or otherwise, a search for a better arrangement of what is new.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from .component import Component
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
    if placement.neighbours.ruled:
        _one_by_one(placement, components, wants, result)
        return result
    new: list[Component] = []
    left: list[Component] = []
    for component in components:
        if not placement.is_there(component):
            new.append(component)
        elif (placed := placement.settle(component, wants)) is not None:
            result.placed.append(placed)
        else:
            left.append(component)
    _New(placement, new, wants, result).arrange(left, known or {})
    # Now that all is booked: so the reasons are those of the plan, not of a moment on the way to it.
    for component in left:
        placed = placement.place(component, wants)
        if placed.refusals or not placed.seats:
            result.refused.append((component, placed))
        else:
            result.placed.append(placed)
    return result


def _one_by_one(
    placement: Placement, components: list[Component], wants: dict[str, list[Want]], result: Arranged
) -> None:
    """Where clients say who may be near whom: a host that takes one depends on who is there, which a search does not
    know."""
    for together in placement.neighbours.joined(components):
        for component, placed in placement.place_group(together, wants):
            if placed.refusals or not placed.seats:
                result.refused.append((component, placed))
            else:
                result.placed.append(placed)


class _New:
    """What is new, and the arrangements of it."""

    def __init__(
        self, placement: Placement, components: list[Component], wants: dict[str, list[Want]], result: Arranged
    ) -> None:
        self.placement, self.components, self.wants, self.result = placement, components, wants, result
        self.marks = {name: book.mark() for name, book in placement.books.items()}

    def arrange(self, left: list[Component], known: Known) -> None:
        """Place what can be placed, and add the rest to `left`."""
        if known and self._take_known(known):
            return
        first = Arrangement({name: [] for name in self.placement.books})
        placed: list[Placed] = []
        for number, component in enumerate(self.components):
            one = self.placement.settle(component, self.wants)
            if one is None:
                first.out.append(number)
            else:
                placed.append(one)
                first.batches[one.host].append((number,))
        better = self._better(first) if first.out else first
        searched = None if better is first else self._put(better.batches)
        if searched is None:
            self.result.placed += placed
            left += [self.components[number] for number in first.out]
            return
        self.result.placed += searched
        self.result.known = {
            host: [[self.components[number].name for number in batch] for batch in batches]
            for host, batches in better.batches.items()
            if batches
        }
        left += [self.components[number] for number in sorted(better.out)]

    def _better(self, first: Arrangement) -> Arrangement:
        kinds: dict[Hashable, int] = {}
        items = [
            Item(number, Load(one), kinds.setdefault(one.signature, len(kinds)), len(one.clients))
            for number, one in enumerate(self.components)
        ]
        books = {name: book.copy(self.marks[name]) for name, book in self.placement.books.items()}
        work = WORK + WORK_EACH * len(items)
        rooms = Rooms(books, items, lambda item, name: self.placement.suits(item.load.component, name), Work(work))
        # What no host takes alone is not worth a search.
        hopeless = [number for number in first.out if not rooms.size(number)]
        if len(hopeless) == len(first.out):
            return first
        return improve(rooms, first)

    def _take_known(self, known: Known) -> bool:
        numbers = {component.name: number for number, component in enumerate(self.components)}
        if {name for batches in known.values() for batch in batches for name in batch} != numbers.keys():
            return False
        batches = {
            host: [tuple(numbers[name] for name in batch) for batch in batches] for host, batches in known.items()
        }
        placed = self._put(batches)
        if placed is None:
            return False
        self.result.placed += placed
        self.result.known = known
        return True

    def _put(self, batches: dict[str, list[tuple[int, ...]]]) -> list[Placed] | None:
        """Book these in place of what is new; None, and the books as they were, when that cannot be done."""
        books = self.placement.books
        before = {name: book.holdings[self.marks[name] :] for name, book in books.items()}
        for name, book in books.items():
            book.back_to(self.marks[name])
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
                    return None
                result.append(placed)
        return result
