"""The book of one host while a plan is made: who holds what, those included that the plan itself places.

It starts from what domains of others hold; then what stays is booked, then what is new. An attempt that fails is taken
back (`mark`, `back_to`). What a holding takes is counted as in inventory/free.py, but step by step: a fleet
books tens of thousands of times. `free` makes the whole view anew, for words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from heapq import nsmallest

from ..domain import CpuPlacement, HostDevice
from ..inventory.free import Free, describe_memory, free, set_aside, usual_memory
from ..inventory.host import Holding, Host
from ..manifest.topology import HostPolicy
from ..quantity import format_bytes
from .trust import Parting


class CpuState:
    """A logical processor and who is on it. `load`: vCPUs of the domains pinned here, each spread over its pins."""

    __slots__ = ("core", "dedicated_to", "id", "load", "node", "pinned_by", "pooled", "reserved", "socket")

    def __init__(self, number: int, core: str, socket: int, node: int) -> None:
        self.id, self.core, self.socket, self.node = number, core, socket, node
        self.reserved = False
        self.pooled: bool | None = None
        self.load = 0.0
        self.pinned_by: list[str] = []
        self.dedicated_to: list[str] = []

    @property
    def shareable(self) -> bool:
        """A domain may run here beside others."""
        return not (self.reserved or self.dedicated_to or self.pooled is False)

    @property
    def vacant(self) -> bool:
        """Nobody is pinned here: the CPU can be dedicated. Domains that float may still pass by."""
        return not (self.reserved or self.pinned_by or self.pooled)


class Book:
    """A host, its policy, and every holding on it. Memory in bytes; `mine` are holders that the plan books itself."""

    def __init__(self, host: Host, policy: HostPolicy, mine: frozenset[str] = frozenset()) -> None:
        self.host, self.policy = host, policy
        self.cpus = {
            cpu.id: CpuState(cpu.id, cpu.core, cpu.socket, cpu.node)
            for cpu in sorted(host.cpus, key=lambda cpu: cpu.id)
        }
        for number in policy.reserved_cpus:
            if number in self.cpus:
                self.cpus[number].reserved = True
        pool = frozenset(policy.shared_cpus)
        for number in self.cpus if pool else ():
            self.cpus[number].pooled = number in pool
        self.cores = _grouped(self.cpus.values(), lambda cpu: cpu.core)
        self.nodes = sorted({cpu.node for cpu in host.cpus})
        self._core_of = {core[0].core: core for core in self.cores}
        self.sockets = _grouped(self.cpus.values(), lambda cpu: str(cpu.socket))
        self.holdings: list[Holding] = []
        self.memory = host.memory - policy.reserved_memory - set_aside(host.nodes)
        self._node_memory = {node.id: node.memory - set_aside((node,)) for node in host.nodes}
        self.floating_vcpus = 0
        self._free: Free | None = None
        self.parting = Parting()
        self._loads: list[list[tuple[CpuState, float]]] = []
        for holding in host.holdings:
            if holding.domain not in mine:
                self._hold(holding)

    def book(
        self,
        domain: str,
        placement: CpuPlacement,
        vcpus: int,
        memory: int,
        page_size: int = 0,
        devices: tuple[HostDevice, ...] = (),
    ) -> None:
        """`domain` has this placement, this memory and these devices of the host from now on."""
        cpus = held_by(placement)
        self._hold(
            Holding(
                domain,
                "",
                True,
                vcpus,
                memory,
                cpus,
                not cpus,
                placement.dedicated,
                nodes=placement.nodes,
                page_size=page_size,
                node_devices=tuple(device.address for device in devices),
            )
        )

    def mark(self) -> int:
        """Where the book is now, for `back_to`."""
        return len(self.holdings)

    def back_to(self, mark: int) -> None:
        """Take back what was booked since the mark."""
        while len(self.holdings) > mark:
            self._free = None
            holding = self.holdings.pop()
            self.memory += usual_memory(holding)
            self.floating_vcpus -= holding.vcpus if holding.floats else 0
            # As they were, not less what was added: sums of fractions do not come back.
            for cpu, load in self._loads.pop():
                cpu.load = load
                cpu.pinned_by.pop()
                if holding.dedicated:
                    cpu.dedicated_to.pop()

    def copy(self, mark: int) -> Book:
        """A book of its own with what was booked until the mark."""
        twin = Book(self.host, self.policy, frozenset(holding.domain for holding in self.host.holdings))
        twin.parting.trusts = self.parting.trusts
        twin.hold_all(self.holdings[:mark])
        return twin

    def hold_all(self, holdings: Iterable[Holding]) -> None:
        """Book what was booked before."""
        for holding in holdings:
            self._hold(holding)

    @property
    def vcpus(self) -> int:
        """How many more virtual CPUs the policy's overcommit allows."""
        load, count = float(self.floating_vcpus), 0
        for cpu in self.cpus.values():
            if cpu.shareable:
                load += cpu.load
                count += 1
        # Rounded before it is cut: thirds of vCPUs must not lose a whole one.
        return max(0, int(round(count * self.policy.cpu_overcommit - load, 6)))

    @property
    def pressure(self) -> float:
        """How full the host is, of memory or of virtual CPUs, whichever is fuller: 0 is empty."""
        policy = self.policy
        memory = (self.host.memory - policy.reserved_memory - set_aside(self.host.nodes)) or 1
        ours = sum(not cpu.reserved and cpu.pooled is not False for cpu in self.cpus.values())
        vcpus = ours * policy.cpu_overcommit or 1
        return max(1 - self.memory / memory, 1 - self.vcpus / vcpus)

    @property
    def free(self) -> Free:
        """The whole view of what is left, for words."""
        if self._free is None:
            self._free = free(replace(self.host, holdings=tuple(self.holdings)), self.policy)
        return self._free

    @property
    def held(self) -> dict[str, str]:
        """Address of each device of the host that somebody holds -> the domain."""
        return {address: one.domain for one in reversed(self.holdings) for address in one.node_devices}

    def pool(self, node: int | None = None) -> tuple[int, ...]:
        """The shared pool (of one node), as far as it can be shared; empty where none is declared."""
        if not self.policy.shared_cpus:
            return ()
        return tuple(cpu.id for cpu in self.cpus.values() if cpu.pooled and cpu.shareable and node in (None, cpu.node))

    def roaming(self, vcpus: int) -> CpuPlacement:
        """Where whoever asks for no processors runs: anywhere in the pool, or anywhere where there is none."""
        pool = self.pool()
        return CpuPlacement(vcpus=(pool,) * vcpus, emulator=pool) if pool else CpuPlacement()

    def vacant_cpus(self) -> list[CpuState]:
        """Processors that can be dedicated one by one, ascending."""
        return [cpu for cpu in self.cpus.values() if cpu.vacant]

    def vacant_cores(self) -> list[tuple[CpuState, ...]]:
        """The processors of each core on which every one is vacant, by lowest number."""
        return _all_vacant(self.cores)

    def vacant_sockets(self) -> list[tuple[CpuState, ...]]:
        """The processors of each socket on which every one is vacant, by lowest number."""
        return _all_vacant(self.sockets)

    def least_loaded(self, count: int, node: int | None = None) -> list[CpuState]:
        """At most `count` processors (of one node) that may take one more virtual CPU, the least loaded first."""
        most = self.policy.cpu_overcommit - 1
        room = [cpu for cpu in self.cpus.values() if cpu.load <= most and cpu.shareable and node in (None, cpu.node)]
        if not self.parting.trusts:
            return nsmallest(count, room, key=lambda cpu: (cpu.load, cpu.id))
        room = [cpu for cpu in room if self.parted(cpu)]
        others = self.parting.reluctant(self.cores)
        return nsmallest(count, room, key=lambda cpu: (cpu.id in others, cpu.load, cpu.id))

    def parted(self, cpu: CpuState) -> bool:
        """Whether nobody is on the core of a processor who may not be beside the one whom it is for."""
        return not self.parting.trusts or not self.parting.strangers(self._core_of[cpu.core])

    def memory_on(self, nodes: tuple[int, ...]) -> int:
        """Bytes left for a domain whose memory comes from these nodes alone, as in Free.memory_on."""
        wanted = frozenset(nodes)
        there = sum(self._node_memory.get(node, 0) for node in wanted)
        bound = sum(usual_memory(one) for one in self.holdings if one.nodes and wanted.issuperset(one.nodes))
        return min(self.memory, there - bound)

    def huge_pages(self, size: int, nodes: tuple[int, ...] = ()) -> int:
        """How many pages of `size` bytes are left (on these nodes, when some are given)."""
        there = sum(node.huge_pages.get(str(size), 0) for node in self.host.nodes if not nodes or node.id in nodes)
        taken = sum(
            one.memory // size
            for one in self.holdings
            if one.page_size == size and (not nodes or not one.nodes or set(one.nodes) & set(nodes))
        )
        return there - taken

    def takes(self, vcpus: int, memory: int) -> bool:
        """Whether the host has room for so much more, beyond the headroom."""
        policy = self.policy
        room = memory <= self.memory - policy.headroom_memory
        return room and (not vcpus or vcpus <= self.vcpus - policy.headroom_vcpus)

    def lacks(self, vcpus: int, memory: int) -> str:
        """Why the host does not take so much more, with the arithmetic; empty when it does."""
        policy = self.policy
        left = self.vcpus - policy.headroom_vcpus
        if vcpus and vcpus > left:
            booked = sum(holding.vcpus for holding in self.holdings)
            return (
                f"{vcpus} virtual CPUs asked, {max(left, 0)} left: {booked} booked on "
                f"{sum(cpu.shareable for cpu in self.cpus.values())} CPUs with an overcommit of "
                f"{policy.cpu_overcommit:g}"
                + (f", {policy.headroom_vcpus} kept as headroom" if policy.headroom_vcpus else "")
            )
        if memory > self.memory - policy.headroom_memory:
            kept = policy.headroom_memory
            headroom = f", {format_bytes(kept)} kept as headroom" if kept else ""
            return f"memory: {describe_memory(self.free, memory)}{headroom}"
        return ""

    def is_taken(self, placement: CpuPlacement) -> bool:
        """Whether somebody has a processor of a placement, when one of the two is to have it alone."""
        cpus = [self.cpus[number] for number in held_by(placement) if number in self.cpus]
        return any(cpu.dedicated_to or (placement.dedicated and cpu.pinned_by) for cpu in cpus)

    def may_stay(self, placement: CpuPlacement) -> str:
        """Why a placement made earlier cannot stay; empty when it can."""
        for number in held_by(placement):
            cpu = self.cpus.get(number)
            if cpu is None:
                return f"CPU {number} is gone"
            if cpu.reserved:
                return f"CPU {number} is now reserved"
            if cpu.dedicated_to:
                return f"CPU {number} is now dedicated to {', '.join(cpu.dedicated_to)}"
            if cpu.pooled is not None and cpu.pooled is placement.dedicated:
                return f"CPU {number} is {'now' if cpu.pooled else 'not'} in the shared pool"
            if placement.dedicated and cpu.pinned_by:
                return f"CPU {number} is no longer its own: {', '.join(cpu.pinned_by)} is pinned to it"
        return ""

    def _hold(self, holding: Holding) -> None:
        self._free = None
        pins = [self.cpus[number] for number in holding.cpus if number in self.cpus]
        self._loads.append([(cpu, cpu.load) for cpu in pins])
        for cpu in pins:
            # What floats is counted once, for the whole host.
            cpu.load += 0.0 if holding.floats else holding.vcpus / len(pins)
            cpu.pinned_by.append(holding.domain)
            if holding.dedicated:
                cpu.dedicated_to.append(holding.domain)
        self.memory -= usual_memory(holding)
        self.floating_vcpus += holding.vcpus if holding.floats else 0
        self.holdings.append(holding)


def cpus_of(placement: CpuPlacement) -> tuple[int, ...]:
    """Every host CPU that the virtual CPUs of a placement run on, ascending."""
    return tuple(sorted({cpu for pin in placement.vcpus for cpu in pin}))


def held_by(placement: CpuPlacement) -> tuple[int, ...]:
    """Every host CPU that nobody else may have because of a placement, or that is shared with it, ascending."""
    return tuple(sorted({*placement.cpus, *placement.idle}))


def _all_vacant(groups: tuple[tuple[CpuState, ...], ...]) -> list[tuple[CpuState, ...]]:
    found = []
    for group in groups:
        for cpu in group:
            if not cpu.vacant:
                break
        else:
            found.append(group)
    return found


def _grouped(cpus: Iterable[CpuState], key: Callable[[CpuState], str]) -> tuple[tuple[CpuState, ...], ...]:
    groups: dict[str, list[CpuState]] = {}
    for cpu in cpus:
        groups.setdefault(key(cpu), []).append(cpu)
    return tuple(map(tuple, groups.values()))
