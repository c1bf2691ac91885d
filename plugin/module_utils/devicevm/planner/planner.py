"""The planner: what is declared, what hosts have and what the VMM runs, made into a plan. Pure."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..domain import DomainSpec, ObservedDomain, Role
from ..inventory.host import Host
from ..inventory.supports import LIVE_DEVICES
from ..manifest.topology import Client, HostPolicy, Topology
from . import naming
from .affinity import Neighbours
from .arrange import Known, arrange
from .book import Book
from .changes import Changes
from .component import components_of
from .felt import with_felt
from .floating import Move, add_steps, confined, moves, unconfined
from .grouping import Unit, group
from .placement import Placement, kept_device_vms
from .plan import Allocation, Plan, Rebalance, Step, Unplaced
from .rebalance import HINTED, Measure, differs, fewest, freedom, measure, moves_to_try, told
from .requests import Want, wants_of
from .specify import state_digest
from .storage import describe_store, identity, stores_of_others
from .trust import crossings, trusts_of


@dataclass(frozen=True)
class Intent:
    """What the user wants beyond what is declared.

    `owner` names the manifest set. `remove` are clients to remove though nothing says so in the
    manifests; `prune` removes every client of the owner's that is not declared. `delete_data`
    deletes the backing storage of what is removed, too. `rebalance` moves what runs where that is better
    (rebalance.py); without it what runs stays.
    """

    owner: str
    prune: bool = False
    remove: frozenset[str] = frozenset()
    delete_data: bool = False
    rebalance: bool = False


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Python's collector of circles kept from running: a plan makes none, and looking at all of a large fleet's records
    again and again takes longer than planning."""
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # What was made is as old as the rest from now on, or the collector would look at all of it at once.
            gc.freeze()
            gc.unfreeze()
        if ran:
            gc.enable()


@_collector_at_rest()
def make_plan(
    topology: Topology, hosts: tuple[Host, ...], observed: tuple[ObservedDomain, ...], intent: Intent
) -> Plan:
    """The steps that make the VMM have what is declared, and nothing else of this owner's.

    Clients of the owner that are not declared stay, unless `intent` says otherwise; other
    owners' domains are never in a step. What cannot be placed is in `unplaced`, with reasons, and if
    it is there already it stays as it is.
    """
    view = _View(hosts, observed, intent)
    settled = _settle(topology, view)
    chosen = _rebalance(topology, view, settled) if intent.rebalance else settled
    draft = chosen.draft
    unplaced = chosen.unplaced if intent.rebalance else _with_ways_out(topology, view, chosen)
    changes = _changes(view, draft)
    steps = _steps(changes, draft)
    return Plan(
        owner=intent.owner,
        made_from=state_digest(hosts, observed),
        steps=steps,
        allocations=tuple(sorted(draft.allocations, key=lambda allocation: allocation.device_vm)),
        unplaced=tuple(sorted(unplaced, key=lambda item: (item.client, item.device))),
        domains=tuple(changes.domains[name] for name in sorted(changes.domains)),
        previous=tuple(changes.previous[name] for name in sorted(changes.previous)),
        warnings=(*view.warnings(), *draft.warnings, *changes.warnings),
        rebalance=_told(topology, settled, chosen, view, steps) if intent.rebalance else None,
    )


def _changes(view: _View, draft: _Draft) -> Changes:
    intent = view.intent
    changes = Changes(view.mine, view.live, stores_of_others(view.observed, intent.owner), intent.delete_data)
    changes.work_out(sorted(draft.desired, key=lambda spec: spec.name), draft.doomed)
    return changes


def _steps(changes: Changes, draft: _Draft) -> tuple[Step, ...]:
    steps = add_steps(changes.steps, draft.moves, draft.desired)
    return with_felt(steps, changes.domains, frozenset(changes.restarts), changes.reconnects)


