"""core: a processor core with all its threads, so that no SMT sibling belongs to anybody else."""

from __future__ import annotations

from dataclasses import dataclass

from ...domain import CpuPlacement
from ...inventory.cpuset import format_cpuset
from ...inventory.free import describe_taken
from ...manifest.topology import ResourceRequest
from ..ledger import Ledger, cpus_of
from .kind import Fit, Misfit


@dataclass(frozen=True)
class Core:
    """`count` whole cores. A core is always had alone: a shared core would be threads."""

    name: str = "core"

    def fit(self, request: ResourceRequest, ledger: Ledger) -> Fit | Misfit:
        """One virtual CPU for each thread of each core, pinned to it."""
        cores = ledger.free.vacant_cores()
        if len(cores) < request.count:
            return Misfit(describe_taken(ledger.free, request.count, "core"))
        cpus = tuple(sorted(cpu for threads in cores[: request.count] for cpu in threads))
        placement = CpuPlacement(vcpus=tuple((cpu,) for cpu in cpus), emulator=cpus, dedicated=True, unit=self.name)
        return Fit(
            placement,
            len(cpus),
            f"CPU {format_cpuset(cpus)}: every thread of its core{'s' if request.count > 1 else ''}",
        )

    def fulfils(self, request: ResourceRequest, placement: CpuPlacement, ledger: Ledger) -> bool:
        """All threads of as many cores."""
        cores = {ledger.cpus[cpu].core for cpu in cpus_of(placement) if cpu in ledger.cpus}
        return placement.unit == self.name and len(cores) == request.count

    def describe(self, request: ResourceRequest) -> str:
        """`1 core`."""
        return f"{request.count} core{'s' if request.count != 1 else ''}"


KIND = Core()
