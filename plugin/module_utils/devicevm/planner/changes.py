"""The steps from what the VMM has to what is wanted, with what running clients feel of each.

A step is idempotent, and an interrupted apply leaves nothing that the next plan does not see: a
definition is written before it is acted on, and the live mark after, so a domain whose two
differ is one in the middle of a change.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..domain import DomainSpec, Emulator, ObservedDomain, Role
from ..frontend.registry import FRONTENDS
from ..manifest.topology import Store
from .difference import compare_emulators, difference, same_but_for_emulators, served
from .plan import Action, Effect, Phase, Step, Subject

_SUBJECT = {Role.DEVICE_VM: Subject.DEVICE_VM, Role.CLIENT: Subject.CLIENT}


@dataclass
class Changes:
    """The steps so far, by id, and what they need: the new specifications and the old ones."""

    observed: dict[str, ObservedDomain]
    live: bool
    delete_data: bool = False
    steps: dict[str, Step] = field(default_factory=dict)
    domains: dict[str, DomainSpec] = field(default_factory=dict)
    previous: dict[str, DomainSpec] = field(default_factory=dict)
    restarts: dict[str, str] = field(default_factory=dict)
    """The running clients that must be restarted, and why."""
    emulated: frozenset[str] = frozenset()
    """The ids of all emulators that are wanted: their data is in use, wherever they ran before."""

    def work_out(self, desired: list[DomainSpec], doomed: list[ObservedDomain]) -> None:
        """Fill in the steps: clients let go, device VMs change, clients come on top, and the rest goes."""
        device_vms = [spec for spec in desired if spec.role is Role.DEVICE_VM]
        clients = [spec for spec in desired if spec.role is Role.CLIENT]
        self.restarts = self._restarts(device_vms, clients)
        self.emulated = frozenset(emulator.id for spec in device_vms for emulator in spec.emulators)
        for domain in doomed:
            if domain.role is Role.CLIENT:
                self._remove(domain, "it is no longer declared", ())
        for spec in clients:
            if spec.name in self.restarts:
                reason = self.restarts[spec.name]
                self._step(Action.STOP, spec, Phase.CONNECT, reason, effect=Effect.RESTART, affects=(spec.name,))
        released = tuple(self.steps)
        for spec in device_vms:
            self._device_vm(spec, released)
        for spec in clients:
            self._client(spec)
        for domain in doomed:
            if domain.role is Role.DEVICE_VM:
                self._remove(domain, "nothing needs it any more", released)

    def _restarts(self, device_vms: list[DomainSpec], clients: list[DomainSpec]) -> dict[str, str]:
        reasons: dict[str, str] = {}
        for spec in clients:
            running = self._running(spec.name)
            if running is not None and running != spec:
                reasons[spec.name] = difference(running, spec)
        attached = _attached(clients)
        for spec in device_vms:
            emulators, reason = self._interrupted(spec)
            for emulator in emulators:
                client = attached.get(emulator.id, "")
                if client and self._running(client) is not None:
                    reasons.setdefault(client, reason)
        return reasons

    def _interrupted(self, spec: DomainSpec) -> tuple[tuple[Emulator, ...], str]:
        """The emulators that are away for a while when a device VM becomes `spec`, and why."""
        if spec.name not in self.observed:
            return (), ""
        running = self._running(spec.name)
        if running is None:
            return spec.emulators, f"its device VM {spec.name} does not run"
        if not self._can_change_live(running, spec):
            return spec.emulators, f"its device VM {spec.name} is restarted"
        changes = compare_emulators(running, spec)
        return changes.changed, f"what emulates it in {spec.name} changes: {'; '.join(changes.fields.values())}"

    def _running(self, name: str) -> DomainSpec | None:
        """What a domain runs now; None when it does not run or is not there."""
        domain = self.observed.get(name)
        return (domain.active_spec or domain.spec) if domain and domain.active else None

    def _can_change_live(self, running: DomainSpec, wanted: DomainSpec) -> bool:
        return running == wanted or (self.live and same_but_for_emulators(running, wanted))

    def _device_vm(self, spec: DomainSpec, released: tuple[str, ...]) -> None:
        domain = self.observed.get(spec.name)
        running = self._running(spec.name)
        if domain is not None and running is not None and self._can_change_live(running, spec):
            self._change_live(spec, running, domain, released)
            return
        reason = f"it serves {served(spec)}" if domain is None else difference(running or domain.spec, spec)
        after = self._stores(spec.emulators)
        if domain is not None and domain.active:
            felt = tuple(sorted({emulator.client for emulator in spec.emulators if self._running(emulator.client)}))
            effect = Effect.RESTART if felt else Effect.NONE
            after += (
                self._step(Action.STOP, spec, Phase.CONFIGURE, reason, after=released, effect=effect, affects=felt),
            )
        after += self._definition(spec, Phase.REQUEST, reason, after)
        self._step(
            Action.START,
            spec,
            Phase.CONFIGURE,
            f"it runs the emulation code of {served(spec)}",
            after=after or released,
        )

    def _change_live(
        self, spec: DomainSpec, running: DomainSpec, domain: ObservedDomain, released: tuple[str, ...]
    ) -> None:
        if running == spec:
            after = self._definition(spec, Phase.REQUEST, "its definition is an older one", ())
            if not domain.ready:
                reason = "it runs, but its emulation code has not been seen to answer"
                self._step(Action.START, spec, Phase.CONFIGURE, reason, after=after)
            return
        changes = compare_emulators(running, spec)
        after = self._stores((*changes.added, *changes.changed)) + released
        updated = self._step(Action.UPDATE, spec, Phase.CONFIGURE, str(changes), after=after, effect=Effect.LIVE)
        self._delete_stores(changes.removed, (updated,))

    def _client(self, spec: DomainSpec) -> None:
        domain = self.observed.get(spec.name)
        old = domain.spec if domain else None
        stopped = tuple(key for key in (_id(Action.STOP, Subject.CLIENT, spec.name),) if key in self.steps)
        reason = "it is declared" if domain is None else difference(old, spec)
        after = self._definition(spec, Phase.CONNECT, reason, stopped)
        if stopped or self._running(spec.name) is None:
            uses = sorted({attachment.device_vm for attachment in spec.attachments})
            made = [_id(action, Subject.DEVICE_VM, name) for name in uses for action in (Action.START, Action.UPDATE)]
            after += tuple(key for key in made if key in self.steps) + stopped
            reason = self.restarts.get(spec.name, "it is declared to run")
            self._step(Action.START, spec, Phase.CONNECT, reason, after=after)

    def _definition(self, spec: DomainSpec, phase: Phase, reason: str, after: tuple[str, ...]) -> tuple[str, ...]:
        """The step that defines a domain, when its definition is not what it is to be."""
        domain = self.observed.get(spec.name)
        wrong = _wrong(domain) if domain else ()
        if domain is not None and domain.spec == spec and not wrong:
            return ()
        return (self._step(Action.DEFINE, spec, phase, "; ".join(wrong) or reason, after=after),)

    def _remove(self, domain: ObservedDomain, reason: str, after: tuple[str, ...]) -> None:
        kind = _SUBJECT[domain.role]
        client = domain.role is Role.CLIENT
        affects = (domain.name,) if client else ()
        effect = Effect.REMOVE if client else Effect.NONE
        for action in (Action.STOP, Action.UNDEFINE) if domain.active else (Action.UNDEFINE,):
            key = _id(action, kind, domain.name)
            self.steps[key] = Step(key, action, kind, domain.name, Phase.RELEASE, effect, reason, after, affects)
            after = (key,)
        if domain.spec:
            self.previous[domain.name] = domain.spec
            self._delete_stores(domain.spec.emulators, after)

    def _stores(self, emulators: tuple[Emulator, ...]) -> tuple[str, ...]:
        """The steps that see to it that backing storage is there."""
        reason = "it is created where it is missing, and kept where it is there"
        return tuple(
            self._store(Action.CREATE, emulator, Phase.REQUEST, reason, ())
            for emulator in emulators
            if emulator.store and not emulator.store.read_only
        )

    def _delete_stores(self, emulators: tuple[Emulator, ...], after: tuple[str, ...]) -> None:
        for emulator in emulators if self.delete_data else ():
            if _may_delete(emulator.store) and emulator.id not in self.emulated:
                self._store(Action.DELETE, emulator, Phase.RELEASE, "its data is to be deleted", after)

    def _store(self, action: Action, emulator: Emulator, phase: Phase, reason: str, after: tuple[str, ...]) -> str:
        name = f"{emulator.client}/{emulator.name}"
        key = _id(action, Subject.STORE, name)
        effect = Effect.REMOVE if action is Action.DELETE else Effect.NONE
        self.steps[key] = Step(key, action, Subject.STORE, name, phase, effect, reason, after, store=emulator.store)
        return key

    def _step(
        self,
        action: Action,
        spec: DomainSpec,
        phase: Phase,
        reason: str,
        *,
        after: tuple[str, ...] = (),
        effect: Effect = Effect.NONE,
        affects: tuple[str, ...] = (),
    ) -> str:
        """Add a step on a domain that is wanted; its id."""
        self.domains[spec.name] = spec
        domain = self.observed.get(spec.name)
        old = (domain.active_spec or domain.spec) if domain else None
        if old is not None:
            self.previous[spec.name] = old
        kind = _SUBJECT[spec.role]
        key = _id(action, kind, spec.name)
        self.steps[key] = Step(
            key, action, kind, spec.name, phase, effect, reason, tuple(dict.fromkeys(after)), affects
        )
        return key


def _id(action: Action, kind: Subject, name: str) -> str:
    return f"{action.value}/{kind.value}/{name}"


def _may_delete(store: Store | None) -> bool:
    """A block device is the host's, not ours to delete; what is read only was never ours to write."""
    return store is not None and store.kind != "block" and not store.read_only and store.reclaim == "delete"


def _wrong(domain: ObservedDomain) -> tuple[str, ...]:
    """What is wrong with a definition though its specification may be right."""
    return domain.drift or ((domain.broken,) if domain.broken else ())


def _attached(clients: list[DomainSpec]) -> dict[str, str]:
    """The client of each device whose front end does not survive its emulator's absence, by emulator id."""
    return {
        f"{spec.name}.{attachment.name}": spec.name
        for spec in clients
        for attachment in spec.attachments
        if not FRONTENDS[attachment.frontend].reconnects
    }
