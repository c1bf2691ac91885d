"""thread: a processor execution thread, that is one logical processor of the host."""

from __future__ import annotations

from dataclasses import dataclass

from ...domain import CpuPlacement
from ...inventory.cpuset import format_cpuset
from ...inventory.free import describe_taken
from ...manifest.topology import ResourceRequest
from ..ledger import Ledger, cpus_of
from .kind import Fit, Misfit, words


@dataclass(frozen=True)
class Thread:
    """`count` logical processors: dedicated, or the least loaded of those that may be shared."""

    name: str = "thread"

    def fit(self, request: ResourceRequest, ledger: Ledger) -> Fit | Misfit:
        """One virtual CPU for each logical processor, pinned to it."""
        loaded = ledger.least_loaded()
        numbers = ledger.free.vacant_cpus() if request.dedicated else tuple(cpu.id for cpu in loaded)
        if len(numbers) < request.count:
            return Misfit(describe_taken(ledger.free, request.count, "thread"))
        cpus = tuple(sorted(numbers[: request.count]))
        load = sum(cpu.load for cpu in loaded if cpu.id in cpus)
        why = "nobody else is pinned to it" if request.dedicated else f"the least loaded, with {load:g} pinned there"
        placement = CpuPlacement(
            vcpus=tuple((cpu,) for cpu in cpus),
            emulator=cpus if request.dedicated else (),
            dedicated=request.dedicated,
            unit=self.name,
        )
        return Fit(placement, request.count, f"CPU {format_cpuset(cpus)}: {why}")

    def fulfils(self, request: ResourceRequest, placement: CpuPlacement, ledger: Ledger) -> bool:
        """As many logical processors, and alone as asked."""
        asked = (self.name, request.count, request.dedicated)
        return (placement.unit, len(cpus_of(placement)), placement.dedicated) == asked

    def describe(self, request: ResourceRequest) -> str:
        """`1 dedicated thread`."""
        return words(request, "thread")


KIND = Thread()
