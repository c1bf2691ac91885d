"""Domains that float over processors that are dedicated: whom to move where, when the host's policy lets them be moved.

devicevm's own say in their specification where they run; others are moved by a step of the plan, with their pins alone
changed, and what was changed kept in the domain (inventory/moved.py). Other owners' domains are never touched.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from ..domain import CpuPlacement, DomainSpec, Role
from ..inventory.cpuset import format_cpuset
from ..inventory.host import Holding
from ..manifest.topology import Consumer, FloatingDomains
from .book import Book
from .plan import Action, Effect, Phase, Repin, Step, Subject, step_id


@dataclass(frozen=True)
class Move:
    """A domain of nobody's, and what is to be done to it."""

    name: str
    active: bool
    repin: Repin
    reason: str


def unconfined(spec: DomainSpec) -> DomainSpec:
    """A specification without what `confined` added: what the planner decides by."""
    if not spec.placement.floats:
        return spec
    if spec.role is Role.CLIENT:
        return replace(spec, placement=CpuPlacement())
    return replace(spec, placement=replace(spec.placement, emulator=(), floats=False))


def confined(spec: DomainSpec, book: Book) -> DomainSpec:
    """A domain of devicevm's with its floating threads on the CPUs that are not dedicated."""
    room = room_to_float(book)
    placement = spec.placement
    if not room or spec.consumer is not Consumer.VM:
        return spec
    if spec.role is Role.CLIENT and not placement.vcpus:
        return replace(spec, placement=CpuPlacement((room,) * spec.vcpus, room, floats=True))
    if placement.vcpus and not placement.emulator:
        return replace(spec, placement=replace(placement, emulator=room, floats=True))
    return spec


def room_to_float(book: Book) -> tuple[int, ...]:
    """The CPUs that are not dedicated, when what floats is to be kept to them; empty when it may run anywhere."""
    if book.policy.floating_domains is not FloatingDomains.MOVE:
        return ()
    room = tuple(cpu.id for cpu in book.cpus.values() if not cpu.dedicated_to)
    return () if len(room) == len(book.cpus) else room


def told(floating: Iterable[Holding], book: Book, owner: str) -> list[str]:
    """Which of the domains that float on a host may run on dedicated processors and are not moved, ascending."""
    moving = book.policy.floating_domains is FloatingDomains.MOVE
    return sorted(one.domain for one in floating if not moving or one.owner or _is_kept(one, book, owner))


def moves(book: Book, owner: str, mine: Container[str]) -> list[Move]:
    """What is to be done to domains that are not devicevm's, by name."""
    room = room_to_float(book)
    found = []
    for one in sorted(
        [one for one in book.host.holdings if one.floats and not one.owner and one.domain not in mine],
        key=lambda one: one.domain,
    ):
        if _is_kept(one, book, owner):
            continue
        if room == one.moved_to and (room or not one.moved_by):
            continue
        found.append(Move(one.domain, one.active, Repin(one.uuid, book.host.name, room, one.moved_to), _why(one, book)))
    return found


def add_steps(steps: dict[str, Step], found: list[Move], desired: list[DomainSpec]) -> dict[str, Step]:
    """The steps with those that move domains: away before anybody has processors to itself, back when all is over."""
    away: dict[str, Step] = {}
    back: dict[str, Step] = {}
    names = [move.name for move in found]
    over = tuple(key for key, step in steps.items() if step.action is not Action.START)
    for move in found:
        repin = move.repin
        where = move.name if names.count(move.name) == 1 else f"{repin.host}/{move.name}"
        key = step_id(Action.REPIN, Subject.DOMAIN, where)
        wider = not repin.cpus or (repin.before and set(repin.before) < set(repin.cpus))
        (back if wider else away)[key] = Step(
            key,
            Action.REPIN,
            Subject.DOMAIN,
            move.name,
            Phase.RELEASE if wider else Phase.REQUEST,
            Effect.LIVE if move.active else Effect.NONE,
            move.reason,
            over if wider else (),
            repin=repin,
        )
    alone = {spec.name: spec.host for spec in desired if spec.placement.dedicated}
    changed = dict(steps)
    for key, step in steps.items():
        if step.name in alone and step.action in (Action.START, Action.UPDATE):
            before = tuple(k for k, one in away.items() if one.repin and one.repin.host == alone[step.name])
            changed[key] = replace(step, after=(*step.after, *before))
    return {**away, **changed, **back}


def _is_kept(one: Holding, book: Book, owner: str) -> bool:
    """Whether another owner has moved a domain and will put it back: one that is gone will not."""
    by = one.moved_by
    return by not in ("", owner) and any(holding.owner == by for holding in book.host.holdings)


def _why(one: Holding, book: Book) -> str:
    room = room_to_float(book)
    if not room:
        return "nothing is kept from it any more: it may run on any CPU again"
    taken = [cpu for cpu in book.cpus.values() if cpu.dedicated_to]
    whom = sorted({name for cpu in taken for name in cpu.dedicated_to})
    return (
        f"it floats, and CPU {format_cpuset(cpu.id for cpu in taken)} is dedicated to {', '.join(whom)}: "
        f"it keeps to CPU {format_cpuset(room)}"
    )
