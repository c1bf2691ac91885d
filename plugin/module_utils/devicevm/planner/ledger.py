"""The book of one host while a plan is made: who holds what, those included that the plan itself places.

It starts from what domains of others hold, then what stays is booked, then what is new. A book is
never changed: booking gives a new one, so an attempt that fails is simply dropped. What is free is
counted in one place, inventory/free.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ..domain import CpuPlacement
from ..inventory.free import CpuUse, Free, describe_memory, free
from ..inventory.host import Holding, Host
from ..manifest.topology import HostPolicy


@dataclass(frozen=True)
class Ledger:
    """A host, its policy, and every holding on it. Memory in bytes."""

    host: Host
    policy: HostPolicy

    @classmethod
    def open(cls, host: Host, policy: HostPolicy, mine: frozenset[str]) -> Ledger:
        """The book with everybody's holdings but those of `mine`, which the plan books itself."""
        others = tuple(holding for holding in host.holdings if holding.domain not in mine)
        return cls(replace(host, holdings=others), policy)

    def book(self, domain: str, placement: CpuPlacement, vcpus: int, memory: int) -> Ledger:
        """The book in which `domain` has this placement and memory."""
        cpus = cpus_of(placement)
        held = Holding(domain, "", True, vcpus, memory, cpus, not cpus, placement.dedicated, nodes=placement.nodes)
        return replace(self, host=replace(self.host, holdings=(*self.host.holdings, held)))

    @cached_property
    def free(self) -> Free:
        """What is left."""
        return free(self.host, self.policy)

    @cached_property
    def cpus(self) -> dict[int, CpuUse]:
        """Each logical processor of the host and who is on it."""
        return {cpu.id: cpu for cpu in self.free.cpus}

    @property
    def floating(self) -> tuple[str, ...]:
        """The domains that may run on any processor, dedicated ones included."""
        return tuple(sorted(holding.domain for holding in self.host.holdings if holding.floats))

    def least_loaded(self) -> list[CpuUse]:
        """The processors that may take one more virtual CPU, the least loaded first."""
        room = [cpu for cpu in self.free.cpus if cpu.shareable and cpu.load + 1 <= self.policy.cpu_overcommit]
        return sorted(room, key=lambda cpu: (cpu.load, cpu.id))

    def lacks(self, vcpus: int, memory: int) -> str:
        """Why the host has no room for so much more, with the arithmetic; empty when it has."""
        if vcpus > self.free.vcpus:
            booked = sum(holding.vcpus for holding in self.host.holdings)
            return (
                f"{vcpus} virtual CPUs asked, {self.free.vcpus} left: {booked} booked on "
                f"{len(self.free.shareable_cpus())} CPUs with an overcommit of {self.policy.cpu_overcommit:g}"
            )
        if memory > self.free.memory:
            return f"memory: {describe_memory(self.free, memory)}"
        return ""

    def may_stay(self, placement: CpuPlacement) -> str:
        """Why a placement made earlier cannot stay; empty when it can."""
        for number in cpus_of(placement):
            cpu = self.cpus.get(number)
            if cpu is None:
                return f"CPU {number} is gone"
            if cpu.reserved:
                return f"CPU {number} is now reserved"
            if cpu.dedicated_to:
                return f"CPU {number} is now dedicated to {', '.join(cpu.dedicated_to)}"
            if placement.dedicated and cpu.pinned_by:
                return f"CPU {number} is no longer its own: {', '.join(cpu.pinned_by)} is pinned to it"
        return ""


def cpus_of(placement: CpuPlacement) -> tuple[int, ...]:
    """Every host CPU that a placement names, ascending."""
    return tuple(sorted({cpu for pin in placement.vcpus for cpu in pin}))
