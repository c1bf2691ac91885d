"""The steps that start and stop host parts: a part runs while its device VM has answered and its client may come."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..domain import DomainSpec, Emulator, ObservedDomain
from ..manifest.topology import Consumer
from .difference import content_stays
from .plan import Action, Effect, Phase, Step, Subject, step_id
from .sequence import each_after

_CHANGES = (Action.STOP, Action.UPDATE, Action.START, Action.UNDEFINE)


def without_part(spec: DomainSpec, domain: ObservedDomain) -> tuple[Emulator, ...]:
    """The emulators of a running device VM that nobody reaches, since the process on the host does not run."""
    return tuple(one for one in spec.emulators if one.part and one.id not in domain.parts)


def with_parts(
    steps: dict[str, Step], device_vms: list[DomainSpec], observed: dict[str, ObservedDomain]
) -> dict[str, Step]:
    """The steps with those of parts among them, each after those that it waits for.

    A part stops when its client has let go and before its device VM changes; it starts when that has answered and
    before its client does.
    """
    wanted = {spec.name: spec for spec in device_vms}
    names = {spec.name for spec in device_vms if any(emulator.part for emulator in spec.emulators)}
    names.update(name for name, domain in observed.items() if domain.parts)
    parts = _Parts(steps)
    for name in sorted(names):
        parts.of(name, wanted.get(name), observed.get(name))
    return parts.among() if parts.found else steps


@dataclass
class _Parts:
    """The steps of parts in the making, and which other steps (by id) wait for them."""

    steps: dict[str, Step]
    found: dict[str, Step] = field(default_factory=dict)
    waiting: dict[str, list[str]] = field(default_factory=dict)

    def of(self, name: str, wanted: DomainSpec | None, domain: ObservedDomain | None) -> None:
        """Add the steps of one device VM's parts."""
        if wanted is None and step_id(Action.UNDEFINE, Subject.DEVICE_VM, name) not in self.steps:
            return  # it stays as it is
        known = (domain.active_spec or domain.spec) if domain else None
        before = {one.id: one for one in known.emulators if one.part} if known else {}
        after = {one.id: one for one in wanted.emulators if one.part} if wanted else {}
        changes = [key for action in _CHANGES if (key := step_id(action, Subject.DEVICE_VM, name)) in self.steps]
        actions = {self.steps[key].action for key in changes}
        active = domain is not None and domain.active
        running = set(domain.parts) if domain else set()
        for key, emulator in before.items():
            if key in running and (_ends(emulator, actions, active=active) or after.get(key) != emulator):
                self._stop(emulator, changes, gone=key not in after)
        # A device VM that comes up with its clients brings its parts along (manager/keeper.py).
        stops, starts = (step_id(action, Subject.DEVICE_VM, name) in changes for action in (Action.STOP, Action.START))
        for key, emulator in after.items() if starts or (active and not stops) else ():
            if key not in running or _ends(emulator, actions, active=active) or before.get(key) != emulator:
                self._start(emulator, changes, name)

    def among(self) -> dict[str, Step]:
        """All steps, in an order in which each comes after those that it waits for."""
        steps = {**self.steps, **self.found}
        for key, others in self.waiting.items():
            steps[key] = replace(steps[key], after=tuple(dict.fromkeys((*steps[key].after, *others))))
        order = each_after(steps, lambda key: [one for one in steps[key].after if one in steps])
        return {key: steps[key] for key in order}

    def _stop(self, emulator: Emulator, changes: list[str], *, gone: bool) -> None:
        reason = "nothing needs it any more" if gone else "its device VM changes"
        phase = Phase.RELEASE if gone else Phase.CONFIGURE
        key = self._step(Action.STOP, emulator, phase, reason, self._client_steps(emulator, Action.STOP, Action.DETACH))
        for other in changes:
            self.waiting.setdefault(other, []).append(key)

    def _start(self, emulator: Emulator, changes: list[str], device_vm: str) -> None:
        stopped = [key for key in (step_id(Action.STOP, Subject.PART, _name(emulator)),) if key in self.found]
        reason = f"it relays what {device_vm} emulates; devicevm's program for that is installed on the host"
        after = [*changes, *self._client_steps(emulator, Action.STOP, Action.DETACH), *stopped]
        key = self._step(Action.START, emulator, Phase.CONNECT, reason, after)
        for other in self._client_steps(emulator, Action.START, Action.UPDATE, Action.ATTACH):
            self.waiting.setdefault(other, []).append(key)

    def _step(self, action: Action, emulator: Emulator, phase: Phase, reason: str, after: list[str]) -> str:
        name = _name(emulator)
        key = step_id(action, Subject.PART, name)
        self.found[key] = Step(
            key, action, Subject.PART, name, phase, Effect.NONE, reason, tuple(after), part=emulator.part
        )
        return key

    def _client_steps(self, emulator: Emulator, *actions: Action) -> list[str]:
        keys = (step_id(action, Subject.CLIENT, emulator.client) for action in actions)
        return [key for key in keys if key in self.steps]


def waits(emulator: Emulator) -> bool:
    """Whether a part goes on when its device VM dies, and has it again when that is back: what the host itself has open
    it would have to open anew."""
    return emulator.consumer is Consumer.HOST and content_stays(emulator, emulator)


def _ends(emulator: Emulator, actions: set[Action], *, active: bool) -> bool:
    """Whether a part that runs cannot go on through these steps of its device VM."""
    # One that runs already is only asked whether it answers: whoever is connected stays.
    kept = {Action.UPDATE, Action.START} if active or waits(emulator) else {Action.UPDATE}
    return not actions <= kept


def _name(emulator: Emulator) -> str:
    return f"{emulator.client}/{emulator.name}"