class _View:
    """What a plan is made from besides what is declared: the hosts, and what is on them.

    `origin`: the view of what is really there, when this one is of what would be.
    """

    def __init__(
        self,
        hosts: tuple[Host, ...],
        observed: tuple[ObservedDomain, ...],
        intent: Intent,
        origin: _View | None = None,
    ) -> None:
        self.hosts, self.observed, self.intent = hosts, observed, intent
        self.origin = origin or self
        self.mine = {domain.name: domain for domain in observed if domain.owner == intent.owner}
        self.specs = {name: unconfined(domain.spec) for name, domain in self.mine.items() if domain.spec}
        self.live = bool(hosts) and all(LIVE_DEVICES in host.vmm.supports for host in hosts)
        holdings = [holding for host in hosts for holding in host.holdings]
        self.owners = {holding.domain: holding.owner for holding in holdings if holding.domain not in self.mine}
        self.uuids = {holding.uuid: holding.domain for holding in holdings}

    @cached_property
    def running(self) -> dict[str, DomainSpec]:
        """The owner's domains that run."""
        return {name: spec for name, spec in self.specs.items() if self.mine[name].active}

    def after(self, draft: _Draft) -> _View:
        """What there is once a draft is carried out."""
        gone = {one.name for one in draft.doomed}
        mine = {
            name: one
            for name, one in self.mine.items()
            if name not in gone and (one.role is Role.CLIENT or not one.spec)
        }
        for spec in draft.desired:
            mine[spec.name] = ObservedDomain(spec.name, spec.uuid, spec.owner, spec.role, True, spec, spec)
        hosts = tuple(
            replace(host, holdings=tuple(one for one in host.holdings if one.domain not in self.mine))
            for host in self.hosts
        )
        others = [one for one in self.observed if one.name not in self.mine]
        there = tuple(sorted([*mine.values(), *others], key=lambda one: one.name))
        return _View(hosts, there, self.intent, self.origin)

    def undeclared(self, topology: Topology) -> list[ObservedDomain]:
        """The owner's clients that the manifests do not speak of."""
        declared = {client.name for client in topology.clients}
        return [one for one in self.mine.values() if one.role is Role.CLIENT and one.name not in declared]

    def why_not_called(self, name: str) -> str:
        """Why a domain of this owner's cannot have that name: nothing of another's is ever touched."""
        if name in self.owners:
            whose = f"owner {self.owners[name]}'s" if self.owners[name] else "not devicevm's"
            return f"a domain of this name is there already and is {whose}"
        holder = self.uuids.get(naming.domain_uuid(self.intent.owner, name), name)
        return f"the domain {holder} has its UUID: rename it back, or undefine it" if holder != name else ""

    def why_no_client(self, name: str) -> str:
        """Why a client of this owner's cannot have that name."""
        if name in self.mine and self.mine[name].role is Role.DEVICE_VM:
            return "a device VM of this owner's has this name"
        return self.why_not_called(name)

    def warnings(self) -> list[str]:
        """What the user should know of domains that are there."""
        texts = [f"{one.name}: {one.broken}" for one in self.mine.values() if one.broken]
        texts += [
            f"{domain.name} was changed while it runs, until it is restarted: {'; '.join(domain.live_drift)}"
            for domain in self.mine.values()
            if domain.live_drift
        ]
        return texts


@dataclass
class _Draft:
    """What is to be there, what is to go, and what could not be had."""

    doomed: list[ObservedDomain]
    units: list[Unit]
    placement: Placement
    kept: list[DomainSpec]
    """Clients that are not declared, or that have no place, as they are."""
    desired: list[DomainSpec] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)
    unplaced: list[Unplaced] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    known: Known = field(default_factory=dict)
    crossings: int = 0
    moves: list[Move] = field(default_factory=list)


@dataclass
class _Settled:
    """A draft in which all that is left has a place, what is left out, and how good that is."""

    draft: _Draft
    unplaced: list[Unplaced]

    @cached_property
    def out(self) -> frozenset[str]:
        """The clients that are left out."""
        return frozenset(item.client for item in self.unplaced)

    @cached_property
    def measure(self) -> Measure:
        """How good it is."""
        draft, placement = self.draft, self.draft.placement
        specs = [*draft.desired, *draft.kept]
        return measure(len(self.out), draft.crossings, specs, draft.units, placement.books, placement.strategy)

    def improves(self, other: _Settled) -> bool:
        """Whether it is better, and leaves nobody out who had a place."""
        return self.measure < other.measure and self.out <= other.out


def _settle(
    topology: Topology, view: _View, moving: frozenset[str] = frozenset(), avoid: frozenset[str] = frozenset()
) -> _Settled:
    """Place what can be placed; what serves the clients `moving` may go elsewhere, but not to the hosts `avoid`."""
    unplaced = _clashes(topology, view)
    known: Known = {}
    while True:
        draft = _draft(topology, view, frozenset(item.client for item in unplaced), moving, avoid, known)
        if not draft.unplaced:
            return _Settled(draft, unplaced)
        # Once more without those: what an existing client has now must not go because it cannot have something else.
        unplaced += draft.unplaced
        known = draft.known


