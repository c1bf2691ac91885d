"""The book of one host while a plan is made: who holds what, those included that the plan itself places.

It starts from what domains of others hold; then what stays is booked, then what is new. An attempt that fails is taken
back (`mark`, `back_to`). What a holding takes is counted as in inventory/free.py, but step by step, and whole sets of
processors at once: a fleet books tens of thousands of times, and asks more often. `free` makes the whole view anew, for
words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from heapq import nsmallest
from math import floor

from ..domain import CpuPlacement, HostDevice
from ..inventory.free import Free, describe_holders, describe_memory, free, set_aside, usual_memory
from ..inventory.host import Cpu, Holding, Host
from ..manifest.topology import HostPolicy
from ..quantity import format_bytes
from .cpubits import bits_of
from .trust import Parting

ANYWHERE = CpuPlacement()


class CpuState:
    """A logical processor and who is on it. `load`: vCPUs of the domains pinned here, each spread over its pins."""

    __slots__ = ("bit", "core", "dedicated_to", "id", "load", "node", "pinned_by", "pooled", "reserved", "socket")

    def __init__(self, cpu: Cpu, bit: int, reserved: bool, pooled: bool | None) -> None:
        self.id, self.core, self.socket, self.node = cpu.id, cpu.core, cpu.socket, cpu.node
        self.bit, self.reserved, self.pooled = bit, reserved, pooled
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
        self.bits = bits = bits_of(host.cpus)
        reserved, pool = frozenset(policy.reserved_cpus), frozenset(policy.shared_cpus)
        self.cpus = {
            cpu.id: CpuState(cpu, bits.bit[cpu.id], cpu.id in reserved, cpu.id in pool if pool else None)
            for cpu in sorted(host.cpus, key=lambda cpu: cpu.id)
        }
        self.cores = tuple(tuple(self.cpus[number] for number in bits.cpus(core)) for core in bits.cores(bits.all))
        self._core_of = {core[0].core: core for core in self.cores}
        self.nodes = sorted({cpu.node for cpu in host.cpus})
        self.vacant = bits.of(cpu.id for cpu in self.cpus.values() if cpu.vacant)
        """The processors that can be dedicated one by one."""
        self.whole = sum(core for core in bits.cores(self.vacant) if not core & ~self.vacant)
        """Those of cores on which every one is vacant."""
        self._shareable = sum(cpu.shareable for cpu in self.cpus.values())
        # Of vCPUs on shareable processors, and of those that float.
        self._load = 0.0
        self._most_vcpus = self._shareable * policy.cpu_overcommit
        self._most_memory = host.memory - policy.reserved_memory - set_aside(host.nodes)
        self.memory = self._most_memory
        self._node_memory = {node.id: node.memory - set_aside((node,)) for node in host.nodes}
        self.holdings: list[Holding] = []
        self.floating: list[Holding] = []
        self._of_huge_pages: list[Holding] = []
        self._before: list[_Before] = []
        self._free: Free | None = None
        self._vcpus: int | None = None
        self.parting = Parting(host.name)
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
                node_devices=tuple([device.address for device in devices]),
            )
        )

    def mark(self) -> int:
        """Where the book is now, for `back_to`."""
        return len(self.holdings)

    def back_to(self, mark: int) -> None:
        """Take back what was booked since the mark."""
        while len(self.holdings) > mark:
            self._free = self._vcpus = None
            holding, before = self.holdings.pop(), self._before.pop()
            # As they were, not less what was added: sums of fractions do not come back.
            self.memory, self.vacant, self.whole, self._shareable, self._load, loads = before
            for cpu, load in loads:
                cpu.load = load
                cpu.pinned_by.pop()
                if holding.dedicated:
                    cpu.dedicated_to.pop()
            if holding.floats:
                self.floating.pop()
            if holding.page_size:
                self._of_huge_pages.pop()
            self._bind(holding, usual_memory(holding))

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
        if self._vcpus is None:
            self._vcpus = max(0, self._left(0))
        return self._vcpus

    def _left(self, alone: int) -> int:
        """The same once so many more processors are somebody's alone; below zero, how many do not fit any more."""
        # Rounded before it is cut: thirds of vCPUs must not lose a whole one.
        return floor(round((self._shareable - alone) * self.policy.cpu_overcommit - self._load, 6))

    @property
    def pressure(self) -> float:
        """How full the host is, of memory or of virtual CPUs, whichever is fuller: 0 is empty."""
        return max(1 - self.memory / (self._most_memory or 1), 1 - self.vcpus / (self._most_vcpus or 1))

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
        return CpuPlacement(vcpus=(pool,) * vcpus, emulator=pool) if pool else ANYWHERE

    def begun(self, node: int | None) -> int:
        """The vacant processors (of one node) of cores on which somebody is, beside whom the one that asks may be."""
        begun = self.vacant & ~self.whole & self.bits.on[node]
        if self.parting.parts:
            for core in self.bits.cores(begun):
                if not self.parted(self.cpus[self.bits.number(core)]):
                    begun &= ~core
        return begun

    def whole_cores(self, node: int | None) -> int:
        """The first processor of each core (of one node) on which every one is vacant."""
        return self.whole & self.bits.first & self.bits.on[node]

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

    def memory_on(self, node: int) -> int:
        """Bytes left for a domain whose memory comes from this node alone, as in Free.memory_on."""
        left = self._node_memory.get(node, 0)
        return left if left < self.memory else self.memory

    def huge_pages(self, size: int, node: int | None = None) -> int:
        """How many pages of `size` bytes are left (on this node, when one is given)."""
        there = sum(one.huge_pages.get(str(size), 0) for one in self.host.nodes if node in (None, one.id))
        taken = sum(
            one.memory // size
            for one in self._of_huge_pages
            if one.page_size == size and (node is None or not one.nodes or node in one.nodes)
        )
        return there - taken

    def takes(self, vcpus: int, memory: int, alone: int = 0) -> bool:
        """Whether the host has room for so much more, beyond the headroom. `alone` are processors of those that can be
        shared: who has them takes them from all others, and nothing of what is left."""
        policy = self.policy
        if memory > self.memory - policy.headroom_memory:
            return False
        if alone:
            return self._left(alone) >= policy.headroom_vcpus
        return not vcpus or vcpus <= self.vcpus - policy.headroom_vcpus

    def lacks(self, vcpus: int, memory: int, alone: int = 0) -> str:
        """Why the host does not take so much more, with the arithmetic; empty when it does."""
        policy = self.policy
        headroom = policy.headroom_vcpus
        kept = f", {headroom} kept as headroom" if headroom else ""
        booked, overcommit = f"{round(self._load, 6):g}", f"with an overcommit of {policy.cpu_overcommit:g}"
        if alone and self._left(alone) < headroom:
            asked = f"{alone} CPU{'' if alone == 1 else 's'} for itself asked"
            room = f"{max(self._shareable - alone, 0)} would be left for the {booked} virtual CPUs that share"
            return f"{asked}, {room} {overcommit}{kept}"
        if not alone and vcpus and vcpus > (left := self.vcpus - headroom):
            if not self._shareable:
                return f"{vcpus} virtual CPUs asked, no CPU can be shared: {describe_holders(self.free)}"
            there = f"{booked} booked on {self._shareable} CPUs {overcommit}{kept}"
            return f"{vcpus} virtual CPUs asked, {max(left, 0)} left: {there}"
        if memory > self.memory - policy.headroom_memory:
            kept = f", {format_bytes(policy.headroom_memory)} kept as headroom" if policy.headroom_memory else ""
            return f"memory: {describe_memory(self.free, memory)}{kept}"
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
        self._free = self._vcpus = None
        pins = [self.cpus[number] for number in holding.cpus if number in self.cpus]
        loads = [(cpu, cpu.load) for cpu in pins]
        self._before.append((self.memory, self.vacant, self.whole, self._shareable, self._load, loads))
        if holding.floats:
            # Counted once, for the whole host.
            self._load += holding.vcpus
            self.floating.append(holding)
        share = 0.0 if holding.floats else holding.vcpus / (len(pins) or 1)
        for cpu in pins:
            self.vacant &= ~cpu.bit
            self.whole &= ~self.bits.core[cpu.bit]
            if cpu.shareable and holding.dedicated:
                self._shareable -= 1
                self._load -= cpu.load
            elif cpu.shareable:
                self._load += share
            cpu.load += share
            cpu.pinned_by.append(holding.domain)
            if holding.dedicated:
                cpu.dedicated_to.append(holding.domain)
        if holding.page_size:
            self._of_huge_pages.append(holding)
        usual = usual_memory(holding)
        self.memory -= usual
        self._bind(holding, -usual)
        self.holdings.append(holding)

    def _bind(self, holding: Holding, memory: int) -> None:
        """Change what is left of the node to which a domain's memory is bound, if it is one."""
        if len(holding.nodes) == 1 and holding.nodes[0] in self._node_memory:
            self._node_memory[holding.nodes[0]] += memory


_Before = tuple[int, int, int, int, float, list[tuple[CpuState, float]]]
"""What a booking changes: memory, vacant, whole, shareable and load, and the load of each processor."""


def cpus_of(placement: CpuPlacement) -> tuple[int, ...]:
    """Every host CPU that the virtual CPUs of a placement run on, ascending."""
    if len(placement.vcpus) == 1 and len(placement.vcpus[0]) == 1:
        return placement.vcpus[0]
    return tuple(sorted({cpu for pin in placement.vcpus for cpu in pin})) if placement.vcpus else ()


def held_by(placement: CpuPlacement) -> tuple[int, ...]:
    """Every host CPU that nobody else may have because of a placement, or that is shared with it, ascending."""
    cpus = placement.cpus
    return tuple(sorted({*cpus, *placement.idle})) if placement.idle else cpus
