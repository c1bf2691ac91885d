"""Everything in its place: what runs is booked, what is new arranged, and what is left out has its reasons."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..domain import DomainSpec, ObservedDomain, Role
from ..manifest.topology import Client, HostPolicy, Topology
from .affinity import Bars, Neighbours
from .arrange import Arranged, Known, arrange
from .component import components_of
from .consumers import located
from .difference import repinned
from .floating import Move, confined, moves
from .freedom import Freedom, freedom
from .grouping import Company, Unit, group
from .measure import Measure, measure
from .parting import part
from .placement import Placement, kept_device_vms
from .plan import Allocation, Unplaced
from .requests import Want, wants_of
from .services import parted, shared_across
from .taken import taken
from .trust import Trusts, crossings, trusts_of
from .view import View


@dataclass
class Draft:
    """What is to be there, what is to go, and what could not be had."""

    doomed: list[ObservedDomain]
    units: list[Unit]
    placement: Placement
    kept: list[DomainSpec]
    """Clients that are not declared, or that have no place, as they are."""
    desired: list[DomainSpec] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)
    unplaced: list[Unplaced] = field(default_factory=list)
    parties: dict[str, int] = field(default_factory=dict)
    """Who was to share no device VM with others any more."""
    parted: list[list[str]] = field(default_factory=list)
    """Clients that found no place with those with whom they share device VMs, and are to share none."""
    warnings: list[str] = field(default_factory=list)
    known: Known = field(default_factory=dict)
    crossings: int = 0
    moves: list[Move] = field(default_factory=list)


@dataclass
class Settled:
    """A draft in which all that is left has a place, what is left out, and how good that is."""

    draft: Draft
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

    def improves(self, other: Settled) -> bool:
        """Whether it is better, and leaves nobody out who had a place."""
        return self.measure < other.measure and self.out <= other.out


def settle(
    topology: Topology,
    view: View,
    moving: frozenset[str] = frozenset(),
    avoid: frozenset[str] = frozenset(),
    before: Settled | None = None,
) -> Settled:
    """Place what can be placed; what serves the clients `moving` may go elsewhere, but not to the hosts `avoid`. With
    what was settled `before`, who is there and was left out is not asked again, and who was parted stays so."""
    topology, unplaced = located(topology, view)
    known: Known = {}
    parties: dict[str, int] = {}
    if before is not None:
        unplaced += [item for item in before.unplaced if item.client in view.mine]
        parties |= before.draft.parties
    while True:
        spared = frozenset(item.client for item in unplaced)
        refused, bars = taken(topology, view, spared)
        if refused:
            # Once more: what they have stays theirs, and others may have asked for it.
            unplaced += refused
            continue
        draft = _draft(topology, view, spared, bars, moving, avoid, known, parties)
        if not draft.unplaced and not draft.parted:
            return Settled(draft, unplaced)
        # Once more without those: what an existing client has now must not go because it cannot have something else.
        unplaced += draft.unplaced
        known = draft.known
        for party in draft.parted:
            parties |= dict.fromkeys(party, max(parties.values(), default=0) + 1)


def asked_again(topology: Topology, view: View, settled: Settled) -> Settled:
    """The same once whoever is new and left out has been asked again, now that all the rest has its place: in the
    drafts that left it out, others may have had something else. So it has a place now, or reasons as things are at
    last; of what is there and cannot be changed, they stay."""
    found: dict[tuple[str, str], Unplaced] = {}
    while settled.out:
        again = settle(topology, view.after(settled.draft), before=settled)
        found = {(item.client, item.device): item for item in again.unplaced}
        more = _with(topology, view, settled, again) if again.out < settled.out else None
        if more is None:
            break
        settled = more
    return replace(settled, unplaced=[found.get((item.client, item.device), item) for item in settled.unplaced])


def _with(topology: Topology, view: View, settled: Settled, again: Settled) -> Settled | None:
    """The same with those who have a place when they are asked again; None if that leaves out anybody, or moves what
    runs."""
    if view.intent.rebalance:
        return None
    spared = again.out
    refused, bars = taken(topology, view, spared)
    known, parties = settled.draft.known, again.draft.parties
    draft = None if refused else _draft(topology, view, spared, bars, frozenset(), frozenset(), known, parties)
    if draft is None or draft.unplaced or draft.parted:
        return None
    return Settled(draft, [item for item in settled.unplaced if item.client in spared])


def _draft(
    topology: Topology,
    view: View,
    spared: frozenset[str],
    bars: Bars,
    moving: frozenset[str],
    avoid: frozenset[str],
    known: Known,
    parties: dict[str, int],
) -> Draft:
    """Group and place the devices of all clients; those of `spared` are kept as they are, whatever `intent` says.
    `bars` tells which hosts are not for whom, `known` how the draft before arranged them, `parties` who shares no
    device VM with others any more."""
    intent = view.intent
    declared = topology.clients
    topology = replace(topology, clients=tuple(one for one in declared if one.name not in spared))
    undeclared = view.undeclared(topology)
    leaving = view.leaving(topology) - spared
    gone = [one for one in undeclared if one.name in leaving]
    kept = [view.specs[one.name] for one in undeclared if one.name not in leaving and one.spec]
    served = frozenset(spec.name for spec in kept) | (view.undeclared_outside(topology) - leaving)
    wants = wants_of(topology)
    there = {one.name: one.host for one in view.specs.values() if one.role is Role.CLIENT} | view.outside
    units = _units(topology, wants, view, served, _company(topology, there, moving, parties))
    policies = {policy.name: policy for policy in topology.hosts}
    components = components_of(topology.clients, units)
    free = freedom(components, moving, view.running, avoid)
    near = _neighbours(declared, spared, bars, there, free)
    placement = Placement(
        view.hosts, policies, intent.owner, view.specs, topology.placement, near, free, upgrade=intent.upgrade
    )
    trusts = trusts_of(view.there, intent.owner, units, topology.clients)
    placement.book_what_stays(kept, units, topology.clients, trusts, view.running)
    draft = Draft(gone, units, placement, kept, parties=parties)
    draft.warnings += parted(units) + shared_across(units)
    by_client = _by_client(wants)
    arranged = arrange(placement, components, by_client, known)
    draft.known = arranged.known
    for placed in arranged.placed:
        draft.desired += placed.domains
        draft.allocations += placed.allocations
        draft.warnings += placed.warnings
    _leave_out(draft, arranged, by_client, there)
    for client, reason in () if draft.unplaced or draft.parted else near.lonely():
        if client.name not in spared:
            draft.unplaced += _unplaced(client, by_client, {}, (reason,))
    draft.desired += kept_device_vms(units, placement.stands)
    books = placement.books
    draft.desired = [confined(spec, books[spec.host]) if spec.host in books else spec for spec in draft.desired]
    draft.desired += [spec for one in undeclared if one not in gone for spec in _put_right(one, view, placement)]
    draft.moves = [move for name in sorted(books) for move in moves(books[name], intent.owner, view.made_on[name])]
    crossed = _crossings(draft.desired, view, policies, trusts)
    draft.warnings += crossed
    draft.crossings = len(crossed)
    wanted = {spec.name for spec in draft.desired}
    draft.doomed += [one for one in view.mine.values() if one.role is Role.DEVICE_VM and one.name not in wanted]
    return draft


def _leave_out(draft: Draft, arranged: Arranged, wants: dict[str, list[Want]], there: Container[str]) -> None:
    """Tell of those that found no place who is left out, and who is to be tried again apart from others."""
    for component, refused in arranged.refused:
        parting = part(component, refused, draft.placement, wants, there, draft.parties)
        draft.parted += parting.parties
        for client, why in parting.out:
            draft.unplaced += _unplaced(client, wants, why.refusals, why.nearest)


def _company(
    topology: Topology, there: Mapping[str, str], moving: frozenset[str], parties: Mapping[str, int]
) -> Company:
    """Who may share, with the host of each client of which it is known."""
    places = {one.name: (one.name not in moving and there.get(one.name)) or one.host for one in topology.clients}
    # What may move leaves a host in maintenance, and takes along whoever has joined it.
    resting = frozenset(policy.name for policy in topology.hosts if policy.maintenance and not moving)
    return Company({name: host for name, host in places.items() if host}, parties, resting)


def _neighbours(
    declared: tuple[Client, ...], spared: frozenset[str], bars: Bars, there: Mapping[str, str], free: Freedom
) -> Neighbours:
    """Who is where already, and who may be near whom."""
    places = {name: host for name, host in there.items() if name not in free.hosts}
    return Neighbours((one for one in declared if one.name not in spared or one.name in places), places, bars)


def _crossings(desired: list[DomainSpec], view: View, policies: dict[str, HostPolicy], trusts: Trusts) -> list[str]:
    """What the user should know of cores that were shared across trust domains before that was refused."""
    others = [one.spec for one in view.observed if one.spec and one.owner != view.intent.owner]
    return [
        f"{one} and {other} on {host} share the core of CPU {core} across trust domains: --rebalance parts them where "
        "there is room, and shareAcrossTrustDomains of the Host declares it"
        for host, one, other, core in crossings([*desired, *others], view.hosts, policies, trusts)
    ]


def _put_right(one: ObservedDomain, view: View, placement: Placement) -> list[DomainSpec]:
    """A client that stays as it is, when it is to have other processors all the same: it floats, and may be moved; a
    move was interrupted; or it does not run, and gives way."""
    # Whatever a draft before this one has made of it: what counts is what is there.
    one = view.origin.mine.get(one.name, one)
    if one.spec is None or one.spec.host not in placement.books:
        return []
    spec = view.specs[one.name]
    spec = replace(spec, placement=placement.stands.get(one.name, spec.placement))
    spec = confined(spec, placement.books[spec.host])
    running = (one.active_spec or one.spec) if one.active else one.spec
    if spec == running == one.spec or (one.active and repinned(running, spec) != spec):
        return []
    return [spec]


def _units(
    topology: Topology, wants: tuple[Want, ...], view: View, kept: frozenset[str], company: Company
) -> list[Unit]:
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
        company,
    )


def _unplaced(
    client: Client, wants: dict[str, list[Want]], refusals: dict[str, tuple[str, ...]], nearest: tuple[str, ...]
) -> list[Unplaced]:
    reasons = tuple(f"{host}: {reason}" for host, why in sorted(refusals.items()) for reason in why)
    reasons = (*reasons, *nearest) or ("no host is there that it may go to",)
    devices = [want.device.name for want in wants.get(client.name, [])] or [""]
    return [Unplaced(client.name, device, reasons) for device in devices]


def _by_client(wants: tuple[Want, ...]) -> dict[str, list[Want]]:
    result: dict[str, list[Want]] = {}
    for want in wants:
        result.setdefault(want.client.name, []).append(want)
    return result
