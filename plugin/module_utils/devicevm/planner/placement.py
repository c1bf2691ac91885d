"""Where device VMs and clients go: hosts, processors and memory, booked once each.

Clients and the device VMs that serve them are placed together, since their channels are on one
host. What runs and still fits is booked first and stays; then the new ones are booked, those
that ask for processors of their own before those that share.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..domain import CpuPlacement, DomainSpec
from ..inventory.cpuset import format_cpuset
from ..inventory.host import Host
from ..inventory.supports import GUESTS
from ..manifest.topology import Client, HostPolicy
from .grouping import Unit
from .ledger import Ledger, cpus_of
from .plan import Allocation
from .requests import Want
from .resources import fit_alternatives, fulfilled
from .specify import image_named, specify_client, specify_device_vm, unit_memory


@dataclass
class Component:
    """Clients and the units that serve them: they go to one host together, or not at all."""

    clients: list[Client] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is called in reasons: its first client."""
        return self.clients[0].name if self.clients else self.units[0].name


@dataclass
class Placed:
    """What came of placing a component: its domains, or for each host why not."""

    domains: list[DomainSpec] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)
    refusals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def components_of(clients: tuple[Client, ...], units: list[Unit]) -> list[Component]:
    """Clients joined by the units that they share; in order of their first client."""
    leader = {client.name: client.name for client in clients}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for unit in units:
        names = sorted(unit.clients & leader.keys())
        for name in names[1:]:
            first, second = sorted((find(names[0]), find(name)))
            leader[second] = first
    found: dict[str, Component] = {}
    for client in clients:
        found.setdefault(find(client.name), Component()).clients.append(client)
    for unit in units:
        names = sorted(unit.clients & leader.keys())
        if names:
            found[find(names[0])].units.append(unit)
    return [found[name] for name in sorted(found)]


class Placement:
    """The books of all hosts while one plan is made."""

    def __init__(
        self,
        hosts: tuple[Host, ...],
        policies: dict[str, HostPolicy],
        owner: str,
        observed: dict[str, DomainSpec],
    ) -> None:
        self.owner = owner
        self.observed = observed
        self.hosts = {host.name: host for host in hosts}
        mine = frozenset(observed)
        self.ledgers = {
            host.name: Ledger.open(host, policies.get(host.name, HostPolicy(host.name)), mine) for host in hosts
        }
        self.staying: dict[str, str] = {}

    def book_what_stays(self, kept: list[DomainSpec], units: list[Unit], clients: tuple[Client, ...]) -> None:
        """Book the domains that are there and go on: as they are, or with the memory they need now."""
        declared = {client.name: client.vm for client in clients}
        demands = {unit.name: unit_memory(unit) for unit in units if unit.observed}
        asked = {unit.name: unit.resources for unit in units if unit.wants}
        for spec in [*self.observed.values(), *kept]:
            ledger = self.ledgers.get(spec.host)
            vm = declared.get(spec.name)
            if ledger is None or spec.name in self.staying or not (vm or spec in kept or spec.name in demands):
                continue
            refusal = ledger.may_stay(spec.placement)
            if spec.name in asked and not fulfilled(asked[spec.name], spec.placement, ledger):
                refusal = f"it has {describe_placement(spec.placement)}, which is not what is asked for now"
            if not refusal:
                vcpus, memory = (vm.vcpus, vm.memory) if vm else (spec.vcpus, demands.get(spec.name, spec.memory))
                self.ledgers[spec.host] = ledger.book(spec.name, spec.placement, vcpus, memory)
            self.staying[spec.name] = refusal

    def place(self, component: Component, wants: dict[str, list[Want]]) -> Placed:
        """Place one component on the first host that takes all of it; book it there."""
        result = Placed()
        for host in self._candidates(component):
            trial = Trial(self, host, self.ledgers[host.name])
            reasons = trial.place(component, wants)
            if not reasons:
                self.ledgers[host.name] = trial.ledger
                return trial.placed
            result.refusals[host.name] = tuple(reasons)
        return result

    def _candidates(self, component: Component) -> list[Host]:
        """The hosts a component may go to: where it is, where it is told to be, else all, in order."""
        names = [unit.observed.host for unit in component.units if unit.observed]
        names += [self.observed[client.name].host for client in component.clients if client.name in self.observed]
        names += [client.host for client in component.clients if client.host]
        names += [unit.declared.host for unit in component.units if unit.declared and unit.declared.host]
        wanted = set(names)
        return [host for name, host in sorted(self.hosts.items()) if wanted <= {name}]


