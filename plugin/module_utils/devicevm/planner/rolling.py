"""Device VMs that get another build of their image: one after the other, each when the one before is up and its clients
have come back. What fails on the way stops there: the rest goes on with the build that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from ..domain import DomainSpec, Role
from ..inventory.host import Host
from .handover import in_order
from .plan import Action, Step, Subject, step_id
from .sequence import knots_after
from .specify import image_named, is_outdated

_BEGINS = frozenset((Action.STOP, Action.DETACH))
_ENDS = frozenset((Action.START, Action.ATTACH))


@dataclass
class _Turn:
    """What goes away together: the steps by which it goes, and those by which it is back."""

    begins: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)


def one_by_one(steps: dict[str, Step], wanted: Iterable[DomainSpec], before: dict[str, DomainSpec]) -> dict[str, Step]:
    """The steps, with those that upgrade a running device VM behind those that bring the one before it back.

    `wanted` are the domains as they are to be, `before` as they were. A client that has to be stopped is stopped once,
    for all of its device VMs: these, and those of whoever is stopped with it, make a round. So a round stops its
    clients, upgrades its device VMs one after the other and starts its clients; the next one waits for that.
    """
    upgrades = [
        step_id(Action.STOP, Subject.DEVICE_VM, spec.name)
        for spec in sorted(wanted, key=lambda spec: spec.name)
        if _is_upgrade(before.get(spec.name), spec)
    ]
    upgrades = [key for key in upgrades if key in steps]
    if len(upgrades) < 2:
        return steps
    rounds = _turns(steps, upgrades, _subject)
    # Without their clients, which are stopped before the first of them and started after the last.
    turns: dict[str, list[_Turn]] = {}
    round_of = {key: turn.begins[0] for turn in rounds for key in turn.begins}
    for turn in _turns(steps, upgrades, lambda step: step.id if step.kind is Subject.CLIENT else _subject(step)):
        turns.setdefault(round_of[turn.begins[0]], []).append(turn)
    behind: dict[str, list[str]] = {}
    for chain in (rounds, *turns.values()):
        for former, later in pairwise(chain):
            for key in later.begins:
                behind.setdefault(key, []).extend(former.ends)
    return in_order({key: replace(step, behind=tuple(behind.get(key, ()))) for key, step in steps.items()})


def _turns(steps: dict[str, Step], upgrades: list[str], whose: Callable[[Step], str]) -> list[_Turn]:
    """The turns in which device VMs are upgraded, by the steps that stop them; each comes after those that it waits for
    for another reason, otherwise they are as given. `whose` names what goes and comes back: those that wait for each
    other take a turn together."""
    before: dict[str, list[str]] = {}
    for step in steps.values():
        mine = before.setdefault(whose(step), [])
        mine += [whose(steps[one]) for one in step.after if one in steps]
    knots = knots_after((whose(steps[key]) for key in upgrades), before)
    number = {name: place for place, knot in enumerate(knots) for name in knot}
    found = {number[whose(steps[key])]: _Turn() for key in upgrades}
    for key, step in steps.items():
        if turn := found.get(number.get(whose(step), -1)):
            if step.action in _BEGINS:
                turn.begins.append(key)
            elif step.action in _ENDS:
                turn.ends.append(key)
    return [found[place] for place in sorted(found)]


def _subject(step: Step) -> str:
    """What a step stops or starts; other steps are by themselves."""
    return f"{step.kind.value}/{step.name}" if step.action in _BEGINS | _ENDS else step.id


def outdated(wanted: Iterable[DomainSpec], hosts: tuple[Host, ...], *, upgrading: bool) -> tuple[str, ...]:
    """What the user should know of device VMs that keep an older build of their image than their host has."""
    by_name = {host.name: host for host in hosts}
    found: dict[str, list[str]] = {}
    for spec in wanted:
        host, name = by_name.get(spec.host), _name(spec)
        if host and name and spec.role is Role.DEVICE_VM and is_outdated(spec, image_named(host, name, spec.arch)):
            found.setdefault(name, []).append(spec.name)
    why = (
        "what serves only clients that are not declared here keeps its own" if upgrading else "--upgrade has it booted"
    )
    return tuple(
        f"{', '.join(sorted(names))}: a newer build of image {name} is there; {why}"
        for name, names in sorted(found.items())
    )


def _is_upgrade(before: DomainSpec | None, after: DomainSpec) -> bool:
    return before is not None and before.image != after.image and _name(before) == _name(after)


def _name(spec: DomainSpec) -> str:
    return spec.image.rpartition("-")[0]
