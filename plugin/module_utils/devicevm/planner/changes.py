"""The steps from what the VMM has to what is wanted, with what running clients feel of each.

A step is idempotent, and an interrupted apply leaves nothing that the next plan does not see: a
definition is written before it is acted on, and the live mark after, so a domain whose two
differ is one in the middle of a change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ..domain import Attachment, DomainSpec, Emulator, ObservedDomain, Role
from ..frontend.registry import FRONTENDS
from ..manifest.topology import Consumer, Start
from .consumers import plugged
from .difference import (
    compare_emulators,
    describe_cpus,
    describe_pins,
    describe_services,
    difference,
    repinned,
    served,
)
from .holders import Holders, in_order_of_release
from .outage import LOST, Outages
from .parts import with_parts
from .plan import Action, Effect, Phase, Step, Subject, step_id
from .storage import Identity, Users, describe_store, identity, may_delete, uses

_LETTING_GO = (Action.STOP, Action.UNDEFINE, Action.DETACH, Action.ATTACH)
"""How a client leaves its device VMs; an existing domain that gets nothing more, by getting what is left."""
_SUBJECT = {Role.DEVICE_VM: Subject.DEVICE_VM, Role.CLIENT: Subject.CLIENT}


@dataclass
class Changes:
    """The steps so far, by id, and what they need: the new specifications and the old ones.

    `uses` tells who has which store, other owners too: what they have is in use, whatever goes here. `kept` are the
    clients that stay as they are: what does not run of them is not started.
    """

    observed: dict[str, ObservedDomain]
    live: bool
    owner: str
    uses: dict[Identity, Users] = field(default_factory=dict)
    delete_data: bool = False
    retain: frozenset[Identity] = frozenset()
    kept: frozenset[str] = frozenset()
    awake: frozenset[tuple[str, str]] = frozenset()
    """The domains that run, anybody's: their hosts and UUIDs."""
    steps: dict[str, Step] = field(default_factory=dict)
    domains: dict[str, DomainSpec] = field(default_factory=dict)
    previous: dict[str, DomainSpec] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    restarts: dict[str, str] = field(default_factory=dict)
    """The running clients that must be restarted, and why."""
    replugs: dict[str, str] = field(default_factory=dict)
    """The running existing domains whose devices must be taken out and put in again, and why."""

    @cached_property
    def outages(self) -> Outages:
        """What runs now, and who feels it when that changes."""
        return Outages(self.observed, self.live)

    @cached_property
    def holders(self) -> Holders:
        """Which device VMs hold what now."""
        return Holders(self.observed)

    def work_out(self, desired: list[DomainSpec], doomed: list[ObservedDomain]) -> None:
        """Fill in the steps.

        Clients let go; device VMs let go of what others take over, then take it over; clients come
        back on top; then the rest goes, and data last: what fails on the way can still go back.
        """
        device_vms = [spec for spec in desired if spec.role is Role.DEVICE_VM]
        # Nothing is done for the VMM and the host themselves: their device VMs and channels are there.
        clients = [spec for spec in desired if spec.role is Role.CLIENT and spec.consumer is Consumer.VM]
        existing = [spec for spec in desired if spec.consumer is Consumer.EXISTING]
        gone = [domain for domain in sorted(doomed, key=lambda one: one.name) if domain.role is Role.DEVICE_VM]
        changed = [spec for spec in device_vms if not self._stands(spec)]
        self.restarts = self._restarts(device_vms, clients)
        self.replugs = self.outages.cut_off(device_vms, plugged(existing)) if self.live else {}
        self._take_out(existing, doomed)
        for domain in sorted(doomed, key=lambda one: one.name):
            if domain.role is Role.CLIENT and domain.consumer is Consumer.VM:
                self._forget(
                    domain, "it is no longer declared", self._stop_gone(domain, "it is no longer declared", ())
                )
        for spec in clients:
            if spec.name in self.restarts:
                reason = self.restarts[spec.name]
                effect = Effect.REPLACE if self._moves(spec) else Effect.RESTART
                self._step(Action.STOP, spec, Phase.CONNECT, reason, effect=effect, affects=(spec.name,))
        for domain in gone:
            self._stop_gone(domain, "nothing needs it any more", self._let_go(domain))
        names = {spec.name for spec in desired if spec.role is Role.CLIENT} - self.kept
        for spec in in_order_of_release(changed, self.holders):
            if self._rests(spec, names):
                self._put_right(spec, Phase.REQUEST)
            else:
                self._device_vm(spec)
        for spec in clients:
            if spec.name in self.restarts or not self._stands(spec):
                self._client(spec)
        for spec in existing:
            self._attach(spec)
        begun = tuple(key for key, step in self.steps.items() if step.action in (Action.START, Action.UPDATE))
        for domain in gone:
            stopped = self._known(Action.STOP, Subject.DEVICE_VM, domain.name)
            # A device VM that others take over from is kept until they are seen to work.
            heirs = begun if self._heirs(domain, device_vms) else ()
            self._forget(domain, "nothing needs it any more", (*stopped, *self._let_go(domain), *heirs))
        self._delete_stores([*desired, *self._unchanged(desired, doomed)])
        self.steps = with_parts(self.steps, device_vms, self.observed)

    def _unchanged(self, desired: list[DomainSpec], doomed: list[ObservedDomain]) -> list[DomainSpec]:
        """What is there, is not to go, and is not declared to be anything."""
        spoken_of = {spec.name for spec in desired}.union(domain.name for domain in doomed)
        return [one.spec for name, one in self.observed.items() if one.spec and name not in spoken_of]

    def _stands(self, spec: DomainSpec) -> bool:
        """Whether a domain runs as it is to be, and nothing is wrong with it: no step is for it."""
        domain = self.observed.get(spec.name)
        return (
            domain is not None
            and domain.spec is spec
            and domain.active
            and (domain.active_spec is spec or domain.active_spec in (spec, None))
            and domain.ready
            and not (domain.stalled or _wrong(domain))
        )

    def _restarts(self, device_vms: list[DomainSpec], clients: list[DomainSpec]) -> dict[str, str]:
        reasons: dict[str, str] = {}
        for spec in clients:
            running = self.outages.running(spec.name)
            if running is not None and running is not spec and repinned(running, spec) != spec:
                reasons[spec.name] = difference(running, spec)
        return self.outages.cut_off(device_vms, clients) | reasons

    def _feels(self, emulator: Emulator) -> bool:
        """Whether the client of an emulator feels what happens to that; who has an endpoint is not known."""
        if emulator.consumer in (Consumer.HOST, Consumer.VMM):
            return True
        return self.outages.running(emulator.client) is not None and emulator.client not in self.replugs

    def _moves(self, spec: DomainSpec) -> bool:
        """Whether a domain that is there is to be on another host."""
        domain = self.observed.get(spec.name)
        return domain is not None and domain.spec is not None and domain.spec.host != spec.host

    def _rests(self, spec: DomainSpec, wanted: set[str]) -> bool:
        """Whether a device VM does not run, and serves only clients that do not run either and are left as they are."""
        domain = self.observed.get(spec.name)
        if domain is None or domain.active or domain.spec is None or domain.spec.emulators != spec.emulators:
            return False
        served_by_it = {emulator.client for emulator in spec.emulators}
        return bool(served_by_it) and not any(name in wanted or self.outages.running(name) for name in served_by_it)

    def _put_right(self, spec: DomainSpec, phase: Phase) -> None:
        """The step that gives what does not run, and is not to, a definition with other processors, if it needs one."""
        old = self.observed[spec.name].spec
        if old is not None and old.placement != spec.placement:
            pins = describe_pins(old, spec)
            reason = f"it does not run, and is to take nobody's processors: when it is started, {pins}"
            self._step(Action.DEFINE, spec, phase, reason)

    def _device_vm(self, spec: DomainSpec) -> None:
        domain = self.observed.get(spec.name)
        running = self.outages.running(spec.name)
        if domain is not None and running is not None and self.outages.can_change_live(running, spec):
            self._change_live(spec, running, domain)
            return
        released = self._released_for(spec)
        reason = f"it serves {served(spec)}" if domain is None else difference(running or domain.spec, spec)
        after = self._stores(spec.emulators) + released
        felt = tuple(sorted({emulator.client for emulator in spec.emulators if self._feels(emulator)}))
        if domain is not None and domain.active:
            effect = self.outages.effect(spec, felt)
            after += (self._step(Action.STOP, spec, Phase.CONFIGURE, reason, after=after, effect=effect, affects=felt),)
            self._warn_of_loss(spec.emulators, running)
            felt = ()
        after += self._definition(spec, Phase.REQUEST, reason, after)
        if self._waits(spec):
            return
        # Of one that has died by itself, its clients feel the end of the outage, but for those that are restarted.
        outages = self.outages
        back = {name for name in felt if outages.running(name) or outages.waits(name, spec.name)}
        felt = tuple(name for name in felt if name in back and name not in self.restarts)
        reason = f"it runs the emulation code of {served(spec)}"
        effect = self.outages.effect(spec, felt)
        self._step(Action.START, spec, Phase.CONFIGURE, reason, after=after, effect=effect, affects=felt)

    def _waits(self, spec: DomainSpec) -> bool:
        """Whether a device VM is not to be started now: it comes up with its clients, and none of them runs."""
        return spec.start is Start.REQUEST and not any(self.outages.running(one.client) for one in spec.emulators)

    def _change_live(self, spec: DomainSpec, running: DomainSpec, domain: ObservedDomain) -> None:
        resumed = self._resumption(spec, running) if domain.stalled else ()
        if running is spec or running == spec:
            after = resumed + self._definition(spec, Phase.REQUEST, "its definition is an older one", ())
            if not domain.ready:
                reason = "it runs, but its emulation code has not been seen to answer"
                self._step(Action.START, spec, Phase.CONFIGURE, reason, after=after)
            return
        changes = compare_emulators(running, spec)
        after = resumed + self._stores((*changes.added, *changes.changed)) + self._released_for(spec)
        self._warn_of_loss(changes.changed, running)
        reasons = (str(changes), describe_services(running, spec), describe_pins(running, spec))
        reason = "; ".join(filter(None, reasons)) or difference(running, spec)
        # Those whose front ends do not come back by themselves are restarted: the others see their devices go and come.
        clients = {emulator.client for emulator in changes.changed if self.outages.running(emulator.client)}
        felt = tuple(sorted(clients - self.restarts.keys() - self.replugs.keys()))
        effect = Effect.RECONNECT if felt else Effect.LIVE
        self._step(Action.UPDATE, spec, Phase.CONFIGURE, reason, after=after, effect=effect, affects=felt)

    def _resumption(self, spec: DomainSpec, running: DomainSpec) -> tuple[str, ...]:
        """The step that lets a device VM go on which its VMM has paused: nobody in it answers before."""
        felt = tuple(sorted({emulator.client for emulator in running.emulators if self._feels(emulator)}))
        reason = "its VMM has paused it, since a disk of its failed"
        return (self._step(Action.RESUME, spec, Phase.CONFIGURE, reason, effect=Effect.LIVE, affects=felt),)

    def _warn_of_loss(self, emulators: tuple[Emulator, ...], running: DomainSpec | None) -> None:
        """Tell whose content is lost: what has no store lives in the memory of the device VM that goes."""
        before = {emulator.id for emulator in running.emulators} if running else set()
        self.warnings += [
            f"{emulator.client}/{emulator.name} has no store: what is on it is lost"
            for emulator in emulators
            if emulator.id in before and emulator.size and not emulator.store
        ]

    def _released_for(self, spec: DomainSpec) -> tuple[str, ...]:
        """The steps by which a device VM's emulators, their stores and its clients are let go of before it changes."""
        steps: list[str] = []
        served_now = self.observed[spec.name].spec if spec.name in self.observed else None
        clients = {emulator.client for emulator in (*spec.emulators, *(served_now.emulators if served_now else ()))}
        for name in sorted(clients):
            steps += [key for action in _LETTING_GO for key in self._known(action, Subject.CLIENT, name)]
        return (*steps, *self._handed_over(spec))

    def _handed_over(self, spec: DomainSpec) -> tuple[str, ...]:
        """The steps by which others let go of what a domain is to have."""
        holders = [(name, _SUBJECT[self.observed[name].role]) for name in sorted(self.holders.before(spec))]
        actions = (Action.STOP, Action.UPDATE)
        return tuple(key for name, kind in holders for action in actions for key in self._known(action, kind, name))

    def _let_go(self, domain: ObservedDomain) -> tuple[str, ...]:
        """The steps by which the clients of a device VM that goes let go of it."""
        clients = sorted({emulator.client for emulator in domain.spec.emulators}) if domain.spec else []
        return tuple(
            key for name in clients for action in _LETTING_GO for key in self._known(action, Subject.CLIENT, name)
        )

    def _heirs(self, domain: ObservedDomain, device_vms: list[DomainSpec]) -> bool:
        """Whether another device VM takes over something of one that goes; also tells what is lost thereby."""
        if domain.spec is None:
            return False
        mine = {emulator.id for emulator in domain.spec.emulators}
        moved = tuple(emulator for spec in device_vms for emulator in spec.emulators if emulator.id in mine)
        self._warn_of_loss(moved, domain.spec)
        return bool(moved)

    def _known(self, action: Action, kind: Subject, name: str) -> tuple[str, ...]:
        key = step_id(action, kind, name)
        return (key,) if key in self.steps else ()

    def _client(self, spec: DomainSpec) -> None:
        domain = self.observed.get(spec.name)
        running = self.outages.running(spec.name)
        if spec.name in self.kept and running is None:
            self._put_right(spec, Phase.CONNECT)
            return
        stopped = self._known(Action.STOP, Subject.CLIENT, spec.name)
        released = stopped + self._handed_over(spec)
        if domain is None:
            reason = f"it is declared, on CPU {described}" if (described := describe_cpus(spec)) else "it is declared"
        else:
            reason = difference(domain.spec, spec)
        if running is not None and running != spec and not stopped:
            reason = describe_pins(running, spec) or difference(running, spec)
            self._step(Action.UPDATE, spec, Phase.CONNECT, reason, effect=Effect.LIVE, affects=(spec.name,))
        elif domain is not None and domain.stalled and not stopped:
            reason = "a disk of its did not answer, or had no room"
            self._step(
                Action.RESUME,
                spec,
                Phase.CONNECT,
                reason,
                after=self._made(spec),
                effect=Effect.LIVE,
                affects=(spec.name,),
            )
        if running is not None and running != spec and not stopped:
            return
        after = self._definition(spec, Phase.CONNECT, reason, released)
        if stopped or (running is None and spec.start is Start.APPLY):
            after += self._made(spec) + released
            reason = self.restarts.get(spec.name, "it is declared to run")
            self._step(Action.START, spec, Phase.CONNECT, reason, after=after)

    def _take_out(self, existing: list[DomainSpec], doomed: list[ObservedDomain]) -> None:
        """Take devices out of existing domains: for good, and where they are put in again later."""
        for domain in sorted(doomed, key=lambda one: one.name):
            if domain.consumer is Consumer.EXISTING and domain.spec:
                effect = self._plugging(domain.spec, domain.spec.attachments)
                self._on_existing(Action.DETACH, domain.spec, Phase.RELEASE, "it is no longer declared", effect)
        for spec in existing:
            observed = self.observed.get(spec.name)
            there = observed.spec if observed else None
            if there is None:
                continue
            if there.uuid != spec.uuid:
                reason = f"its devices go to domain {spec.domain}"
                effect = self._plugging(there, there.attachments)
                self._on_existing(Action.DETACH, there, Phase.CONNECT, reason, effect)
            elif spec.name in self.replugs:
                self._on_existing(Action.DETACH, there, Phase.CONNECT, self.replugs[spec.name], Effect.RECONNECT)
                self.warnings.append(
                    f"the devices of {spec.name} are taken out of domain {there.domain} while it runs, and put in "
                    "again: what is mounted from its disks has to be unmounted before"
                )
            elif set(spec.attachments) < set(there.attachments):
                self._attach(spec)  # now: its device VMs let go of what it loses only then

    def _attach(self, spec: DomainSpec) -> None:
        """Existing domains are never stopped: what cannot be plugged in waits until their users start them again."""
        domain = self.observed.get(spec.name)
        out = self._known(Action.DETACH, Subject.CLIENT, spec.name)
        there = domain.spec if domain and domain.spec and domain.spec.uuid == spec.uuid else None
        running = self.outages.running(spec.name) if there and self.live else None
        wrong = _wrong(domain) if domain else ()
        if spec.name in self.outages.lost:
            self.warnings.append(f"domain {spec.domain} stays paused until it is stopped and started again: {LOST}")
            return
        if domain and domain.stalled and not out:
            reason = "a disk of its did not answer, or had no room"
            after = self._made(spec)
            affects = (spec.name,)
            self._step(Action.RESUME, spec, Phase.CONNECT, reason, after=after, effect=Effect.LIVE, affects=affects)
        if self._known(Action.ATTACH, Subject.CLIENT, spec.name) or (
            there == spec and running in (spec, None) and not (wrong or out)
        ):
            return
        has = {one.name: one for one in (running or there).attachments} if there else {}
        again = {one.name for one in spec.attachments if out and FRONTENDS[one.frontend].live}
        new = tuple(one for one in spec.attachments if has.pop(one.name, None) != one or one.name in again)
        after = (*self._made(spec), *out)
        reasons = [f"domain {spec.domain} gets {', '.join(one.name for one in new)}"] if new else []
        reasons += [f"domain {spec.domain} loses {', '.join(has)}"] if has else []
        reason = "; ".join([*wrong, *reasons]) or "what is said of it is an older one"
        effect = self._plugging(spec, (*new, *has.values()))
        self._on_existing(Action.ATTACH, spec, Phase.CONNECT, reason, effect, after)

    def _plugging(self, spec: DomainSpec, attachments: tuple[Attachment, ...]) -> Effect:
        """What an existing domain feels when these devices are put in or taken out; tells of those that cannot be."""
        if (spec.host, spec.uuid) not in self.awake:
            return Effect.NONE
        waiting = [one.name for one in attachments if not (self.live and FRONTENDS[one.frontend].live)]
        if waiting:
            self.warnings.append(
                f"domain {spec.domain} runs, and has {', '.join(waiting)} of {spec.name} as it is now until it is shut "
                "down and started again: that is for its user to do"
            )
        return Effect.RESTART if waiting else Effect.LIVE

    def _on_existing(
        self, action: Action, spec: DomainSpec, phase: Phase, reason: str, effect: Effect, after: tuple[str, ...] = ()
    ) -> None:
        key = step_id(action, Subject.CLIENT, spec.name)
        affects = () if effect is Effect.NONE else (spec.name,)
        self.steps[key] = Step(key, action, Subject.CLIENT, spec.name, phase, effect, reason, after, affects)
        if action is Action.ATTACH:
            self.domains[spec.name] = spec
        domain = self.observed.get(spec.name)
        if domain and domain.spec:
            self.previous[spec.name] = domain.spec

    def _made(self, client: DomainSpec) -> tuple[str, ...]:
        """The steps after which all device VMs of a client run as they are to."""
        uses = sorted({attachment.device_vm for attachment in client.attachments})
        actions = (Action.RESUME, Action.START, Action.UPDATE)
        made = [step_id(action, Subject.DEVICE_VM, name) for name in uses for action in actions]
        return tuple(key for key in made if key in self.steps)

    def _definition(self, spec: DomainSpec, phase: Phase, reason: str, after: tuple[str, ...]) -> tuple[str, ...]:
        """The step that defines a domain, when its definition is not what it is to be."""
        domain = self.observed.get(spec.name)
        wrong = _wrong(domain) if domain else ()
        if domain is not None and not wrong and (domain.spec is spec or domain.spec == spec):
            return ()
        return (self._step(Action.DEFINE, spec, phase, "; ".join(wrong) or reason, after=after),)

    def _stop_gone(self, domain: ObservedDomain, reason: str, after: tuple[str, ...]) -> tuple[str, ...]:
        """The step that stops a domain that is not wanted any more, when it runs."""
        return (self._release(Action.STOP, domain, reason, after),) if domain.active else ()

    def _forget(self, domain: ObservedDomain, reason: str, after: tuple[str, ...]) -> None:
        self._release(Action.UNDEFINE, domain, reason, after)
        if domain.spec:
            self.previous[domain.name] = domain.spec

    def _release(self, action: Action, domain: ObservedDomain, reason: str, after: tuple[str, ...]) -> str:
        kind = _SUBJECT[domain.role]
        key = step_id(action, kind, domain.name)
        affects = (domain.name,) if domain.role is Role.CLIENT else ()
        effect = Effect.REMOVE if affects else Effect.NONE
        self.steps[key] = Step(
            key, action, kind, domain.name, Phase.RELEASE, effect, reason, tuple(dict.fromkeys(after)), affects
        )
        return key

    def _stores(self, emulators: tuple[Emulator, ...]) -> tuple[str, ...]:
        """The steps that see to it that backing storage is there."""
        reason = "it is created where it is missing, and kept where it is there"
        return tuple(
            self._store(Action.CREATE, emulator, Phase.REQUEST, reason, ())
            for emulator in emulators
            if emulator.store and not emulator.store.read_only
        )

    def _delete_stores(self, staying: list[DomainSpec]) -> None:
        """Delete, last of all, the storage of devices that are gone, unless anybody else uses it."""
        if not self.delete_data:
            return
        wanted = uses(staying)
        everything = tuple(self.steps)
        emulators = [
            (one, domain.spec.host) for domain in self.observed.values() if domain.spec for one in domain.spec.emulators
        ]
        for emulator, host in sorted(emulators, key=lambda one: one[0].id):
            store = emulator.store
            if store is None or not may_delete(store) or identity(store) in self.retain:
                continue
            # Of the owner's own, what is to be counts; of others', what is there.
            there = self.uses.get(identity(store), Users()).beside(reads=False)
            users = wanted.get(identity(store), Users()).beside(reads=False)
            users += [use for use in there if use.owner != self.owner]
            users = [use for use in users if use.host == host]
            if any(use.device == f"{emulator.client}/{emulator.name}" for use in users):
                continue
            if users:
                whom = ", ".join(sorted({use.device for use in users}))
                self.warnings.append(f"{describe_store(store)} is not deleted: {whom} has it too")
            else:
                self._store(Action.DELETE, emulator, Phase.RELEASE, "its data is to be deleted", everything)

    def _store(self, action: Action, emulator: Emulator, phase: Phase, reason: str, after: tuple[str, ...]) -> str:
        name = f"{emulator.client}/{emulator.name}"
        key = step_id(action, Subject.STORE, name)
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
        key = step_id(action, kind, spec.name)
        self.steps[key] = Step(
            key, action, kind, spec.name, phase, effect, reason, tuple(dict.fromkeys(after)), affects
        )
        return key


def _wrong(domain: ObservedDomain) -> tuple[str, ...]:
    """What is wrong with a definition though its specification may be right."""
    return domain.drift or ((domain.broken,) if domain.broken else ())
