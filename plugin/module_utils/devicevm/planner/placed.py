"""What came of placing a component, while it may still come to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from ..domain import CpuPlacement, DomainSpec
from ..inventory.cpuset import format_cpuset
from ..inventory.host import Holding
from .book import Book
from .floating import told
from .given import allocation_of
from .plan import Allocation


@dataclass
class Seat:
    """Somebody's place. The domain is said in full, and the reasons worded, when somebody asks: most attempts come to
    nothing. Clients have no reasons."""

    name: str
    placement: CpuPlacement
    specify: Callable[[], DomainSpec]
    reasons: Callable[[], tuple[str, ...]] | None = None

    @cached_property
    def spec(self) -> DomainSpec:
        """The domain in full."""
        return self.specify()


@dataclass
class Placed:
    """What came of placing a component: who has which place, or for each host why not."""

    seats: list[Seat] = field(default_factory=list)
    refusals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    passing: Callable[[], list[str]] = list
    """What tells the domains that may run on processors that are dedicated now."""
    nearest: tuple[str, ...] = ()
    host: str = ""

    @property
    def domains(self) -> list[DomainSpec]:
        """The domains that come of it."""
        return [seat.spec for seat in self.seats]

    @property
    def allocations(self) -> list[Allocation]:
        """The plan's lines on what its device VMs were given."""
        return [allocation_of(seat.spec, seat.reasons()) for seat in self.seats if seat.reasons]

    @property
    def warnings(self) -> list[str]:
        """What the user should know of it."""
        return self.passing()


def passing(alone: list[Seat], floating: tuple[Holding, ...], book: Book, owner: str) -> list[str]:
    """Tells of these places which domains among those that float may run there too."""
    names = ", ".join(told(floating, book, owner))
    return [
        f"{seat.name} has CPU {format_cpuset(seat.placement.cpus)} to itself among pinned domains, but these are "
        f"not pinned and may run there too: {names}"
        for seat in alone
        if names
    ]