def _rebalance(topology: Topology, view: _View, settled: _Settled) -> _Settled:
    """The best that moving comes to, again and again until nothing is gained; `settled` if nothing is at all."""
    best, state = settled, view
    while True:
        better = _improved(topology, state, best)
        if better is None and state is not view:
            break
        # What is new now is there the next time, and in nobody's way: nothing must be left to gain then.
        best = better or best
        state = view.after(best.draft)
    if best is settled:
        return settled
    wanted = {spec.name for spec in best.draft.desired}
    gone = [one for one in settled.draft.doomed if one.role is Role.CLIENT]
    left = [one for one in view.mine.values() if one.role is Role.DEVICE_VM and one.name not in wanted]
    # Of those that are where they would have been anyhow, the reasons are those of then.
    known = {replace(one, reasons=()): one for one in settled.draft.allocations}
    allocations = [known.get(replace(one, reasons=()), one) for one in best.draft.allocations]
    return _Settled(replace(best.draft, doomed=[*gone, *left], allocations=allocations), best.unplaced)


def _improved(topology: Topology, view: _View, now: _Settled) -> _Settled | None:
    """Something better than `now`, with as few moves as it takes."""
    found = _first_improvement(topology, view, now)
    return _with_fewest_moves(topology, view, *found, now) if found else None


def _first_improvement(
    topology: Topology, view: _View, now: _Settled
) -> tuple[_Settled, tuple[frozenset[str], frozenset[str]]] | None:
    names = {client.name for client in topology.clients}
    specs = [*now.draft.desired, *now.draft.kept]
    hosts = frozenset(one.name for one in view.hosts)
    for tried in moves_to_try(topology.placement, names, specs, hosts, now.out & view.running.keys()):
        goal = _settle(topology, view, *tried)
        if goal.improves(now):
            return goal, tried
    return None


def _with_ways_out(topology: Topology, view: _View, settled: _Settled) -> list[Unplaced]:
    """What is left out, with what moving would do for it, where something is there that could be moved."""
    if not (settled.out and view.running) or len(topology.clients) > HINTED:
        return settled.unplaced
    found = _first_improvement(topology, view, settled)
    places = {spec.name: spec.host for spec in found[0].draft.desired} if found else {}
    return [
        replace(item, reasons=(*item.reasons, f"--rebalance finds a place for it on {places[item.client]}"))
        if item.client in places
        else item
        for item in settled.unplaced
    ]


def _with_fewest_moves(
    topology: Topology, view: _View, goal: _Settled, tried: tuple[frozenset[str], frozenset[str]], now: _Settled
) -> _Settled:
    moving, avoid = tried
    best = goal

    def enough(some: frozenset[str]) -> bool:
        nonlocal best
        less = _settle(topology, view, some, avoid)
        if less.measure <= goal.measure and less.improves(now):
            best = less
            return True
        return False

    moved = {spec.name: spec for spec in goal.draft.desired if differs(unconfined(spec), view.specs)}
    names = moving & set(moved).union(*({one.client for one in spec.emulators} for spec in moved.values()))
    fewest(sorted(names), sorted(moving - names), enough)
    return best


def _told(topology: Topology, settled: _Settled, chosen: _Settled, view: _View, steps: tuple[Step, ...]) -> Rebalance:
    without = _steps(_changes(view, settled.draft), settled.draft)
    everybody = frozenset(client.name for client in topology.clients)
    held = freedom(components_of(topology.clients, settled.draft.units), everybody, view.running).held
    specs = [unconfined(spec) for spec in chosen.draft.desired]
    return told(settled.measure, chosen.measure, specs, view.specs, steps, without, held)


