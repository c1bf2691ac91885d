"""From paths and options to a plan: on the VMM that is meant, or offline on recorded inventories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..apply.workflow import survey
from ..domain import ObservedDomain
from ..inventory.host import Host
from ..manifest.topology import Topology
from ..planner.plan import Plan
from ..planner.planner import Intent, make_plan
from .documents import read_inventories
from .opening import open_vmm
from .options import Vmm


@dataclass(frozen=True)
class Ground:
    """What plans are made on: the hosts, and what of devicevm's is on them."""

    hosts: tuple[Host, ...]
    observed: tuple[ObservedDomain, ...] = ()

    def plan(self, topology: Topology, intent: Intent) -> Plan:
        """The plan from what is to what is declared."""
        return make_plan(topology, self.hosts, self.observed, intent)

    def plan_anew(self, topology: Topology, intent: Intent) -> Plan:
        """The plan as if nothing of the owner's were there."""
        hosts = tuple(_without(host, intent.owner) for host in self.hosts)
        return make_plan(topology, hosts, (), intent)


def look(vmm: Vmm, topology: Topology, inventories: Sequence[Path] = ()) -> Ground:
    """The VMM's host as it is, or, offline, recorded inventories: on these nothing is observed."""
    if inventories:
        return Ground(read_inventories(inventories))
    with open_vmm(vmm) as driver:
        return Ground(*survey(driver, topology))


def make(topology: Topology, intent: Intent, vmm: Vmm, inventories: Sequence[Path] = ()) -> Plan:
    """The plan. Offline what is declared is planned as if nothing of the owner's were there."""
    ground = look(vmm, topology, inventories)
    return ground.plan_anew(topology, intent) if inventories else ground.plan(topology, intent)


def _without(host: Host, owner: str) -> Host:
    return replace(host, holdings=tuple(holding for holding in host.holdings if holding.owner != owner))
