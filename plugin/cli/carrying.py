"""Carrying out a plan from the command line: ask, show progress, report what became of it."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from typing import Any

import click

from ..apply.outcome import Outcome
from ..apply.workflow import Options, carry_out, refuse_unplaced
from ..errors import DevicevmError
from ..inventory.host import Host
from ..planner.plan import Plan
from ..vmm.driver import Driver
from . import output
from .changes import count, disturbances, summary
from .interrupted import Interrupted
from .options import debugging
from .planview import describe, effect
from .progress import make_progress


@dataclass(frozen=True)
class Manner:
    """How: without asking, as which document, with which of the core's options."""

    yes: bool
    form: str
    options: Options


def confirm(question: str, manner: Manner) -> None:
    """Ask on a terminal; Interrupted when the answer is no. Without a terminal nobody is asked."""
    if not manner.yes and output.interactive() and not click.confirm(question, default=False, err=True):
        raise Interrupted("not confirmed; nothing was changed", hint="--yes asks no questions")


def ask_about(plan: Plan, manner: Manner) -> None:
    """Tell which steps running clients feel as more than a hiccup, and ask whether to go on."""
    steps = disturbances(plan)
    if not steps:
        return
    for step in steps:
        output.note(f"  {describe(step)}: {step.reason}{effect(step)}", "yellow")
    confirm("Go on?", manner)


def carry(plan: Plan, driver: Driver, host: Host, manner: Manner) -> Outcome:
    """Carry the plan out with progress on standard error; Interrupted on Ctrl-C, saying what state is left."""
    if not manner.options.allow_unplaced:
        refuse_unplaced(plan)
    progress = make_progress(len(plan.steps))
    with progress:
        try:
            return carry_out(plan, driver, host, manner.options, progress)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted: of {len(plan.steps)} steps {len(progress.finished)} were done, those that had begun "
                "were brought to their end, and nothing is undone",
                hint="the same command goes on from here; devicevm destroy takes everything away",
            ) from None


def report(plan: Plan, outcome: Outcome, manner: Manner, verb: str) -> int:
    """The result on standard output, failures on standard error; the exit status."""
    if manner.form == "json":
        output.document(result_document(plan, outcome))
    elif outcome.ok:
        output.line(_done(plan, outcome, verb), "bold green")
    for key, error in outcome.errors.items():
        if debugging():
            traceback.print_exception(error, file=sys.stderr)
        became = "failed" if key in outcome.failed else "was done, but"
        output.error(f"{_title(plan, key)} {became}: {error.message}", error.hint)
    for key, error in outcome.undo_errors.items():
        output.error(f"{_title(plan, key)} could not be undone: {error.message}", error.hint)
    if not outcome.ok:
        left = [key for key in outcome.done if key not in outcome.undone]
        output.note(
            f"{len(outcome.failed)} failed, {len(outcome.skipped)} not begun because of that, "
            f"{len(outcome.undone)} undone, {len(left)} done and kept"
        )
        output.note("hint: the same command goes on from here once the cause is gone")
    return 0 if outcome.ok else 1


def result_document(plan: Plan, outcome: Outcome | None = None) -> dict[str, Any]:
    """What became of a plan, as data; `outcome` None = there was nothing to do."""
    outcome = outcome or Outcome()
    counts = count(plan, set(outcome.done) - set(outcome.undone))
    return {
        "plan": plan.digest,
        "owner": plan.owner,
        "changed": bool(outcome.done),
        "ok": outcome.ok,
        "counts": {"added": counts.add, "changed": counts.change, "removed": counts.remove},
        "done": list(outcome.done),
        "failed": list(outcome.failed),
        "skipped": list(outcome.skipped),
        "undone": list(outcome.undone),
        "errors": {key: _error(error) for key, error in outcome.errors.items()},
        "undoErrors": {key: _error(error) for key, error in outcome.undo_errors.items()},
        "unplaced": list(plan.unplaced),
        "warnings": list(plan.warnings),
    }


def nothing_to_do(plan: Plan, manner: Manner) -> int:
    """Say that there are no changes."""
    if manner.form == "json":
        output.document(result_document(plan))
    else:
        output.line(summary(plan))
    return 0


def _done(plan: Plan, outcome: Outcome, verb: str) -> str:
    counts = count(plan, set(outcome.done))
    words = (counts.add, "added"), (counts.change, "changed"), (counts.remove, "removed")
    return f"{verb}: {', '.join(f'{number} {word}' for number, word in words if number) or 'nothing to count'}."


def _title(plan: Plan, key: str) -> str:
    return next((describe(step) for step in plan.steps if step.id == key), key)


def _error(error: DevicevmError) -> dict[str, str]:
    return {"message": error.message, "hint": error.hint} if error.hint else {"message": error.message}
