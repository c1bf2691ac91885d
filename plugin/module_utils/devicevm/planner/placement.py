"""Where device VMs and clients go: hosts, processors and memory, booked once each.

Clients and the device VMs that serve them are placed together, since their channels are on one
host. What runs and still fits is booked first and stays; then the new ones are booked, those
that ask for processors of their own before those that share.
"""

from __future__ import annotations

from collections.abc import Container, Hashable
from dataclasses import replace
from functools import cached_property

from ..domain import CpuPlacement, DomainSpec, Role
from ..inventory.host import Host
from ..inventory.supports import INSTALL, ON_REQUEST
from ..manifest.topology import Client, Consumer, HostPolicy, PlacementStrategy
from .affinity import Neighbours
from .book import Book
from .code import Code
from .component import Component, merged
from .freedom import Freedom
from .given import describe_given
from .grouping import Unit
from .layout import Pick, fit_client
from .order import HostOrder, order_of
from .placed import Placed
from .requests import Want
from .resources import Footing, Misfit, code_of, fit_one, fulfilled
from .resources.near import Beside
from .resources.nearest import relaxed
from .runnable import why_not_boot
from .specify import unit_memory
from .trial import Trial
from .trust import Trusts


class Placement:
    """The books of all hosts while one plan is made."""

    def __init__(
        self,
        hosts: tuple[Host, ...],
        policies: dict[str, HostPolicy],
        owner: str,
        observed: dict[str, DomainSpec],
        strategy: PlacementStrategy = PlacementStrategy.PACK,
        neighbours: Neighbours | None = None,
        free: Freedom | None = None,
        *,
        upgrade: bool = False,
    ) -> None:
        self.owner = owner
        self.upgrade = upgrade
        self.observed = observed
        self.hosts = {host.name: host for host in hosts}
        mine: dict[str, set[str]] = {host.name: set() for host in hosts}
        for name, spec in observed.items():
            if spec.consumer is Consumer.VM:
                mine.setdefault(spec.host, set()).add(name)
        self.books = {
            host.name: Book(host, policies.get(host.name, HostPolicy(host.name)), frozenset(mine[host.name]))
            for host in hosts
        }
        self.staying: dict[str, str] = {}
        self.stands: dict[str, CpuPlacement] = {}
        """Where what stays is."""
        self.codes: dict[str, Code] = {}
        self.strategy = strategy
        self.free = free or Freedom()
        self.neighbours = neighbours or Neighbours((), {})
        self._hints: dict[Hashable, list[str]] = {}
        """What would do instead for components that are alike, as long as nothing is booked."""

    @cached_property
    def order(self) -> HostOrder:
        """In which order hosts are tried: begun when what stays is booked."""
        return order_of(self.strategy, self.books)

    def book_what_stays(
        self,
        kept: list[DomainSpec],
        units: list[Unit],
        clients: tuple[Client, ...],
        trusts: Trusts,
        running: Container[str],
    ) -> None:
        """Book the domains that are there and go on: as they are, or with the memory they need now.

        `trusts` tells of every domain which trust domains it serves. Of those of which nobody asks anything, what is
        not among `running` gives way.
        """
        if len(trusts.all) > 1:
            for one in self.books.values():
                if not one.policy.share_across_trust_domains:
                    one.parting.trusts = trusts
        declared = {client.name: client.vm for client in clients}
        demands = {
            unit.name: unit.observed.memory if unit.observed.firmware else unit_memory(unit)
            for unit in units
            if unit.observed
        }
        asked = {unit.name: unit.resources for unit in units if unit.wants}
        served = {unit.name: sorted(unit.clients) for unit in units}
        as_they_are = {spec.name for spec in kept}
        # What nobody asks anything of stays where it is, and has that, whatever its host is declared to be now.
        fixed = as_they_are | {unit.name for unit in units if unit.observed and not unit.wants}
        resting = {name for name in fixed if name not in running}
        there = [*self.observed.values(), *kept]
        self.stands.update((spec.name, spec.placement) for spec in kept if spec.name in resting)

        def turn(spec: DomainSpec) -> tuple[bool, bool, bool]:
            # Clients come before device VMs: what is to be near them is seen to be so, or not.
            return spec.name in resting, spec.name not in fixed, spec.role is Role.DEVICE_VM

        for spec in sorted(there, key=turn):
            book = self.books.get(spec.host)
            vm = declared.get(spec.name)
            if book is None or spec.name in self.free.cpus or spec.consumer is not Consumer.VM:
                continue
            if spec.name in self.staying or not (vm or spec.name in as_they_are or spec.name in demands):
                continue
            placement = book.roaming(vm.vcpus) if vm and not vm.cpus else spec.placement
            if spec.name in resting and book.is_taken(placement):
                placement = book.roaming(spec.vcpus)
            refusal = "" if vm and not vm.cpus else book.may_stay(placement)
            if wishes := ((vm.cpus,),) if vm and vm.cpus else asked.get(spec.name):
                given = fulfilled(wishes, spec, book, self._stand(served.get(spec.name, [])))
                self.codes[spec.name] = code_of(given, book, spec) if given else Code()
                if not given:
                    refusal = refusal or f"it has {describe_given(spec)}, which is not what is asked for now"
            if not refusal or spec.name in fixed:
                vcpus, memory = (vm.vcpus, vm.memory) if vm else (spec.vcpus, demands.get(spec.name, spec.memory))
                book.book(spec.name, placement, vcpus, memory, spec.page_size, spec.host_devices)
                self.stands[spec.name] = placement
            self.staying[spec.name] = refusal

    def _stand(self, clients: list[str]) -> Beside | None:
        """Where these clients are and stay; None when that is not known of each."""
        if any(name not in self.stands for name in clients):
            return None
        return tuple((name, self.stands[name]) for name in clients)

    def place(self, component: Component, wants: dict[str, list[Want]]) -> Placed:
        """Place one component on the best host that takes all of it; book it there. What comes of it when none does
        has the reasons of every host that was to be asked."""
        found = self.settle(component, wants)
        return found if found is not None else self.refusal(component, wants)

    def refusal(self, component: Component, wants: dict[str, list[Want]]) -> Placed:
        """Why no host takes a component that none takes."""
        # Once more, for the reasons.
        placed = self._first_that_fits(component, wants, self._fixed(component) or sorted(self.hosts))
        if not placed.refusals:
            return placed
        return replace(placed, nearest=(*self._nearest(component, wants), *self._ways_out(component)))

    def takes(self, component: Component, wants: dict[str, list[Want]]) -> bool:
        """Whether a host takes a component as things are; it is booked on none."""
        demands = component.demands
        for name in self._fixed(component) or self.order.hosts(demands):
            if name not in self.hosts or self._objections(component, name):
                continue
            book = self.books[name]
            mark = book.mark()
            failed = Trial(self, self.hosts[name], book, telling=False).place(component, wants)
            book.back_to(mark)
            if not failed:
                return True
            self.order.refused(demands[0], name)
        return False

    def settle(self, component: Component, wants: dict[str, list[Want]]) -> Placed | None:
        """Place one component on the best host that takes all of it, and book it there; None when none does."""
        if fixed := self._fixed(component):
            placed = self._first_that_fits(component, wants, fixed, telling=False)
            return None if placed.refusals else placed
        demands = component.demands
        for name in self.order.hosts(demands):
            if name in self.free.avoid or self.neighbours.objections(component.clients, name):
                continue  # not noted as refused: who comes later may change it
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
        self._hints.clear()
        trial = Trial(self, self.hosts[name], book, picks=picks)
        together = merged(components)
        suits = all(self.suits(one, name) for one in components)
        if not suits or self.neighbours.objections(together.clients, name) or trial.place(together, wants):
            book.back_to(mark)
            return None
        self.neighbours.settle(together.clients, name)
        self.order.booked(name)
        return trial.done()

    def is_there(self, component: Component) -> bool:
        """Whether some of it is on a host already, and is not to be placed as if it were not."""
        return any(spec.name not in self.free.cpus for spec in self._there(component))

    def runs(self, component: Component) -> bool:
        """Whether any of its clients is there, wherever it goes."""
        return any(client.name in self.observed for client in component.clients)

    def homes(self, component: Component) -> tuple[str, ...]:
        """The hosts on which some of it is, and stays."""
        return tuple(sorted({spec.host for spec in self._there(component)}))

    def suits(self, component: Component, name: str) -> bool:
        """Whether a component may be on a host, whatever room that has and whoever is there; its images included."""
        if name in self.free.avoid or self._unsuitable(component, name):
            return False
        host = self.hosts[name]
        return all(unit.memory_needed <= unit_memory(unit) for unit in component.units) and not any(
            why_not_boot(client.boot, host) for client in component.clients
        )

    def _fixed(self, component: Component) -> list[str]:
        return list(self.homes(component)) or [host for name, host in component.told]

    def _note_refusals(self, component: Component, name: str) -> None:
        """Which parts of a component a host would refuse by themselves, too."""
        book = self.books[name]
        demands = iter(component.demands[1:])
        for unit, demand in zip(component.units, demands, strict=False):
            if not _has_room(book, unit):
                self.order.refused(demand, name)
        for client, demand in zip(component.clients, demands, strict=True):
            if isinstance(fit_client(client, book), Misfit):
                self.order.refused(demand, name)

    def _nearest(self, component: Component, wants: dict[str, list[Want]]) -> tuple[str, ...]:
        """For each unit, with which wish less of it a host takes the whole component, if there is one."""
        hosts = [name for name in sorted(self.books) if not self._objections(component, name)]
        known = component.signature, self.homes(component), tuple(hosts)
        if known not in self._hints:
            self._hints[known] = [self._hint(component, wants, unit, hosts) for unit in component.units]
        hints = zip(component.units, self._hints[known], strict=True)
        return tuple(f"nearest for {unit.name}: {words}" for unit, words in hints if words)

    def _hint(self, component: Component, wants: dict[str, list[Want]], unit: Unit, hosts: list[str]) -> str:
        for words, alternative in relaxed(unit.resources):
            for name in hosts:
                book = self.books[name]
                book.parting.asks(unit.name)
                if isinstance(fit_one(alternative, book, unit_memory(unit), unit.size), Misfit):
                    continue  # cheap, and what most fail by
                mark = book.mark()
                trial = Trial(self, self.hosts[name], book, telling=False, instead={unit.name: (alternative,)})
                failed = trial.place(component, wants)
                book.back_to(mark)
                if not failed:
                    return f"{words} would fit on {name}"
        return ""

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
        if reasons := self._objections(component, name):
            return Placed(refusals={name: reasons})
        book = self.books[name]
        mark = book.mark()
        trial = Trial(self, self.hosts[name], book, telling=telling)
        if found := trial.place(component, wants):
            book.back_to(mark)
            return Placed(refusals={name: tuple(found)})
        trial.placed.host = name
        self._hints.clear()
        self.neighbours.settle(component.clients, name)
        return trial.done()

    def _objections(self, component: Component, name: str) -> tuple[str, ...]:
        """Why a component may not be on a host, whatever room that has."""
        return *self._unsuitable(component, name), *self.neighbours.objections(component.clients, name)

    def _unsuitable(self, component: Component, name: str) -> tuple[str, ...]:
        """Why a host is not for the component, whatever room it has and whoever is there."""
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
        if policy.maintenance and not (there and self._all_there(component)):
            reasons.append("it is in maintenance")
        if component.on_request and ON_REQUEST not in self.hosts[name].vmm.supports:
            reasons.append(
                f"nothing starts the device VMs of {component.on_request} on request or with the host: {INSTALL}"
            )
        return tuple(reasons)

    def _ways_out(self, component: Component) -> tuple[str, ...]:
        """What would have to be declared for what runs on a host that is no longer for it."""
        ways = []
        for name in self.homes(component):
            policy = self.books[name].policy if name in self.books else HostPolicy(name)
            there = ", ".join(sorted({spec.name for spec in self._there(component) if spec.host == name}))
            wrong = [f"label {key}={value}" for key, value in component.host_labels if policy.labels.get(key) != value]
            strangers = component.trust_domains - set(policy.trust_domains) if policy.trust_domains else set()
            wrong += [f"{trust} among its trustDomains" for trust in sorted(strangers)]
            told = sorted({host for what, host in component.told if host != name})
            stays = f"{there} on {name} stays as it is; it may go on there if"
            if wrong:
                ways.append(f"{stays} Host {name} has {' and '.join(wrong)}")
            if told:
                ways.append(f"{stays} host says {name}, not {told[0]}")
        return tuple(ways)

    def _all_there(self, component: Component) -> bool:
        """Whether none of its clients is new: each is there itself, or has devices."""
        served = {emulator.client for unit in component.units if unit.observed for emulator in unit.observed.emulators}
        return all(client.name in self.observed or client.name in served for client in component.clients)

    def _there(self, component: Component) -> list[DomainSpec]:
        if not self.observed:
            return []
        found = [unit.observed for unit in component.units if unit.observed]
        found += [self.observed[client.name] for client in component.clients if client.name in self.observed]
        return [spec for spec in found if spec.name not in self.free.hosts]


def kept_device_vms(units: list[Unit], stands: dict[str, CpuPlacement]) -> list[DomainSpec]:
    """The device VMs to which nothing new is asked: what they serve still, where they stand, and the rest as it is."""
    return [
        replace(spec, emulators=tuple(unit.kept), placement=stands.get(unit.name, spec.placement))
        for unit in units
        if (spec := unit.observed) and not unit.wants
    ]


def _has_room(book: Book, unit: Unit) -> bool:
    """Whether a host takes a unit alone."""
    book.parting.asks(unit.name)
    memory = unit_memory(unit)
    return any(isinstance(fit_one(alternative, book, memory, unit.size), Footing) for alternative in unit.resources)
