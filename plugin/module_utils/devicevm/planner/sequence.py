"""Things in an order in which each comes after those that it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def each_after(things: Iterable[str], before: Callable[[str], Iterable[str]]) -> list[str]:
    """The things as they were, but for those that come before what they wait for; in a circle, whoever is asked first
    comes last. `before` says for what one waits, which becomes part of the answer."""
    order: list[str] = []
    begun: set[str] = set()
    for first in things:
        # No function that calls itself: a chain may be as long as a fleet is large.
        path = [] if first in begun else [(first, iter(before(first)))]
        begun.add(first)
        while path:
            thing, left = path[-1]
            other = next((one for one in left if one not in begun), None)
            if other is None:
                order.append(thing)
                path.pop()
            else:
                begun.add(other)
                path.append((other, iter(before(other))))
    return order