@dataclass
class Trial:
    """An attempt to place a component on one host, on a copy of its book."""

    placement: Placement
    host: Host
    ledger: Ledger
    placed: Placed = field(default_factory=Placed)

    def place(self, component: Component, wants: dict[str, list[Want]]) -> list[str]:
        """Book everything; the reasons why something does not fit (then the trial is thrown away)."""
        reasons: list[str] = []
        greedy_first = sorted(component.units, key=lambda unit: (not _asks_alone(unit), unit.name))
        for unit in greedy_first:
            reasons += self._place_unit(unit)
        homes = {want.id: unit.name for unit in component.units for want in unit.wants}
        for client in component.clients:
            reasons += self._place_client(client, wants.get(client.name, []), homes)
        return reasons

    def _place_unit(self, unit: Unit) -> list[str]:
        image = unit.image
        if not unit.observed and GUESTS in self.host.vmm.supports and image_named(self.host, image) is None:
            return [f"image {image} is not there: build it with 'devicevm image build {image}'"]
        if unit.memory_needed > (memory := unit_memory(unit)):
            return [f"{unit.name} is declared with {memory} bytes of memory, its devices need {unit.memory_needed}"]
        stays = self.placement.staying.get(unit.name)
        if unit.observed and stays == "":
            spec = specify_device_vm(
                unit, self.host, self.placement.owner, unit.observed.placement, unit.observed.vcpus
            )
            reasons: tuple[str, ...] = ("it runs there already and still fits",)
        else:
            fit, reasons = fit_alternatives(unit.resources, self.ledger)
            if fit is None:
                return [f"{unit.name}: {reason}" for reason in reasons] or [
                    f"{unit.name}: no resources are declared for it"
                ]
            if lacks := self.ledger.lacks(fit.vcpus, memory):
                return [f"{unit.name}: {lacks}"]
            self.ledger = self.ledger.book(unit.name, fit.placement, fit.vcpus, memory)
            spec = specify_device_vm(unit, self.host, self.placement.owner, fit.placement, fit.vcpus)
            reasons = (f"it could not stay: {stays}", *reasons) if stays else reasons
            self._warn_of_floating(spec)
        self.placed.domains.append(spec)
        self.placed.allocations.append(allocation_of(spec, reasons))
        return []

    def _place_client(self, client: Client, wants: list[Want], homes: dict[str, str]) -> list[str]:
        boot = client.vm.boot
        if boot.guest_image and GUESTS in self.host.vmm.supports and image_named(self.host, boot.guest_image) is None:
            return [
                f"{client.name}: image {boot.guest_image} is not there: "
                f"build it with 'devicevm image build {boot.guest_image}'"
            ]
        if self.placement.staying.get(client.name) != "":
            if lacks := self.ledger.lacks(client.vm.vcpus, client.vm.memory):
                return [f"{client.name}: {lacks}"]
            self.ledger = self.ledger.book(client.name, CpuPlacement(), client.vm.vcpus, client.vm.memory)
        self.placed.domains.append(specify_client(client, wants, homes, self.host, self.placement.owner))
        return []

    def _warn_of_floating(self, spec: DomainSpec) -> None:
        if spec.placement.dedicated and self.ledger.floating:
            cpus = format_cpuset(cpus_of(spec.placement))
            self.placed.warnings.append(
                f"{spec.name} has CPU {cpus} to itself among pinned domains, but these are not pinned and may run "
                f"there too: {', '.join(self.ledger.floating)}"
            )


def allocation_of(spec: DomainSpec, reasons: tuple[str, ...]) -> Allocation:
    """The plan's line on what runs a device VM's emulation code."""
    return Allocation(
        device_vm=spec.name,
        host=spec.host,
        unit=spec.placement.unit,
        cpus=cpus_of(spec.placement),
        memory=spec.memory,
        channel=", ".join(sorted({emulator.channel.kind for emulator in spec.emulators})),
        dedicated=spec.placement.dedicated,
        nodes=spec.placement.nodes,
        serves=tuple(f"{emulator.client}/{emulator.name}" for emulator in spec.emulators),
        reasons=reasons,
    )


def describe_placement(placement: CpuPlacement) -> str:
    """`CPU 2-3 as dedicated core`."""
    alone = "dedicated " if placement.dedicated else ""
    return f"CPU {format_cpuset(cpus_of(placement)) or 'any'} as {alone}{placement.unit}"


def kept_device_vms(units: list[Unit]) -> list[DomainSpec]:
    """The device VMs to which nothing new is asked: what they serve still, and the rest as it is."""
    return [replace(unit.observed, emulators=tuple(unit.kept)) for unit in units if unit.observed and not unit.wants]


def _asks_alone(unit: Unit) -> bool:
    return any(
        request.dedicated or request.kind != "thread" for alternative in unit.resources for request in alternative
    )
