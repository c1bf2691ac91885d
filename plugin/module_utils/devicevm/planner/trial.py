"""An attempt to place a component on one host: whichever of their alternatives its device VMs can have together."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ..domain import CpuPlacement, DomainSpec
from ..inventory.host import Host
from ..manifest.topology import Client
from .book import Book
from .code import Code
from .component import Component
from .given import footing_of
from .grouping import Unit
from .layout import Pick, fit_client
from .placed import Placed, Seat, passing
from .requests import Want
from .resources import Alternative, Footing, Misfit, describe, fits
from .resources.near import Beside
from .runnable import why_not_boot, why_not_run
from .specify import specify_client, specify_device_vm, unit_memory

if TYPE_CHECKING:
    from .placement import Placement

ATTEMPTS = 256
"""How often alternatives of one component are tried anew on one host, because what comes after them does not fit."""


_UNTOLD = "it does not fit"

Turn = Generator[None, Any, list[str]]
"""A unit being placed: it yields when it is, is sent why the rest cannot be, and returns why it cannot be itself."""


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
    instead: dict[str, tuple[Alternative, ...]] = field(default_factory=dict)
    """What is tried for some units in place of what is asked for them."""

    def place(self, component: Component, wants: dict[str, list[Want]]) -> list[str]:
        """Book everything; the reasons why something does not fit (then the trial is thrown away)."""
        greedy_first = [pick.unit for pick in self.picks] or component.greedy_first
        # Clients with processors of their own have no alternatives, and device VMs may have to be near them.
        return self._place_clients(
            [client for client in component.clients if client.cpus], component, wants
        ) or self._place_units(greedy_first, lambda: self._place_last(component, wants))

    def _place_clients(self, clients: list[Client], component: Component, wants: dict[str, list[Want]]) -> list[str]:
        return [reason for client in clients for reason in self._place_client(client, component, wants)]

    def _place_last(self, component: Component, wants: dict[str, list[Want]]) -> list[str]:
        others = [client for client in component.clients if not client.cpus]
        return self._place_clients(others, component, wants)

    def _place_units(self, units: list[Unit], last: Callable[[], list[str]]) -> list[str]:
        """Place units one after the other, each so that those after it and what comes last can be placed as well."""
        # No function that calls itself: clients that want each other near bring a fleet's device VMs along.
        turns: list[Turn] = []
        while True:
            failed: list[str] = []
            if len(turns) < len(units):
                turns.append(self._turn(units[len(turns)]))
            elif not (failed := last()):
                return []
            if failed := _go_on(turns, failed):
                return failed

    def _alternatives(self, unit: Unit) -> tuple[Alternative, ...]:
        return self.instead.get(unit.name) or unit.resources

    def _beside(self, unit: Unit) -> Beside:
        """Where the clients of a unit that is to be near them are, or are going to be."""
        alternatives = self._alternatives(unit)
        if not any("near" in request.options for alternative in alternatives for request in alternative):
            return ()
        there = {seat.name: seat.placement for seat in self.placed.seats}
        roaming = self.book.roaming(1)
        return tuple(
            (name, there.get(name) or self.placement.stands.get(name) or roaming) for name in sorted(unit.clients)
        )

    def _turn(self, unit: Unit) -> Turn:
        """Place a unit on its first alternative, and on the next one as often as it is sent why the rest cannot be
        placed then; at last the reasons why there are no more."""
        memory = unit_memory(unit)
        # Only what was declared can be too little.
        if unit.declared and unit.declared.memory and unit.memory_needed > memory:
            return [f"{unit.name} is declared with {memory} bytes of memory, its devices need {unit.memory_needed}"]
        stays = self.placement.staying.get(unit.name)
        if unit.observed and stays == "":
            code = self.placement.codes.get(unit.name, Code())
            self._accept(
                unit, footing_of(unit.observed, memory, code), lambda: ("it runs there already and still fits",)
            )
            return (yield) or []
        self.book.parting.asks(unit.name)
        reasons: list[Callable[[], str]] = [lambda: f"it could not stay: {stays}"] if stays else []
        picked = next((pick.alternative for pick in self.picks if pick.unit is unit), 0)
        alternatives = self._alternatives(unit)
        answers = fits(alternatives, self.book, memory, unit.size, self._beside(unit))
        for number, (alternative, answer) in enumerate(answers):
            if isinstance(answer, Misfit):
                reasons.append(_of(alternative, answer.why))
                continue
            if other := why_not_run(unit, answer, self.host):
                reasons.append(_of(alternative, _said(other)))
                continue
            mark, before = self.book.mark(), len(self.placed.seats)
            if number < picked:
                reasons.append(_of(alternative, _said("it fits, but then others would find no place")))
                continue
            refused = tuple(why() for why in reasons)  # of the book as it is now
            self.book.book(
                unit.name, answer.placement, answer.vcpus, answer.memory, answer.page_size, answer.host_devices
            )
            self._accept(unit, answer, partial(_why_taken, refused, alternative, answer))
            failed = (yield) or []
            self.attempts -= 1
            if len(alternatives) == 1 or self.attempts <= 0:
                return failed
            self.book.back_to(mark)
            del self.placed.seats[before:]
            self.book.parting.asks(unit.name)  # the next alternative is looked for on its behalf again
            reasons.append(_of(alternative, _said(f"it fits, but then {failed[0]}")))
        if not self.telling:
            return [_UNTOLD]
        return [f"{unit.name}: {why()}" for why in reasons] or [f"{unit.name}: no resources are declared for it"]

    def _accept(self, unit: Unit, footing: Footing, reasons: Callable[[], tuple[str, ...]]) -> None:
        placement = self.placement
        specify = partial(specify_device_vm, unit, self.host, placement.owner, footing, upgrade=placement.upgrade)
        self.placed.seats.append(Seat(unit.name, footing.placement, specify, reasons))

    def _place_client(self, client: Client, component: Component, wants: dict[str, list[Want]]) -> list[str]:
        if missing := why_not_boot(client.boot, self.host):
            return [f"{client.name}: {missing}"]
        if self.placement.staying.get(client.name) == "":
            placement = self.placement.stands[client.name]
        else:
            self.book.parting.asks(client.name)
            answer = fit_client(client, self.book)
            if isinstance(answer, Misfit):
                return [f"{client.name}: {answer.reason}"]
            placement = answer.placement
            if client.vm is not None:
                self.book.book(client.name, placement, client.vcpus, client.memory)
        owner, there = self.placement.owner, self.placement.observed.get(client.name)
        # Not of `self`: a place that knew its trial would be a circle, which nobody collects (planner.py).
        specify = partial(
            _specify_client, client, wants.get(client.name, []), component, self.host, owner, placement, there
        )
        self.placed.seats.append(Seat(client.name, placement, specify))
        return []

    def done(self) -> Placed:
        """What came of it. Which domains may run on processors that are dedicated now is as it is now."""
        staying = self.placement.staying
        alone = [seat for seat in self.placed.seats if seat.placement.dedicated and staying.get(seat.name) != ""]
        if alone and self.book.floating:
            self.placed.passing = partial(passing, alone, tuple(self.book.floating), self.book, self.placement.owner)
        return self.placed


def _go_on(turns: list[Turn], failed: list[str]) -> list[str]:
    """Let the last one that can place its unit, or place it anew since the rest `failed`; without those that cannot.
    The reasons when nobody can."""
    while turns:
        try:
            turns[-1].send(failed or None)
        except StopIteration as end:
            failed = end.value
            turns.pop()
        else:
            return []
    return failed


def _specify_client(
    client: Client,
    wants: list[Want],
    component: Component,
    host: Host,
    owner: str,
    placement: CpuPlacement,
    there: DomainSpec | None,
) -> DomainSpec:
    spec = specify_client(client, wants, component.homes, host, owner, placement)
    return there if there is not None and there == spec else spec


def _why_taken(refused: tuple[str, ...], alternative: Alternative, footing: Footing) -> tuple[str, ...]:
    return (*refused, f"{describe(alternative)}: {'; '.join(footing.reasons)}")


def _of(alternative: Alternative, why: Callable[[], str]) -> Callable[[], str]:
    return lambda: f"{describe(alternative)}: {why()}"


def _said(text: str) -> Callable[[], str]:
    return lambda: text
