"""Who takes a processor comes after whoever gives it up.

Where domains change places in a circle, one of them has to come first: there may be no processor to wait on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush

from ..domain import CpuPlacement, DomainSpec, ObservedDomain, Role
from .plan import Action, Step, Subject

_ROLE = {Subject.DEVICE_VM: Role.DEVICE_VM, Subject.CLIENT: Role.CLIENT}


def in_turn(
    steps: dict[str, Step], observed: Mapping[str, ObservedDomain], wanted: Mapping[str, DomainSpec]
) -> dict[str, Step]:
    """The steps, with those that take processors after those that give them up; `wanted` are the domains as they are
    to be. What shares does not wait for what shares."""
    given = _given(steps, observed, wanted)
    if not given:
        return steps
    after = {key: step.after for key, step in steps.items()}
    for key, step in steps.items():
        spec = _of(step, wanted)
        if spec is None or step.action not in (Action.START, Action.UPDATE):
            continue
        for one in given.holders(spec):
            giver = steps[one]
            if giver.name != step.name and one not in after[key] and not waits_for(after, one, key):
                after[key] = (*after[key], one)
    return in_order({key: replace(step, after=after[key]) for key, step in steps.items()})


@dataclass
class _Given:
    """Which steps take a domain off which processors of which host: off those that it has alone, and off those that it
    shares. `anywhere` are those by which something that may run on any is kept to some."""

    alone: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    shared: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    anywhere: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.alone or self.shared or self.anywhere)

    def holders(self, spec: DomainSpec) -> dict[str, None]:
        """The steps that a domain has to wait for, each once."""
        dedicated = spec.placement.dedicated
        found = dict.fromkeys(self.anywhere.get(spec.host, ()) if dedicated else ())
        for cpu in _cpus(spec.placement):
            for there in (self.alone, self.shared) if dedicated else (self.alone,):
                found.update(dict.fromkeys(there.get((spec.host, cpu), ())))
        return found


def _given(steps: dict[str, Step], observed: Mapping[str, ObservedDomain], wanted: Mapping[str, DomainSpec]) -> _Given:
    given = _Given()
    for key, step in steps.items():
        domain = observed.get(step.name)
        if step.action not in (Action.STOP, Action.UPDATE) or domain is None or not domain.active:
            continue
        old = _of(step, {domain.name: spec} if (spec := domain.active_spec or domain.spec) else {})
        new = _of(step, wanted) if step.action is Action.UPDATE else None
        if old is None or (new and new.placement == old.placement):
            continue
        if new and not (old.placement.vcpus and old.placement.emulator):
            given.anywhere.setdefault(old.host, []).append(key)
        for cpu in _cpus(old.placement):
            there = given.alone if old.placement.dedicated else given.shared
            there.setdefault((old.host, cpu), []).append(key)
    return given


def _of(step: Step, specs: Mapping[str, DomainSpec]) -> DomainSpec | None:
    """What a step is about: a name may pass from a client to a device VM."""
    spec = specs.get(step.name)
    return spec if spec and _ROLE.get(step.kind) is spec.role else None


def _cpus(placement: CpuPlacement) -> list[int]:
    """Every processor that a placement names, ascending."""
    return sorted({cpu for pin in (*placement.vcpus, placement.emulator, placement.idle) for cpu in pin})


def waits_for(after: dict[str, tuple[str, ...]], key: str, other: str) -> bool:
    """Whether a step waits for another, or for one that does."""
    seen, left = {key}, [key]
    while left:
        more = [one for one in after.get(left.pop(), ()) if one not in seen]
        if other in more:
            return True
        seen.update(more)
        left += more
    return False


def in_order(steps: dict[str, Step]) -> dict[str, Step]:
    """The steps so that each comes after those it waits for, otherwise as they were."""
    names = list(steps)
    place = {key: number for number, key in enumerate(names)}
    waiting = {key: {one for one in (*step.after, *step.behind) if one in steps} for key, step in steps.items()}
    users: dict[str, list[str]] = {}
    for key, before in waiting.items():
        for one in before:
            users.setdefault(one, []).append(key)
    ready = [place[key] for key, before in waiting.items() if not before]
    heapify(ready)
    ordered: dict[str, Step] = {}
    while ready:
        key = names[heappop(ready)]
        ordered[key] = steps[key]
        for user in users.get(key, ()):
            waiting[user].discard(key)
            if not waiting[user]:
                heappush(ready, place[user])
    return ordered
