"""Carrying out a plan whose steps fail in ways that nobody foresaw."""

from __future__ import annotations

from typing import Any, cast

import pytest
from devicevm.apply.actions import Context
from devicevm.apply.executor import execute
from devicevm.apply.progress import Progress
from devicevm.domain import DomainSpec, Role
from devicevm.errors import DevicevmError
from devicevm.manifest.topology import Boot
from devicevm.planner.plan import Action, Effect, Phase, Plan, Step, Subject


class Driver:
    """Remembers what it was asked; `fails` says at what, and how."""

    def __init__(self, **fails: BaseException) -> None:
        self.fails = fails
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def ask(subject: Any) -> None:
            self.asked.append(f"{name} {getattr(subject, 'name', subject)}")
            if name in self.fails:
                raise self.fails[name]

        return ask


def step(key: str, *after: str) -> Step:
    action, kind, name = key.split("/")
    return Step(key, Action(action), Subject(kind), name, Phase.REQUEST, Effect.NONE, "", after)


PLAN = Plan(
    "lab",
    "0",
    steps=(
        step("define/client/a"),
        step("start/client/a", "define/client/a"),
        step("define/client/b", "start/client/a"),
    ),
    domains=tuple(
        DomainSpec(name, "u", Role.CLIENT, "lab", "h1", 1, 2**20, "tcg", "x86_64", "pc", Boot()) for name in "ab"
    ),
)


def context(driver: Driver) -> Context:
    return Context(PLAN, cast(Any, driver), False, 1.0)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OverflowError("timestamp too large"), "unexpected OverflowError: timestamp too large"),
        (OSError(28, "No space left on device"), "unexpected OSError: [Errno 28] No space left on device"),
        (KeyError("x"), "unexpected KeyError: 'x'"),
        (MemoryError(), "unexpected MemoryError"),
    ],
)
def test_whatever_a_step_raises_is_its_failure_and_undone(error: Exception, says: str) -> None:
    driver = Driver(start=error)
    outcome = execute(context(driver), 2, 2, Progress())
    assert (outcome.done, outcome.failed, outcome.skipped) == (
        ["define/client/a"],
        ["start/client/a"],
        ["define/client/b"],
    )
    assert outcome.undone == ["start/client/a", "define/client/a"]
    assert driver.asked[-1] == "undefine a"
    told = outcome.errors["start/client/a"]
    assert told.message == says
    assert told.hint
    assert told.__cause__ is error


def test_what_cannot_be_undone_does_not_keep_the_rest_from_it() -> None:
    driver = Driver(start=DevicevmError("no"), stop=ValueError("never mind"))
    outcome = execute(context(driver), 1, 1, Progress())
    assert outcome.errors["start/client/a"].message == "no"
    assert outcome.undo_errors["start/client/a"].message == "unexpected ValueError: never mind"
    assert set(outcome.undo_errors) == {"start/client/a", "define/client/a"}
    driver = Driver(define=DevicevmError("no"), undefine=OSError(5, "bad disk"))
    assert list(execute(context(driver), 1, 1, Progress()).undo_errors) == ["define/client/a"]


def test_an_end_of_the_process_is_no_failed_step() -> None:
    with pytest.raises(SystemExit):
        execute(context(Driver(start=SystemExit(3))), 1, 1, Progress())
