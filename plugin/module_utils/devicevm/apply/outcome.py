"""What became of an apply, and the way back that follows from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import DevicevmError
from ..planner.plan import Action, Step, step_id

# What these did was for the steps after them: when all of those failed, it was for nothing.
_UNDONE = {Action.CREATE, Action.DEFINE, Action.START, Action.UPDATE, Action.STOP, Action.REPIN}
_UNDONE |= {Action.ATTACH, Action.DETACH}
_AGAIN = {Action.STOP: Action.START, Action.DETACH: Action.ATTACH}
"""What is done, only to be put back later."""


@dataclass
class Outcome:
    """What became of each step, by id; `errors` tells why, or which clients a step that was done has not let go on;
    `undo_errors` what could not be put back."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    errors: dict[str, DevicevmError] = field(default_factory=dict)
    undo_errors: dict[str, DevicevmError] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything was done, and everybody goes on."""
        return not (self.failed or self.skipped or self.errors)


def to_undo(steps: tuple[Step, ...], outcome: Outcome) -> list[str]:
    """The ids of the steps to undo, in the order to do it.

    A failed step was begun, so it is undone; a done one, when something was built on it and all of
    that failed, was skipped or is undone; a domain that was stopped to be started again, when it was not.
    """
    planned = {step.id for step in steps}
    users: dict[str, list[str]] = {step.id: [] for step in steps}
    for step in steps:
        for key in step.after:
            if key in users:
                users[key].append(step.id)
    useless = set(outcome.failed) | set(outcome.skipped)
    result = []
    for step in _last_first(steps):
        if step.id in outcome.failed:
            result.append(step.id)
        elif step.id in outcome.done and step.action in _UNDONE:
            start = step_id(_AGAIN[step.action], step.kind, step.name) if step.action in _AGAIN else ""
            again = start in planned
            if start in useless if again else users[step.id] and useless.issuperset(users[step.id]):
                useless.add(step.id)
                result.append(step.id)
    return result


def _last_first(steps: tuple[Step, ...]) -> list[Step]:
    """Steps ordered so that each comes before those it was built on."""
    by_id = {step.id: step for step in steps}
    order: list[Step] = []
    seen: set[str] = set()

    def visit(step: Step) -> None:
        if step.id in seen:
            return
        seen.add(step.id)
        for key in step.after:
            if key in by_id:
                visit(by_id[key])
        order.append(step)

    for step in steps:
        visit(step)
    return order[::-1]