def _draft(
    topology: Topology,
    view: _View,
    spared: frozenset[str],
    moving: frozenset[str],
    avoid: frozenset[str],
    known: Known,
) -> _Draft:
    """Group and place the devices of all clients; those of `spared` are kept as they are, whatever `intent` says.
    `known` is how the draft before arranged them."""
    intent = view.intent
    declared = topology.clients
    topology = replace(topology, clients=tuple(one for one in declared if one.name not in spared))
    undeclared = view.undeclared(topology)
    gone = [one for one in undeclared if one.name not in spared and (intent.prune or one.name in intent.remove)]
    kept = [view.specs[one.name] for one in undeclared if one not in gone and one.spec]
    wants = wants_of(topology)
    units = _units(topology, wants, view, frozenset(spec.name for spec in kept))
    policies = {policy.name: policy for policy in topology.hosts}
    components = components_of(topology.clients, units)
    free = freedom(components, moving, view.running, avoid)
    places = {
        one.name: one.host for one in view.specs.values() if one.role is Role.CLIENT and one.name not in free.hosts
    }
    near = Neighbours((one for one in declared if one.name not in spared or one.name in places), places)
    placement = Placement(view.hosts, policies, intent.owner, view.specs, topology.placement, near, free)
    trusts = trusts_of(view.observed, units, topology.clients)
    placement.book_what_stays(kept, units, topology.clients, trusts)
    draft = _Draft(gone, units, placement, kept)
    by_client = _by_client(wants)
    arranged = arrange(placement, components, by_client, known)
    draft.known = arranged.known
    for placed in arranged.placed:
        draft.desired += placed.domains
        draft.allocations += placed.allocations
        draft.warnings += placed.warnings
    for component, refused in arranged.refused:
        draft.unplaced += _unplaced(component.clients, by_client, refused.refusals, refused.nearest)
    for client, reason in () if draft.unplaced else near.lonely():
        if client.name not in spared:
            draft.unplaced += _unplaced([client], by_client, {}, (reason,))
    draft.desired += kept_device_vms(units)
    books = placement.books
    draft.desired = [confined(spec, books[spec.host]) if spec.host in books else spec for spec in draft.desired]
    draft.desired += [spec for one in undeclared if one not in gone for spec in _kept_off(one, view, books)]
    mine = frozenset(view.mine)
    draft.moves = [move for name in sorted(books) for move in moves(books[name], intent.owner, mine)]
    crossed = _crossings(draft.desired, view, policies, trusts)
    draft.warnings += crossed
    draft.crossings = len(crossed)
    wanted = {spec.name for spec in draft.desired}
    draft.doomed += [one for one in view.mine.values() if one.role is Role.DEVICE_VM and one.name not in wanted]
    return draft


def _crossings(
    desired: list[DomainSpec], view: _View, policies: dict[str, HostPolicy], trusts: dict[str, frozenset[str]]
) -> list[str]:
    """What the user should know of cores that were shared across trust domains before that was refused."""
    mine = {spec.name for spec in desired}
    others = [one.spec for one in view.observed if one.spec and one.name not in mine and one.owner != view.intent.owner]
    return [
        f"{one} and {other} on {host} share the core of CPU {core} across trust domains: restart one elsewhere with "
        "--rebalance, or declare it with shareAcrossTrustDomains of the Host"
        for host, one, other, core in crossings([*desired, *others], view.hosts, policies, trusts)
    ]


def _kept_off(one: ObservedDomain, view: _View, books: dict[str, Book]) -> list[DomainSpec]:
    """A client that stays as it is, when it must run on other processors all the same: it floats, and may be moved."""
    # Whatever a draft before this one has made of it: what counts is what is there.
    one = view.origin.mine.get(one.name, one)
    if one.spec is None or not one.active or one.active_spec not in (None, one.spec) or one.spec.host not in books:
        return []
    spec = confined(view.specs[one.name], books[one.spec.host])
    return [spec] if spec != one.spec else []


def _units(topology: Topology, wants: tuple[Want, ...], view: _View, kept: frozenset[str]) -> list[Unit]:
    names = {client.name for client in topology.clients} | {
        one.name for one in view.mine.values() if one.role is Role.CLIENT
    }
    device_vms = {name: spec for name, spec in view.specs.items() if spec.role is Role.DEVICE_VM}
    return group(
        wants,
        topology.device_vms,
        device_vms,
        kept,
        lambda name: name not in names and not view.why_not_called(name),
        view.live,
        {class_.name: class_.resources for class_ in topology.classes},
    )


def _clashes(topology: Topology, view: _View) -> list[Unplaced]:
    """The clients whose names or stores are somebody else's."""
    result = [
        Unplaced(client.name, "", (reason,))
        for client in topology.clients
        if (reason := view.why_no_client(client.name))
    ]
    theirs = stores_of_others(view.observed, view.intent.owner)
    for client in topology.clients:
        for device in client.devices:
            store = device.store
            if store and not store.read_only and identity(store) in theirs:
                reason = f"its storage {describe_store(store)} is in use by {theirs[identity(store)]}"
                result.append(Unplaced(client.name, device.name, (reason,)))
    return result


def _unplaced(
    clients: list[Client],
    wants: dict[str, list[Want]],
    refusals: dict[str, tuple[str, ...]],
    nearest: tuple[str, ...],
) -> list[Unplaced]:
    reasons = tuple(f"{host}: {reason}" for host, why in sorted(refusals.items()) for reason in why)
    reasons = (*reasons, *nearest) or ("no host is there that it may go to",)
    result = []
    for client in clients:
        devices = [want.device.name for want in wants.get(client.name, [])] or [""]
        result += [Unplaced(client.name, device, reasons) for device in devices]
    return result


def _by_client(wants: tuple[Want, ...]) -> dict[str, list[Want]]:
    result: dict[str, list[Want]] = {}
    for want in wants:
        result.setdefault(want.client.name, []).append(want)
    return result
