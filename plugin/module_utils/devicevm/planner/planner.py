"""The planner: what is declared, what hosts have and what the VMM runs, made into a plan. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..domain import DomainSpec, ObservedDomain, Role
from ..inventory.host import Host
from ..inventory.supports import LIVE_DEVICES
from ..manifest.topology import Client, Topology
from .changes import Changes
from .grouping import Unit, group
from .placement import Placement, components_of, kept_device_vms
from .plan import Plan, Unplaced
from .requests import Want, wants_of
from .specify import state_digest


@dataclass(frozen=True)
class Intent:
    """What the user wants beyond what is declared.

    `owner` names the manifest set. `remove` are clients to remove though nothing says so in the
    manifests; `prune` removes every client of the owner's that is not declared. `delete_data`
    deletes the backing storage of what is removed, too.
    """

    owner: str
    prune: bool = False
    remove: frozenset[str] = frozenset()
    delete_data: bool = False


def make_plan(
    topology: Topology, hosts: tuple[Host, ...], observed: tuple[ObservedDomain, ...], intent: Intent
) -> Plan:
    """The steps that make the VMM have what is declared, and nothing else of this owner's.

    Clients of the owner that are not declared stay, unless `intent` says otherwise; other
    owners' domains are never in a step. What cannot be placed is in `unplaced`, with reasons.
    """
    mine = {domain.name: domain for domain in observed if domain.owner == intent.owner}
    specs = {name: domain.spec for name, domain in mine.items() if domain.spec}
    declared = {client.name for client in topology.clients}
    undeclared = [domain for domain in mine.values() if domain.role is Role.CLIENT and domain.name not in declared]
    doomed = [domain for domain in undeclared if intent.prune or domain.name in intent.remove]
    kept = [domain.spec for domain in undeclared if domain not in doomed and domain.spec]

    clashes = _clashes(topology.clients, hosts, mine)
    clients = tuple(client for client in topology.clients if client.name not in {clash.client for clash in clashes})
    wants = [want for want in wants_of(topology) if want.client in clients]
    units = _units(topology, clients, wants, specs, kept, hosts, mine)

    placement = Placement(hosts, {policy.name: policy for policy in topology.hosts}, intent.owner, specs)
    placement.book_what_stays(kept, units, clients)
    desired, allocations, unplaced, warnings = [], [], list(clashes), []
    by_client = _by_client(wants)
    for component in components_of(clients, units):
        placed = placement.place(component, by_client)
        desired += placed.domains
        allocations += placed.allocations
        warnings += placed.warnings
        if placed.refusals or not placed.domains:
            unplaced += _unplaced(component.clients, by_client, placed.refusals)
    desired += kept_device_vms(units)
    warnings += [f"{domain.name} is left as it is: {domain.broken}" for domain in undeclared if domain.broken]
    warnings += [
        f"{domain.name} was changed while it runs, until it is restarted: {'; '.join(domain.live_drift)}"
        for domain in mine.values()
        if domain.live_drift
    ]

    changes = Changes(mine, _live(hosts), intent.delete_data)
    unplaced_clients = {item.client for item in unplaced}
    wanted = {spec.name for spec in desired} | {unit.name for unit in units if unit.clients & unplaced_clients}
    doomed += [domain for domain in mine.values() if domain.role is Role.DEVICE_VM and domain.name not in wanted]
    changes.work_out(sorted(desired, key=lambda spec: spec.name), sorted(doomed, key=lambda domain: domain.name))
    return Plan(
        owner=intent.owner,
        made_from=state_digest(hosts, observed),
        steps=tuple(changes.steps.values()),
        allocations=tuple(sorted(allocations, key=lambda allocation: allocation.device_vm)),
        unplaced=tuple(sorted(unplaced, key=lambda item: (item.client, item.device))),
        domains=tuple(changes.domains[name] for name in sorted(changes.domains)),
        previous=tuple(changes.previous[name] for name in sorted(changes.previous)),
        warnings=tuple(warnings),
    )


def _units(
    topology: Topology,
    clients: tuple[Client, ...],
    wants: list[Want],
    specs: dict[str, DomainSpec],
    kept: list[DomainSpec],
    hosts: tuple[Host, ...],
    mine: dict[str, ObservedDomain],
) -> list[Unit]:
    foreign = {holding.domain for host in hosts for holding in host.holdings} - mine.keys()
    names = {client.name for client in clients} | {spec.name for spec in kept}
    device_vms = {name: spec for name, spec in specs.items() if spec.role is Role.DEVICE_VM}
    return group(
        tuple(wants),
        topology.device_vms,
        device_vms,
        frozenset(spec.name for spec in kept),
        frozenset(foreign | names),
        _live(hosts),
    )


def _clashes(clients: tuple[Client, ...], hosts: tuple[Host, ...], mine: dict[str, ObservedDomain]) -> list[Unplaced]:
    """The clients whose name a domain of somebody else's has: nothing of another's is ever touched."""
    owners = {holding.domain: holding.owner for host in hosts for holding in host.holdings}
    result = []
    for client in clients:
        if client.name in owners and client.name not in mine:
            owner = owners[client.name]
            whose = f"owner {owner}'s" if owner else "not devicevm's"
            result.append(Unplaced(client.name, "", (f"a domain of this name is there already and is {whose}",)))
    return result


def _unplaced(
    clients: list[Client], wants: dict[str, list[Want]], refusals: dict[str, tuple[str, ...]]
) -> list[Unplaced]:
    reasons = tuple(f"{host}: {reason}" for host, why in sorted(refusals.items()) for reason in why)
    reasons = reasons or ("no host is there that it may go to",)
    result = []
    for client in clients:
        devices = [want.device.name for want in wants.get(client.name, [])] or [""]
        result += [Unplaced(client.name, device, reasons) for device in devices]
    return result


def _by_client(wants: list[Want]) -> dict[str, list[Want]]:
    result: dict[str, list[Want]] = {}
    for want in wants:
        result.setdefault(want.client.name, []).append(want)
    return result


def _live(hosts: tuple[Host, ...]) -> bool:
    return bool(hosts) and all(LIVE_DEVICES in host.vmm.supports for host in hosts)
