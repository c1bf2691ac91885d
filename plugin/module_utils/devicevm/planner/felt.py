"""For how long clients feel a step: what is known beforehand, and no more.

A client that is restarted is away until it has booted, which only its user can time: what is told in seconds is the
start of the device VMs that it waits for. Figures are of the machine of docs/benchmarks.md, which has two processors
and no hardware virtualisation; where nobody has measured, none is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..domain import DomainSpec
from .plan import Action, Effect, Felt, Seconds, Step, Subject, Until, step_id

# From the start of a device VM to the answers of all its emulators, by accelerator: docs/benchmarks.md, "Start of a
# device VM" (3 devices: 1.96 s) and "Applying 10 clients", one device VM for all (20 devices: 3.37 s).
START = {"tcg": Seconds(2, 4)}

_NONE = Seconds(0)


def with_felt(
    steps: dict[str, Step],
    domains: dict[str, DomainSpec],
    restarted: frozenset[str],
    reconnects: Callable[[str, str], bool],
) -> tuple[Step, ...]:
    """The steps, each with who feels it and for how long; in an order in which each comes after those it waits for.

    `restarted` are the clients that are stopped and started again, which feel nothing else besides; `reconnects` tells
    of a client and a device VM whether all that is between them comes back by itself.
    """
    waits = _waits(steps, domains)
    told = []
    for step in steps.values():
        felt = tuple(_felt(step, domains, waits, restarted, reconnects))
        told.append(replace(step, felt=felt) if felt else step)
    return tuple(told)


def words(felt: Felt) -> str:
    """`web is away until it has booted, 2 s or more`."""
    names, one = ", ".join(felt.clients), len(felt.clients) == 1
    if felt.until is Until.NEVER:
        return f"{names} {'is' if one else 'are'} gone for good"
    end = {
        Until.ANSWERED: "the device VM has answered",
        Until.BOOTED: "it has booted" if one else "they have booted",
        Until.RESTARTED: "somebody restarts it" if one else "somebody restarts them",
    }[felt.until]
    away = "is away" if one else "are away"
    what = f"{names} {away if felt.until is Until.BOOTED else 'has no answer' if one else 'have no answer'} until {end}"
    seconds = felt.seconds
    if seconds is None:
        return what
    return f"{what}, {f'{seconds.from_}-{seconds.to} s' if seconds.to else f'{seconds.from_} s or more'}"


def _felt(
    step: Step,
    domains: dict[str, DomainSpec],
    waits: dict[str, int],
    restarted: frozenset[str],
    reconnects: Callable[[str, str], bool],
) -> list[Felt]:
    if step.kind is Subject.CLIENT and step.action is Action.STOP:
        if step.effect is Effect.REMOVE:
            return [Felt(step.affects, Until.NEVER)]
        least = waits.get(step_id(Action.START, step.kind, step.name), waits[step.id]) - waits[step.id]
        return [Felt(step.affects, Until.BOOTED, Seconds(least) if least else None)]
    if step.action is Action.DETACH and step.effect is Effect.RECONNECT:
        least = waits.get(step_id(Action.ATTACH, step.kind, step.name), waits[step.id]) - waits[step.id]
        return [Felt(step.affects, Until.ANSWERED, Seconds(least) if least else None)]
    if step.action in (Action.ATTACH, Action.DETACH) and step.effect is Effect.RESTART:
        return [Felt(step.affects, Until.RESTARTED)]
    if step.kind is not Subject.DEVICE_VM:
        return []
    others = [name for name in step.affects if name not in restarted]
    # A live update takes away those alone that come back: the clients of others are restarted.
    update = step.action is Action.UPDATE
    again = tuple(name for name in others if update or reconnects(name, step.name))
    broken = tuple(name for name in others if name not in again)
    starts = step.action in (Action.STOP, Action.START) and step.name in domains
    seconds = START.get(domains[step.name].accelerator) if starts else None
    found = [Felt(again, Until.ANSWERED, seconds)] if again else []
    return [*found, Felt(broken, Until.RESTARTED)] if broken else found


def _waits(steps: dict[str, Step], domains: dict[str, DomainSpec]) -> dict[str, int]:
    """For each step, how many seconds of starts of device VMs come before its end, one after the other."""
    found: dict[str, int] = {}
    for key, step in steps.items():
        own = _NONE
        if step.action is Action.START and step.kind is Subject.DEVICE_VM:
            own = START.get(domains[step.name].accelerator, _NONE)
        found[key] = own.from_ + max((found.get(before, 0) for before in (*step.after, *step.behind)), default=0)
    return found
