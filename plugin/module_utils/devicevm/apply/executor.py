"""Carries out a plan: steps in parallel where their order allows, and the way back when one fails."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from ..errors import DevicevmError
from ..planner.plan import Action, Step
from .actions import Context, perform, revert
from .progress import Progress

# These make something; when all that was built on it failed, it was made for nothing.
_MAKING = {Action.CREATE, Action.DEFINE, Action.START, Action.UPDATE}


@dataclass
class Outcome:
    """What became of each step, by id; `errors` tells why, `undo_errors` what could not be put back."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    errors: dict[str, DevicevmError] = field(default_factory=dict)
    undo_errors: dict[str, DevicevmError] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything was done."""
        return not self.failed and not self.skipped


def execute(context: Context, parallel: int, progress: Progress) -> Outcome:
    """Do every step of the context's plan, `parallel` at once; undo what a failure made useless.

    An interrupt (KeyboardInterrupt) starts nothing more, waits for what has begun, and is raised
    again: what is done stays, the next plan goes on from there.
    """
    outcome = Outcome()
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="step") as pool:
        run = _Run(context, progress, outcome, pool)
        run.go()
    if outcome.failed:
        _put_back(context, progress, outcome)
    return outcome


class _Run:
    """One walk through the steps."""

    def __init__(self, context: Context, progress: Progress, outcome: Outcome, pool: ThreadPoolExecutor) -> None:
        self.context, self.progress, self.outcome, self.pool = context, progress, outcome, pool
        self.waiting = {step.id: step for step in context.plan.steps}
        self.running: dict[Future[float], Step] = {}

    def go(self) -> None:
        """Start what can start, collect what is done, until nothing is left."""
        self._start_ready()
        while self.running:
            finished, _ = wait(self.running, return_when=FIRST_COMPLETED)
            for future in finished:
                self._collect(self.running.pop(future), future)
            self._start_ready()
        self.outcome.skipped += list(self.waiting)

    def _start_ready(self) -> None:
        known = {step.id for step in self.context.plan.steps}
        done = set(self.outcome.done)
        for step in [step for step in self.waiting.values() if done >= set(step.after) & known]:
            del self.waiting[step.id]
            self.progress.started(step)
            self.running[self.pool.submit(self._timed, step)] = step

    def _timed(self, step: Step) -> float:
        begun = time.monotonic()
        perform(self.context, step)
        return time.monotonic() - begun

    def _collect(self, step: Step, future: Future[float]) -> None:
        try:
            seconds = future.result()
        except DevicevmError as error:
            self.outcome.failed.append(step.id)
            self.outcome.errors[step.id] = error
            self.progress.failed(step, error)
            return
        self.outcome.done.append(step.id)
        self.progress.done(step, seconds)


def _put_back(context: Context, progress: Progress, outcome: Outcome) -> None:
    """Undo the failed steps and what was made only for them, the last first."""
    steps = {step.id: step for step in context.plan.steps}
    for key in to_undo(context.plan.steps, outcome):
        try:
            revert(context, steps[key])
        except DevicevmError as error:
            outcome.undo_errors[key] = error
            continue
        outcome.undone.append(key)
        progress.undone(steps[key])


def to_undo(steps: tuple[Step, ...], outcome: Outcome) -> list[str]:
    """The ids of the steps to undo, in the order to do it.

    A failed step was begun, so it is undone; a done one, when something was built on it and all of
    that failed, was skipped or is undone; a stopped domain, when what it was stopped for is undone.
    """
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
        elif step.id in outcome.done and users[step.id] and useless.issuperset(users[step.id]):
            if step.action in _MAKING or step.action is Action.STOP:
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
