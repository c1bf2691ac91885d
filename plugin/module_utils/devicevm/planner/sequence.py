"""Things in an order in which each comes after those that it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping


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


def knots_after(things: Iterable[str], before: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The things, those that wait for each other together, so that each comes after what it waits for; otherwise as
    they were. `before` says for what one waits, which becomes part of the answer."""
    order = each_after(things, lambda thing: before.get(thing, ()))
    users: dict[str, list[str]] = {}
    for thing in order:
        for one in before.get(thing, ()):
            users.setdefault(one, []).append(thing)
    knots: list[list[str]] = []
    tied: set[str] = set()
    # Whoever comes last, of what is left, is tied to all of it that waits for it (Kosaraju).
    for last in reversed(order):
        if last not in tied:
            knot = each_after((last,), lambda thing: [one for one in users.get(thing, ()) if one not in tied])
            tied.update(knot)
            knots.append(knot)
    return knots[::-1]
