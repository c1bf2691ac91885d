"""Clients and the device VMs that serve them: they go to one host together, since a channel is on one host."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property

from ..manifest.topology import Client
from .grouping import Unit
from .requests import Home
from .resources import CPU_KINDS


@dataclass
class Component:
    """Clients and the units that serve them; what they ask is found out once, when nobody joins any more."""

    clients: list[Client] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is called in reasons: its first client."""
        return self.clients[0].name if self.clients else self.units[0].name

    @property
    def told(self) -> list[tuple[str, str]]:
        """Who is to be on which host, by declaration."""
        found = [(client.name, client.host) for client in self.clients if client.host]
        found += [(unit.name, unit.declared.host) for unit in self.units if unit.declared and unit.declared.host]
        return sorted(set(found)) if found else []

    @property
    def host_labels(self) -> list[tuple[str, str]]:
        """The labels that its host must have."""
        found = [client.host_labels for client in self.clients if client.host_labels]
        found += [unit.declared.host_labels for unit in self.units if unit.declared]
        return sorted({label for labels in found for label in labels.items()}) if found else []

    @cached_property
    def on_request(self) -> str:
        """The first client whose device VMs come up with it, on request or with the host; empty when there is none."""
        return next((client.name for client in self.clients if not client.alone), "")

    @property
    def trust_domains(self) -> set[str]:
        """The trust domains of its clients."""
        return {client.trust_domain for client in self.clients}

    @cached_property
    def homes(self) -> dict[str, Home]:
        """Where each of its devices is emulated, by `client.device`."""
        return {name: home for unit in self.units for name, home in unit.homes().items()}

    @cached_property
    def greedy_first(self) -> list[Unit]:
        """Its device VMs, those first that may want processors or blocks to themselves."""
        return sorted(self.units, key=lambda unit: (not _asks_alone(unit), unit.name))

    @property
    def signature(self) -> Hashable:
        """Equal for components that a host takes or refuses alike, all else being equal."""
        return self.demands[0]

    @cached_property
    def demands(self) -> list[Hashable]:
        """What it asks as a whole, and what each part asks: a host that refuses a part refuses the whole."""
        units, clients = list(map(unit_demand, self.units)), list(map(client_demand, self.clients))
        declared = tuple([id(unit.declared) for unit in self.units])
        places = tuple(
            [(one.trust_domain, one.host, tuple(one.host_labels.items()), one.start) for one in self.clients]
        )
        return [(*units, *clients, declared, places), *units, *clients]


def merged(components: list[Component]) -> Component:
    """Several components as one, for a host that takes all of them."""
    if len(components) == 1:
        return components[0]
    clients = sorted((client for one in components for client in one.clients), key=lambda client: client.name)
    units = sorted((unit for one in components for unit in one.units), key=lambda unit: unit.name)
    return Component(clients, units)


def unit_demand(unit: Unit) -> Hashable:
    """Equal for units that a host takes or refuses alike."""
    # Classes and declarations are the topology's: one object each for as long as a plan is made.
    memory = unit.declared.memory if unit.declared else 0
    trusts = frozenset([want.client.trust_domain for want in unit.wants])
    return "unit", id(unit.resources), memory, unit.memory_needed, unit.size, unit.image, trusts


def client_demand(client: Client) -> Hashable:
    """Equal for clients that a host takes or refuses alike."""
    cpus = (client.cpus.dedicated, *sorted(client.cpus.options.items())) if client.cpus else ()
    return "client", client.vcpus, client.memory, client.boot.guest_image, cpus


def components_of(clients: tuple[Client, ...], units: list[Unit]) -> list[Component]:
    """Clients joined by the units that they share; in order of their first client."""
    leader = {client.name: client.name for client in clients}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    served = [sorted(unit.clients & leader.keys()) for unit in units]
    for names in served:
        for name in names[1:]:
            first, second = sorted((find(names[0]), find(name)))
            leader[second] = first
    found: dict[str, Component] = {}
    for client in clients:
        found.setdefault(find(client.name), Component()).clients.append(client)
    for unit, names in zip(units, served, strict=True):
        if names:
            found[find(names[0])].units.append(unit)
    return [found[name] for name in sorted(found)]


def _asks_alone(unit: Unit) -> bool:
    return any(
        request.kind == "block" or (request.kind in CPU_KINDS and (request.dedicated or request.kind != "thread"))
        for alternative in unit.resources
        for request in alternative
    )
