"""What a plan is made from besides what is declared: what the user wants of it, the hosts, and what is on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..domain import DomainSpec, ObservedDomain, Role
from ..inventory.host import Host
from ..inventory.supports import LIVE_DEVICES
from ..manifest.topology import Client, Consumer, Topology
from . import naming
from .floating import unconfined

if TYPE_CHECKING:
    from .draft import Draft


@dataclass(frozen=True)
class Intent:
    """What the user wants beyond what is declared.

    `owner` names the manifest set. `remove` are clients to remove though nothing says so in the
    manifests; `prune` removes every client of the owner's that is not declared. `delete_data`
    deletes the backing storage of what is removed, too. `rebalance` moves what runs where that is better
    (rebalance.py); without it what runs stays. `upgrade` has device VMs boot the newest build of their image
    (rolling.py); without it they keep the one that they have.
    """

    owner: str
    prune: bool = False
    remove: frozenset[str] = frozenset()
    delete_data: bool = False
    rebalance: bool = False
    upgrade: bool = False


class View:
    """What a plan is made from besides what is declared: the hosts, and what is on them.

    `origin`: the view of what is really there, when this one is of what would be.
    """

    def __init__(
        self,
        hosts: tuple[Host, ...],
        observed: tuple[ObservedDomain, ...],
        intent: Intent,
        origin: View | None = None,
    ) -> None:
        self.hosts, self.observed, self.intent = hosts, observed, intent
        self._origin = origin
        self.mine = {domain.name: domain for domain in observed if domain.owner == intent.owner}
        self.specs = {name: unconfined(domain.spec) for name, domain in self.mine.items() if domain.spec}
        self.live = bool(hosts) and all(LIVE_DEVICES in host.vmm.supports for host in hosts)
        self.made = frozenset(name for name, domain in self.mine.items() if domain.consumer is Consumer.VM)
        """The owner's domains: existing ones, in which there are only devices of it, are left out."""
        holdings = [holding for host in hosts for holding in host.holdings]
        self.owners = {holding.domain: holding.owner for holding in holdings if holding.domain not in self.made}
        self.awake = frozenset(holding.uuid for holding in holdings if holding.active)
        """The domains that run, anybody's."""
        self.uuids = {holding.uuid: holding.domain for holding in holdings}

    @property
    def origin(self) -> View:
        """The view of what is really there."""
        return self._origin or self

    @cached_property
    def running(self) -> dict[str, DomainSpec]:
        """The owner's domains that run."""
        return {name: spec for name, spec in self.specs.items() if self.mine[name].active}

    @cached_property
    def outside(self) -> dict[str, str]:
        """The host on which each client is served that is no domain of the owner's, as its device VMs tell."""
        return {
            emulator.client: spec.host
            for spec in self.specs.values()
            for emulator in spec.emulators
            if emulator.consumer is not Consumer.VM
        }

    def after(self, draft: Draft) -> View:
        """What there is once a draft is carried out."""
        gone = {one.name for one in draft.doomed}
        mine = {
            name: one
            for name, one in self.mine.items()
            if name not in gone and (one.role is Role.CLIENT or not one.spec)
        }
        resting = {spec.name for spec in draft.kept if spec.name not in self.running}
        for spec in draft.desired:
            runs = spec.name not in resting
            live = spec if runs else None
            seen = ObservedDomain(spec.name, spec.uuid, spec.owner, spec.role, runs, spec, live, consumer=spec.consumer)
            parts = tuple(emulator.id for emulator in spec.emulators if emulator.part)
            mine[spec.name] = replace(seen, parts=parts) if parts and runs else seen
        hosts = tuple(
            replace(host, holdings=tuple(one for one in host.holdings if one.domain not in self.made))
            for host in self.hosts
        )
        others = [one for one in self.observed if one.name not in self.mine]
        there = tuple(sorted([*mine.values(), *others], key=lambda one: one.name))
        return View(hosts, there, self.intent, self.origin)

    def undeclared(self, topology: Topology) -> list[ObservedDomain]:
        """The owner's clients that the manifests do not speak of."""
        declared = {client.name for client in topology.clients}
        return [one for one in self.mine.values() if one.role is Role.CLIENT and one.name not in declared]

    def undeclared_outside(self, topology: Topology) -> frozenset[str]:
        """The clients of whom only device VMs tell, and that the manifests do not speak of."""
        return frozenset(self.outside.keys() - {client.name for client in topology.clients})

    def leaving(self, topology: Topology) -> frozenset[str]:
        """The clients that are not declared and are to go."""
        names = self.undeclared_outside(topology).union(one.name for one in self.undeclared(topology))
        return names if self.intent.prune else names & self.intent.remove

    def why_not_called(self, name: str) -> str:
        """Why a domain of this owner's cannot have that name: nothing of another's is ever touched."""
        if name in self.owners:
            whose = f"owner {self.owners[name]}'s" if self.owners[name] else "not devicevm's"
            return f"a domain of this name is there already and is {whose}"
        holder = self.uuids.get(naming.domain_uuid(self.intent.owner, name), name)
        return f"the domain {holder} has its UUID: rename it back, or undefine it" if holder != name else ""

    def why_no_client(self, client: Client) -> str:
        """Why a client of this owner's cannot have its name."""
        there = self.mine.get(client.name)
        if there and there.role is Role.DEVICE_VM:
            return "a device VM of this owner's has this name"
        if there and there.consumer is not client.consumer:
            was, wanted = there.consumer.value, client.consumer.value
            return f"a client of this name is there for {was}, not {wanted}: remove that first, or rename this one"
        return self.why_not_called(client.name) if client.vm else ""

    def warnings(self) -> list[str]:
        """What the user should know of domains that are there."""
        texts = [f"{one.name}: {one.broken}" for one in self.mine.values() if one.broken]
        texts += [
            f"{domain.name} was changed while it runs, until it is restarted: {'; '.join(domain.live_drift)}"
            for domain in self.mine.values()
            if domain.live_drift
        ]
        return texts
