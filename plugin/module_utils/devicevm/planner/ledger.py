"""The book of one host: what may be handed out, who holds what, and what is left.

A plan starts from what domains of others hold, then books what stays, then what is new. The
book refuses nothing by itself: resource kinds ask it what is free and say in its words why not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..inventory.cpuset import format_cpuset
from ..inventory.host import Cpu, Holding, Host
from ..manifest.topology import HostPolicy
from ..quantity import format_bytes
from .domain import CpuPlacement


@dataclass
class Seat:
    """One logical processor: who has it alone, and who else is pinned to it."""

    cpu: Cpu
    dedicated_to: str = ""
    pinned: list[str] = field(default_factory=list)


class Ledger:
    """Bookings on one host. Memory in bytes."""

    def __init__(self, host: Host, policy: HostPolicy, mine: frozenset[str]) -> None:
        """`mine` are the domains that this plan books itself; all other holdings are booked now."""
        self.host = host
        self.policy = policy
        reserved = set(policy.reserved_cpus)
        self.seats = {cpu.id: Seat(cpu) for cpu in host.cpus if cpu.id not in reserved}
        self.memory_free = host.memory - policy.reserved_memory
        self.vcpus_booked = 0
        self.floating: list[str] = []
        for holding in host.holdings:
            if holding.domain not in mine:
                self._book_holding(holding)

    def copy(self) -> Ledger:
        """A book to try things in; the host and its policy are shared."""
        twin = Ledger.__new__(Ledger)
        twin.host, twin.policy = self.host, self.policy
        twin.seats = {
            number: Seat(seat.cpu, seat.dedicated_to, list(seat.pinned)) for number, seat in self.seats.items()
        }
        twin.memory_free, twin.vcpus_booked, twin.floating = self.memory_free, self.vcpus_booked, list(self.floating)
        return twin

    def book(self, domain: str, placement: CpuPlacement, vcpus: int, memory: int) -> None:
        """Write down that `domain` has this placement and memory."""
        self._book(domain, placement.vcpus, placement.dedicated, vcpus, memory)

    def _book_holding(self, holding: Holding) -> None:
        pins = (holding.cpus,) if holding.cpus and not holding.floats else ()
        self._book(holding.domain, pins, holding.dedicated, holding.vcpus, holding.memory)

    def _book(self, domain: str, pins: tuple[tuple[int, ...], ...], dedicated: bool, vcpus: int, memory: int) -> None:
        self.memory_free -= memory
        self.vcpus_booked += vcpus
        if not pins:
            self.floating.append(domain)
        for cpu in sorted({cpu for pin in pins for cpu in pin}):
            seat = self.seats.get(cpu)
            if seat is None:
                continue
            seat.pinned.append(domain)
            if dedicated:
                seat.dedicated_to = domain

    def lacks(self, vcpus: int, memory: int) -> str:
        """Why the host has no room for so much more, with the arithmetic; empty when it has."""
        limit = int(len(self.seats) * self.policy.cpu_overcommit)
        if self.vcpus_booked + vcpus > limit:
            return (
                f"{vcpus} virtual CPUs asked, {max(limit - self.vcpus_booked, 0)} left: {self.vcpus_booked} booked of "
                f"{limit} ({len(self.seats)} CPUs x overcommit {self.policy.cpu_overcommit:g})"
            )
        if memory > self.memory_free:
            return (
                f"{format_bytes(memory)} of memory asked, {format_bytes(max(self.memory_free, 0))} free of "
                f"{format_bytes(self.host.memory)}: {format_bytes(self.policy.reserved_memory)} reserved, "
                "the rest held by domains"
            )
        return ""

    def empty_seats(self) -> list[Seat]:
        """The logical processors to which nobody is pinned, in order."""
        return [seat for seat in self.seats.values() if not seat.pinned]

    def shared_seats(self) -> list[Seat]:
        """The logical processors that may take one more virtual CPU, the least loaded first."""
        room = [
            seat
            for seat in self.seats.values()
            if not seat.dedicated_to and len(seat.pinned) < self.policy.cpu_overcommit
        ]
        return sorted(room, key=lambda seat: (len(seat.pinned), seat.cpu.id))

    def whole_cores(self) -> list[tuple[int, ...]]:
        """The cores all of whose threads may be handed out and hold nobody, in order of their first thread."""
        empty = {seat.cpu.id for seat in self.empty_seats()}
        cores: dict[str, list[int]] = {}
        for cpu in self.host.cpus:
            cores.setdefault(cpu.core, []).append(cpu.id)
        return sorted(tuple(threads) for threads in cores.values() if set(threads) <= empty)

    def may_stay(self, placement: CpuPlacement) -> str:
        """Why a placement made earlier cannot stay; empty when it can."""
        for cpu in sorted({cpu for pin in placement.vcpus for cpu in pin}):
            seat = self.seats.get(cpu)
            if seat is None:
                return f"CPU {cpu} is now reserved or gone"
            if seat.dedicated_to:
                return f"CPU {cpu} is now dedicated to {seat.dedicated_to}"
            if placement.dedicated and seat.pinned:
                return f"CPU {cpu} is no longer its own: {', '.join(seat.pinned)} is pinned to it"
        return ""

    def taken(self) -> str:
        """Who has the processors that cannot be had, for a message: `0-1 reserved, 6 held by web-dvm`."""
        parts = []
        if self.policy.reserved_cpus:
            parts.append(f"{format_cpuset(self.policy.reserved_cpus)} reserved")
        held: dict[str, list[int]] = {}
        for seat in self.seats.values():
            for domain in seat.pinned:
                held.setdefault(domain, []).append(seat.cpu.id)
        parts += [f"{format_cpuset(tuple(cpus))} held by {domain}" for domain, cpus in sorted(held.items())]
        return ", ".join(parts) or "none held"
