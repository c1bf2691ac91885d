"""Where device VMs and clients go: hosts, processors and memory, booked once each.

Clients and the device VMs that serve them are placed together, since their channels are on one
host. What runs and still fits is booked first and stays; then the new ones are booked, those
that ask for processors of their own before those that share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..domain import CpuPlacement, DomainSpec
from ..inventory.cpuset import format_cpuset
from ..inventory.host import Host
from ..inventory.supports import GUESTS
from ..manifest.topology import Client, HostPolicy, PlacementStrategy
from .book import Book, cpus_of
from .component import Component, client_demand, unit_demand
from .grouping import Unit
from .layout import Pick
from .order import HostOrder, order_of
from .plan import Allocation
from .requests import Want
from .resources import CPU_KINDS, Alternative, Footing, Misfit, describe, fit_one, fits, fulfilled
from .resources.nearest import nearest_fit
from .specify import image_named, specify_client, specify_device_vm, unit_memory

ATTEMPTS = 256
"""How often alternatives of one component are tried anew on one host, because what comes after them does not fit."""


_UNTOLD = "it does not fit"


@dataclass
class Placed:
    """What came of placing a component: its domains, or for each host why not."""

    domains: list[DomainSpec] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)
    refusals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    nearest: tuple[str, ...] = ()
    host: str = ""


class Placement:
    """The books of all hosts while one plan is made."""

    def __init__(
        self,
        hosts: tuple[Host, ...],
        policies: dict[str, HostPolicy],
        owner: str,
        observed: dict[str, DomainSpec],
        strategy: PlacementStrategy = PlacementStrategy.PACK,
    ) -> None:
        self.owner = owner
        self.observed = observed
        self.hosts = {host.name: host for host in hosts}
        mine = frozenset(observed)
        self.books = {host.name: Book(host, policies.get(host.name, HostPolicy(host.name)), mine) for host in hosts}
        self.staying: dict[str, str] = {}
        self.strategy = strategy

    @cached_property
    def order(self) -> HostOrder:
        """In which order hosts are tried: begun when what stays is booked."""
        return order_of(self.strategy, self.books)

    def book_what_stays(self, kept: list[DomainSpec], units: list[Unit], clients: tuple[Client, ...]) -> None:
        """Book the domains that are there and go on: as they are, or with the memory they need now."""
        declared = {client.name: client.vm for client in clients}
        demands = {unit.name: unit_memory(unit) for unit in units if unit.observed}
        asked = {unit.name: unit.resources for unit in units if unit.wants}
        for spec in [*self.observed.values(), *kept]:
            book = self.books.get(spec.host)
            vm = declared.get(spec.name)
            if book is None or spec.name in self.staying or not (vm or spec in kept or spec.name in demands):
                continue
            refusal = book.may_stay(spec.placement)
            if spec.name in asked and not fulfilled(asked[spec.name], spec, book):
                refusal = f"it has {describe_placement(spec.placement)}, which is not what is asked for now"
            if not refusal:
                vcpus, memory = (vm.vcpus, vm.memory) if vm else (spec.vcpus, demands.get(spec.name, spec.memory))
                book.book(spec.name, spec.placement, vcpus, memory, spec.page_size)
            self.staying[spec.name] = refusal

    def place(self, component: Component, wants: dict[str, list[Want]]) -> Placed:
        """Place one component on the best host that takes all of it; book it there. What comes of it when none does
        has the reasons of every host that was to be asked."""
        found = self.settle(component, wants)
        if found is not None:
            return found
        # Once more, for the reasons.
        placed = self._first_that_fits(component, wants, self._fixed(component) or sorted(self.hosts))
        return replace(placed, nearest=self._nearest(component)) if placed.refusals else placed

    def settle(self, component: Component, wants: dict[str, list[Want]]) -> Placed | None:
        """Place one component on the best host that takes all of it, and book it there; None when none does."""
        if fixed := self._fixed(component):
            placed = self._first_that_fits(component, wants, fixed, telling=False)
            return None if placed.refusals else placed
        demands = component.demands
        for name in self.order.hosts(demands):
            placed = self._try(component, wants, name, telling=False)
            if not placed.refusals:
                self.order.booked(name)
                return placed
            self.order.refused(demands[0], name)
            self._note_refusals(component, name)
        return None

    def put(
        self, name: str, components: list[Component], wants: dict[str, list[Want]], picks: tuple[Pick, ...]
    ) -> Placed | None:
        """Book components on a host together, each device VM on the alternative that was picked for it and in that
        order; None, and the book as it was, when that cannot be done."""
        book = self.books[name]
        mark = book.mark()
        trial = Trial(self, self.hosts[name], book, picks=picks)
        together = Component(
            [client for one in components for client in one.clients], [unit for one in components for unit in one.units]
        )
        if not all(self.suits(one, name) for one in components) or trial.place(together, wants):
            book.back_to(mark)
            return None
        trial.warn_of_floating()
        self.order.booked(name)
        return trial.placed

    def is_there(self, component: Component) -> bool:
        """Whether some of it is on a host already."""
        return bool(self._there(component))

    def suits(self, component: Component, name: str) -> bool:
        """Whether a component may be on a host, whatever room that has; its images included."""
        if self._unsuitable(component, name):
            return False
        host = self.hosts[name]
        return all(unit.memory_needed <= unit_memory(unit) for unit in component.units) and all(
            not boot.guest_image or GUESTS not in host.vmm.supports or image_named(host, boot.guest_image)
            for boot in (client.vm.boot for client in component.clients)
        )

    def _fixed(self, component: Component) -> list[str]:
        homes = {spec.host for spec in self._there(component)}
        return sorted(homes) or [host for name, host in component.told]

    def _note_refusals(self, component: Component, name: str) -> None:
        """Which parts of a component a host would refuse by themselves, too."""
        book = self.books[name]
        for unit in component.units:
            if not _has_room(book, unit):
                self.order.refused(unit_demand(unit), name)
        for client in component.clients:
            if not book.takes(client.vm.vcpus, client.vm.memory):
                self.order.refused(client_demand(client), name)

    def _nearest(self, component: Component) -> tuple[str, ...]:
        """For each unit that no host has room for alone, what would fit instead."""
        books = [self.books[name] for name in sorted(self.books) if not self._unsuitable(component, name)]
        found = []
        for unit in component.units:
            if any(_has_room(book, unit) for book in books):
                continue
            if words := nearest_fit(unit.resources, books, unit_memory(unit)):
                found.append(f"nearest for {unit.name}: {words}")
        return tuple(found)

    def _first_that_fits(
        self, component: Component, wants: dict[str, list[Want]], names: list[str], *, telling: bool = True
    ) -> Placed:
        refusals: dict[str, tuple[str, ...]] = {}
        for name in names:
            placed = self._try(component, wants, name, telling=telling)
            if not placed.refusals:
                self.order.booked(name)
                return placed
            refusals |= placed.refusals
        return Placed(refusals=refusals)

    def _try(self, component: Component, wants: dict[str, list[Want]], name: str, *, telling: bool = True) -> Placed:
        if name not in self.hosts:
            return Placed(refusals={name: ("there is no such host",)})
        if reasons := self._unsuitable(component, name):
            return Placed(refusals={name: reasons})
        book = self.books[name]
        mark = book.mark()
        trial = Trial(self, self.hosts[name], book, telling=telling)
        if found := trial.place(component, wants):
            book.back_to(mark)
            return Placed(refusals={name: tuple(found)})
        trial.warn_of_floating()
        trial.placed.host = name
        return trial.placed

    def _unsuitable(self, component: Component, name: str) -> tuple[str, ...]:
        """Why a host is not for the component, whatever room it has."""
        policy = self.books[name].policy
        there = {spec.name: spec.host for spec in self._there(component)}
        reasons = [f"{what} is to be on {host}" for what, host in component.told if host != name]
        reasons += [
            f"{what} is on {host}, and channels are on one host" for what, host in there.items() if host != name
        ]
        for label, value in component.host_labels:
            if policy.labels.get(label) != value:
                reasons.append(f"its label {label} is {policy.labels.get(label, 'not set')}, {value} is asked for")
        if policy.trust_domains:
            strangers = component.trust_domains - set(policy.trust_domains)
            reasons += [f"it is not for trust domain {trust}" for trust in sorted(strangers)]
        if policy.maintenance and not there:
            reasons.append("it is in maintenance")
        return tuple(reasons)

    def _there(self, component: Component) -> list[DomainSpec]:
        found = [unit.observed for unit in component.units if unit.observed]
        return found + [self.observed[client.name] for client in component.clients if client.name in self.observed]


@dataclass
class Trial:
    """An attempt to place a component on one host; whoever makes it takes back what it booked when it fails."""

    placement: Placement
    host: Host
    book: Book
    placed: Placed = field(default_factory=Placed)
    telling: bool = True
    """Whether the reasons are wanted in words when it fails."""
    attempts: int = ATTEMPTS
    picks: tuple[Pick, ...] = ()
    """The alternatives that were found by a search, in the order in which they are to be booked."""

    def place(self, component: Component, wants: dict[str, list[Want]]) -> list[str]:
        """Book everything; the reasons why something does not fit (then the trial is thrown away)."""
        greedy_first = sorted(component.units, key=lambda unit: (not _asks_alone(unit), unit.name))
        if self.picks:
            greedy_first = [pick.unit for pick in self.picks]
        homes = {want.id: unit.name for unit in component.units for want in unit.wants}

        def rest(index: int) -> list[str]:
            if index < len(greedy_first):
                return self._place_unit(greedy_first[index], lambda: rest(index + 1))
            return [
                reason
                for client in component.clients
                for reason in self._place_client(client, wants.get(client.name, []), homes)
            ]

        return rest(0)

    def _place_unit(self, unit: Unit, rest: Callable[[], list[str]]) -> list[str]:
        """Place a unit so that the rest can be placed as well: on its first alternative for which that holds."""
        memory = unit_memory(unit)
        # Only what was declared can be too little.
        if unit.declared and unit.declared.memory and unit.memory_needed > memory:
            return [f"{unit.name} is declared with {memory} bytes of memory, its devices need {unit.memory_needed}"]
        stays = self.placement.staying.get(unit.name)
        if unit.observed and stays == "":
            self._accept(unit, footing_of(unit.observed, memory), ("it runs there already and still fits",))
            return rest()
        reasons: list[Callable[[], str]] = [lambda: f"it could not stay: {stays}"] if stays else []
        picked = next((pick.alternative for pick in self.picks if pick.unit is unit), 0)
        for number, (alternative, answer) in enumerate(fits(unit.resources, self.book, memory)):
            if isinstance(answer, Misfit):
                reasons.append(_of(alternative, answer.why))
                continue
            if missing := self._lacks_image(unit, answer.arch):
                reasons.append(_said(missing))
                continue
            mark, before = self.book.mark(), len(self.placed.domains)
            if number < picked:
                reasons.append(_of(alternative, _said("it fits, but then others would find no place")))
                continue
            told = [*(why() for why in reasons), f"{describe(alternative)}: {'; '.join(answer.reasons)}"]
            self.book.book(unit.name, answer.placement, answer.vcpus, answer.memory, answer.page_size)
            self._accept(unit, answer, tuple(told))
            failed = rest()
            if not failed:
                return []
            self.attempts -= 1
            if len(unit.resources) == 1 or self.attempts <= 0:
                return failed
            self.book.back_to(mark)
            self._take_back(before)
            reasons.append(_of(alternative, _said(f"it fits, but then {failed[0]}")))
        if not self.telling:
            return [_UNTOLD]
        return [f"{unit.name}: {why()}" for why in reasons] or [f"{unit.name}: no resources are declared for it"]

    def _lacks_image(self, unit: Unit, arch: str) -> str:
        """Why the unit cannot boot here; empty when it can, or when its host does not tell its images."""
        host, name = self.host, unit.image
        if unit.observed and unit.observed.arch == (arch or host.arch):
            return ""
        if GUESTS not in host.vmm.supports or image_named(host, name, arch):
            return ""
        option = f"--arch {arch} " if arch else ""
        built = f"image {name} for {arch}" if arch else f"image {name}"
        return f"{built} is not there: build it with 'devicevm image build {option}{name}'"

    def _accept(self, unit: Unit, footing: Footing, reasons: tuple[str, ...]) -> None:
        spec = specify_device_vm(unit, self.host, self.placement.owner, footing)
        self.placed.domains.append(spec)
        self.placed.allocations.append(allocation_of(spec, reasons))

    def _take_back(self, before: int) -> None:
        names = {spec.name for spec in self.placed.domains[before:]}
        del self.placed.domains[before:]
        self.placed.allocations = [one for one in self.placed.allocations if one.device_vm not in names]

    def _place_client(self, client: Client, wants: list[Want], homes: dict[str, str]) -> list[str]:
        boot = client.vm.boot
        if boot.guest_image and GUESTS in self.host.vmm.supports and image_named(self.host, boot.guest_image) is None:
            return [
                f"{client.name}: image {boot.guest_image} is not there: "
                f"build it with 'devicevm image build {boot.guest_image}'"
            ]
        if self.placement.staying.get(client.name) != "":
            if not self.book.takes(client.vm.vcpus, client.vm.memory):
                return [f"{client.name}: {self.book.lacks(client.vm.vcpus, client.vm.memory)}"]
            self.book.book(client.name, CpuPlacement(), client.vm.vcpus, client.vm.memory)
        spec = specify_client(client, wants, homes, self.host, self.placement.owner)
        there = self.placement.observed.get(client.name)
        self.placed.domains.append(there if there is not None and there == spec else spec)
        return []

    def warn_of_floating(self) -> None:
        """Tell which domains may run on processors that are dedicated now."""
        for spec in self.placed.domains:
            if spec.placement.dedicated and self.placement.staying.get(spec.name) != "" and self.book.floating:
                cpus = format_cpuset(cpus_of(spec.placement))
                self.placed.warnings.append(
                    f"{spec.name} has CPU {cpus} to itself among pinned domains, but these are not pinned and may run "
                    f"there too: {', '.join(self.book.floating)}"
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


def _has_room(book: Book, unit: Unit) -> bool:
    """Whether a host takes a unit alone."""
    memory = unit_memory(unit)
    return any(isinstance(fit_one(alternative, book, memory), Footing) for alternative in unit.resources)


def _of(alternative: Alternative, why: Callable[[], str]) -> Callable[[], str]:
    return lambda: f"{describe(alternative)}: {why()}"


def _said(text: str) -> Callable[[], str]:
    return lambda: text


def footing_of(spec: DomainSpec, memory: int) -> Footing:
    """What a device VM stands on now, with the memory it is to have."""
    return Footing(memory, spec.placement, spec.vcpus, spec.cpu_features, spec.page_size, spec.arch)


def _asks_alone(unit: Unit) -> bool:
    return any(
        request.kind in CPU_KINDS and (request.dedicated or request.kind != "thread")
        for alternative in unit.resources
        for request in alternative
    )
