"""thread: a processor execution thread, that is one logical processor of the host."""

from __future__ import annotations

from dataclasses import dataclass

from ...inventory.cpuset import format_cpuset
from ...manifest.topology import ResourceRequest
from ..domain import CpuPlacement
from ..ledger import Ledger, Seat
from .kind import Fit, Misfit, words


@dataclass(frozen=True)
class Thread:
    """`count` logical processors: dedicated, or the least loaded of those that may be shared."""

    name: str = "thread"

    def fit(self, request: ResourceRequest, ledger: Ledger) -> Fit | Misfit:
        """One virtual CPU for each logical processor, pinned to it."""
        seats = ledger.empty_seats() if request.dedicated else ledger.shared_seats()
        if len(seats) < request.count:
            return Misfit(f"{request.count} asked, {len(seats)} free of {len(ledger.host.cpus)}: {ledger.taken()}")
        chosen = seats[: request.count]
        cpus = tuple(sorted(seat.cpu.id for seat in chosen))
        placement = CpuPlacement(
            vcpus=tuple((cpu,) for cpu in cpus),
            emulator=cpus if request.dedicated else (),
            dedicated=request.dedicated,
            unit=self.name,
        )
        return Fit(placement, request.count, f"CPU {format_cpuset(cpus)}{_why(request, chosen)}")

    def describe(self, request: ResourceRequest) -> str:
        """`1 dedicated thread`."""
        return words(request, "thread")


def _why(request: ResourceRequest, chosen: list[Seat]) -> str:
    if request.dedicated:
        return ", which nobody else is pinned to"
    load = sum(len(seat.pinned) for seat in chosen)
    return f", the least loaded ({load} pinned there)"


KIND = Thread()
