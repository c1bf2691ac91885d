"""The steps from what the VMM has to what is wanted, with what running clients feel of each.

A step is idempotent, and an interrupted apply leaves nothing that the next plan does not see: a
definition is written before it is acted on, and the live mark after, so a domain whose two
differ is one in the middle of a change.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..frontend.registry import FRONTENDS
from ..manifest.topology import Store
from ..record import digest
from .domain import DomainSpec, Emulator, ObservedDomain, Role
from .plan import Action, Effect, Phase, Step, Subject

_SUBJECT = {Role.DEVICE_VM: Subject.DEVICE_VM, Role.CLIENT: Subject.CLIENT}


@dataclass
class Changes:
    """The steps so far, and what they need: the new specifications and the old ones."""

    observed: dict[str, ObservedDomain]
    live: bool
    delete_data: bool = False
    steps: list[Step] = field(default_factory=list)
    domains: dict[str, DomainSpec] = field(default_factory=dict)
    previous: dict[str, DomainSpec] = field(default_factory=dict)

    def work_out(self, desired: list[DomainSpec], doomed: list[ObservedDomain]) -> None:
        """Fill in the steps: device VMs first, clients on top, what is not wanted away."""
        device_vms = [spec for spec in desired if spec.role is Role.DEVICE_VM]
        clients = [spec for spec in desired if spec.role is Role.CLIENT]
        gone_clients = [domain for domain in doomed if domain.role is Role.CLIENT]
        gone_device_vms = [domain for domain in doomed if domain.role is not Role.CLIENT]
        disturbed = self._disturbed(device_vms, clients)
        for domain in gone_clients:
            self._remove(domain, "it is no longer declared", after=())
        for spec in clients:
            if spec.name in disturbed and self.observed[spec.name].active:
                self._step(Action.STOP, spec, Phase.CONNECT, Effect.RESTART, disturbed[spec.name], affects=(spec.name,))
        for spec in device_vms:
            self._device_vm(spec, disturbed)
        for spec in clients:
            self._client(spec, disturbed.get(spec.name, ""))
        for domain in gone_device_vms:
            users = self._users(domain)
            self._remove(domain, "nothing needs it any more", after=users)

    def _disturbed(self, device_vms: list[DomainSpec], clients: list[DomainSpec]) -> dict[str, str]:
        """The existing clients that must be restarted, and why."""
        reasons: dict[str, str] = {}
        for spec in clients:
            domain = self.observed.get(spec.name)
            if domain is None or not domain.active:
                continue
            running = domain.active_spec or domain.spec
            if running is None or running != spec:
                reasons[spec.name] = difference(running, spec)
        by_name = {spec.name: spec for spec in clients}
        for spec in device_vms:
            for name, reason in self._felt(spec, by_name).items():
                domain = self.observed.get(name)
                if domain is not None and domain.active:
                    reasons.setdefault(name, reason)
        return reasons

    def _felt(self, spec: DomainSpec, clients: dict[str, DomainSpec]) -> dict[str, str]:
        """The clients that a change of one device VM makes restart: their front ends do not reconnect."""
        domain = self.observed.get(spec.name)
        if domain is None:
            return {}
        if not domain.active:
            return _users_of(spec.emulators, clients, f"its device VM {spec.name} does not run")
        running = domain.active_spec or domain.spec
        if running is None or not self._can_change_live(running, spec):
            return _users_of(spec.emulators, clients, f"its device VM {spec.name} is restarted")
        _, _, changed = compare_emulators(running, spec)
        return _users_of(changed, clients, f"what emulates it in {spec.name} changes")

    def _can_change_live(self, running: DomainSpec, wanted: DomainSpec) -> bool:
        return running == wanted or (self.live and replace(running, emulators=wanted.emulators) == wanted)

    def _device_vm(self, spec: DomainSpec, disturbed: dict[str, str]) -> None:
        domain = self.observed.get(spec.name)
        old = domain.spec if domain else None
        running = (domain.active_spec or old) if domain and domain.active else None
        stopped = tuple(f"stop/client/{name}" for name in sorted(disturbed) if self._has(f"stop/client/{name}"))
        if running is not None and self._can_change_live(running, spec):
            self._change_live(spec, running, old, domain, stopped)
            return
        reason = f"it serves {served(spec)}" if domain is None else difference(running or old, spec)
        after = self._stores(spec.emulators)
        if domain and domain.active:
            after += (self._step(Action.STOP, spec, Phase.CONFIGURE, Effect.RESTART, reason, stopped, tuple(sorted(disturbed))),)
        if domain is None or old != spec or domain.drift or domain.broken:
            after += (self._step(Action.DEFINE, spec, Phase.REQUEST, Effect.NONE, reason or "; ".join(_drift(domain)), after),)
        self._step(
            Action.START, spec, Phase.CONFIGURE, Effect.NONE, f"the emulation code for {served(spec)} runs in it",
            after or stopped,
        )

    def _change_live(
        self, spec: DomainSpec, running: DomainSpec, old: DomainSpec | None, domain: ObservedDomain | None, stopped: tuple[str, ...]
    ) -> None:
        added, removed, changed = compare_emulators(running, spec)
        drift = _drift(domain)
        if running == spec and old == spec and not drift:
            return
        if running == spec:
            self._step(Action.DEFINE, spec, Phase.REQUEST, Effect.NONE, "; ".join(drift) or "its definition is an older one")
            return
        words = [f"{verb} {', '.join(f'{e.client}/{e.name}' for e in emulators)}" for verb, emulators in
                 (("adds", added), ("removes", removed), ("changes", changed)) if emulators]
        gone = tuple(step.id for step in self.steps if step.action is Action.UNDEFINE and step.kind is Subject.CLIENT)
        after = self._stores((*added, *changed)) + stopped + gone
        self._step(Action.UPDATE, spec, Phase.CONFIGURE, Effect.LIVE, "; ".join(words) or "its definition is an older one", after)

    def _client(self, spec: DomainSpec, disturbed: str) -> None:
        domain = self.observed.get(spec.name)
        old = domain.spec if domain else None
        made = [step.id for step in self.steps if step.kind is Subject.DEVICE_VM and step.action in (Action.START, Action.UPDATE)]
        uses = {attachment.device_vm for attachment in spec.attachments}
        after = tuple(step for step in made if step.rsplit("/", 1)[1] in uses)
        stopped = (f"stop/client/{spec.name}",) if self._has(f"stop/client/{spec.name}") else ()
        if domain is None or old != spec or domain.drift or domain.broken:
            reason = "it is declared" if domain is None else difference(old, spec) or "; ".join(_drift(domain))
            after += (self._step(Action.DEFINE, spec, Phase.CONNECT, Effect.NONE, reason, stopped),)
        if domain is None or not domain.active or stopped:
            reason = "it is declared to run" if domain is None or not domain.active else disturbed
            self._step(Action.START, spec, Phase.CONNECT, Effect.NONE, reason, after + stopped)

    def _remove(self, domain: ObservedDomain, reason: str, after: tuple[str, ...]) -> None:
        spec = domain.spec
        kind = _SUBJECT[domain.role]
        affects = (domain.name,) if kind is Subject.CLIENT else ()
        if domain.active:
            effect = Effect.REMOVE if kind is Subject.CLIENT else Effect.NONE
            after = (self._add(Action.STOP, kind, domain.name, Phase.RELEASE, effect, reason, after, affects),)
        undefined = self._add(Action.UNDEFINE, kind, domain.name, Phase.RELEASE, Effect.NONE, reason, after, affects)
        if spec is None:
            return
        self.previous[domain.name] = spec
        for emulator in spec.emulators if self.delete_data else ():
            if emulator.store and emulator.store.kind != "block":
                self._add(Action.DELETE, Subject.STORE, f"{emulator.client}/{emulator.name}", Phase.RELEASE, Effect.REMOVE,
                          "its data is to be deleted", (undefined,), (emulator.client,), emulator.store)

    def _users(self, domain: ObservedDomain) -> tuple[str, ...]:
        """The steps by which clients let go of a device VM: it goes after them."""
        return tuple(step.id for step in self.steps if step.kind is Subject.CLIENT and step.action in (Action.STOP, Action.UNDEFINE))

    def _stores(self, emulators: tuple[Emulator, ...]) -> tuple[str, ...]:
        """The steps that see to it that backing storage is there."""
        steps = []
        for emulator in emulators:
            if emulator.store and not emulator.store.read_only:
                name = f"{emulator.client}/{emulator.name}"
                steps.append(self._add(Action.CREATE, Subject.STORE, name, Phase.REQUEST, Effect.NONE,
                                       "it is created where it is missing, and kept where it is not", store=emulator.store))
        return tuple(steps)

    def _step(
        self, action: Action, spec: DomainSpec, phase: Phase, effect: Effect, reason: str,
        after: tuple[str, ...] = (), affects: tuple[str, ...] = (),
    ) -> str:
        self.domains[spec.name] = spec
        domain = self.observed.get(spec.name)
        old = (domain.active_spec or domain.spec) if domain else None
        if old is not None:
            self.previous[spec.name] = old
        return self._add(action, _SUBJECT[spec.role], spec.name, phase, effect, reason, after, affects)

    def _add(
        self, action: Action, kind: Subject, name: str, phase: Phase, effect: Effect, reason: str,
        after: tuple[str, ...] = (), affects: tuple[str, ...] = (), store: Store | None = None,
    ) -> str:
        key = f"{action.value}/{kind.value}/{name}"
        if not self._has(key):
            self.steps.append(Step(key, action, kind, name, phase, effect, reason, tuple(dict.fromkeys(after)), affects, store))
        return key

    def _has(self, key: str) -> bool:
        return any(step.id == key for step in self.steps)


def compare_emulators(old: DomainSpec, new: DomainSpec) -> tuple[tuple[Emulator, ...], tuple[Emulator, ...], tuple[Emulator, ...]]:
    """The emulators that `new` adds, removes and changes."""
    before = {emulator.id: emulator for emulator in old.emulators}
    after = {emulator.id: emulator for emulator in new.emulators}
    added = tuple(emulator for key, emulator in after.items() if key not in before)
    removed = tuple(emulator for key, emulator in before.items() if key not in after)
    changed = tuple(emulator for key, emulator in after.items() if key in before and before[key] != emulator)
    return added, removed, changed


def difference(old: DomainSpec | None, new: DomainSpec) -> str:
    """In which fields two specifications differ, with the values where they are short."""
    if old is None:
        return "its metadata cannot be read"
    parts = []
    for name in new.__dataclass_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            scalar = isinstance(after, (int, str)) and len(str(before)) + len(str(after)) < 80
            parts.append(f"{name} {before} -> {after}" if scalar else f"{name} changes")
    return ", ".join(parts)


def served(spec: DomainSpec) -> str:
    """`web/data (disk), web/gps (serial)`."""
    return ", ".join(f"{emulator.client}/{emulator.name} ({emulator.class_})" for emulator in spec.emulators)


def fingerprint(spec: DomainSpec) -> str:
    """The short digest by which a domain's metadata names its specification."""
    return digest(spec, 16)


def _drift(domain: ObservedDomain | None) -> tuple[str, ...]:
    if domain is None:
        return ()
    return domain.drift or ((domain.broken,) if domain.broken else ())


def _users_of(emulators: tuple[Emulator, ...], clients: dict[str, DomainSpec], reason: str) -> dict[str, str]:
    """The clients with a front end that does not survive its device VM's absence."""
    ids = {emulator.id for emulator in emulators}
    return {
        name: reason
        for name, spec in clients.items()
        for attachment in spec.attachments
        if f"{name}.{attachment.name}" in ids and not FRONTENDS[attachment.frontend].reconnects
    }
