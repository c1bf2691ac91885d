"""What a plan comes to, in few words: how many domains are added, changed and removed, and who feels it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..planner.plan import Action, Effect, Plan, Step, Subject

DISTURBING = frozenset({Effect.RESTART, Effect.REPLACE, Effect.REMOVE})
"""What a person at a terminal is asked about."""


class Kind(str, Enum):
    """What becomes of the subject of a step, as the mark in front of it."""

    ADD = "+"
    CHANGE = "~"
    REMOVE = "-"


@dataclass(frozen=True)
class Counts:
    """How many domains (and stores to delete) there are of each kind of change."""

    add: int
    change: int
    remove: int


def kinds_of(plan: Plan) -> dict[str, Kind]:
    """What becomes of each step's subject, by step id. A domain that is stopped and defined anew is changed."""
    before = {spec.name for spec in plan.previous}
    found: dict[tuple[Subject, str], Kind] = {}
    for step in plan.steps:
        key = step.kind, step.name
        if step.action in (Action.UNDEFINE, Action.DELETE, Action.DETACH):
            found[key] = Kind.REMOVE
        elif step.action in (Action.DEFINE, Action.ATTACH) and step.name not in before:
            found.setdefault(key, Kind.ADD)
        elif step.action is Action.ATTACH:
            found[key] = Kind.CHANGE  # taken out, and put in again
        else:
            found.setdefault(key, Kind.CHANGE)
    return {step.id: found[step.kind, step.name] for step in plan.steps}


def count(plan: Plan, only: set[str] | None = None) -> Counts:
    """The plan's changes, or those to which the steps `only` belong.

    Creating backing storage is not counted: it is only made sure of, for a device VM that is.
    """
    kinds = kinds_of(plan)
    counted = {
        (step.kind, step.name): kinds[step.id]
        for step in plan.steps
        if step.action is not Action.CREATE and (only is None or step.id in only)
    }
    values = list(counted.values())
    return Counts(values.count(Kind.ADD), values.count(Kind.CHANGE), values.count(Kind.REMOVE))


def summary(plan: Plan) -> str:
    """`3 to add, 1 to change, 0 to remove.` or `No changes.`; and how much cannot be placed."""
    counts = count(plan)
    words = (
        f"{counts.add} to add, {counts.change} to change, {counts.remove} to remove." if plan.changes else "No changes."
    )
    return f"{words} {len(plan.unplaced)} cannot be placed." if plan.unplaced else words


def disturbances(plan: Plan) -> list[Step]:
    """The steps that running clients feel as more than a hiccup."""
    return [step for step in plan.steps if step.effect in DISTURBING]
