"""Device VMs that get another build of their image: one after the other, each when the one before is up and its clients
have come back. What fails on the way stops there: the rest goes on with the build that it has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..domain import DomainSpec, Role
from ..inventory.host import Host
from .handover import in_order, waits_for
from .plan import Action, Step, Subject, step_id
from .specify import image_named, is_outdated

_BEGINS = frozenset((Action.STOP, Action.DETACH))
_ENDS = frozenset((Action.START, Action.ATTACH))


def one_by_one(steps: dict[str, Step], wanted: Iterable[DomainSpec], before: dict[str, DomainSpec]) -> dict[str, Step]:
    """The steps, with those that upgrade a running device VM behind those that bring the one before it back.

    `wanted` are the domains as they are to be, `before` as they were. A client of several is stopped with the first of
    them, and started with the last.
    """
    rounds = [
        spec
        for spec in sorted(wanted, key=lambda spec: spec.name)
        if step_id(Action.STOP, Subject.DEVICE_VM, spec.name) in steps and _is_upgrade(before.get(spec.name), spec)
    ]
    begins: list[list[str]] = [[] for spec in rounds]
    ends: list[list[str]] = [[] for spec in rounds]
    numbers = _numbers(rounds)
    for key, step in steps.items():
        if found := numbers.get((step.kind, step.name)):
            if step.action in _BEGINS:
                begins[found[0]].append(key)
            elif step.action in _ENDS:
                ends[found[-1]].append(key)
    waiting = {key: step.after for key, step in steps.items()}
    behind: dict[str, list[str]] = {}
    for former, later in zip(ends, begins[1:], strict=False):
        for key in later:
            for one in former:
                # What comes first for another reason goes first.
                if one not in waiting[key] and not waits_for(waiting, one, key):
                    waiting[key] = (*waiting[key], one)
                    behind.setdefault(key, []).append(one)
    if not behind:
        return steps
    return in_order({key: replace(step, behind=tuple(behind.get(key, ()))) for key, step in steps.items()})


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


def _numbers(rounds: list[DomainSpec]) -> dict[tuple[Subject, str], list[int]]:
    """In which rounds each subject of a step has a part."""
    numbers: dict[tuple[Subject, str], list[int]] = {}
    for number, spec in enumerate(rounds):
        touched = {(Subject.DEVICE_VM, spec.name)}
        for emulator in spec.emulators:
            touched |= {(Subject.CLIENT, emulator.client), (Subject.PART, f"{emulator.client}/{emulator.name}")}
        for one in touched:
            numbers.setdefault(one, []).append(number)
    return numbers


def _is_upgrade(before: DomainSpec | None, after: DomainSpec) -> bool:
    return before is not None and before.image != after.image and _name(before) == _name(after)


def _name(spec: DomainSpec) -> str:
    return spec.image.rpartition("-")[0]
