"""The way back: which steps of a failed apply are undone, and in which order."""

from __future__ import annotations

from devicevm.apply.outcome import Outcome, to_undo
from devicevm.planner.plan import Action, Effect, Phase, Step, Subject


def step(key: str, *after: str) -> Step:
    action, kind, name = key.split("/")
    return Step(key, Action(action), Subject(kind), name, Phase.REQUEST, Effect.NONE, "", after)


NEW = (
    step("define/device-vm/d"),
    step("start/device-vm/d", "define/device-vm/d"),
    step("define/client/a"),
    step("start/client/a", "define/client/a", "start/device-vm/d"),
    step("define/client/b"),
    step("start/client/b", "define/client/b", "start/device-vm/d"),
)


def test_what_was_made_only_for_a_failed_step_is_undone_last_first() -> None:
    outcome = Outcome(
        done=["define/device-vm/d", "define/client/a", "define/client/b"],
        failed=["start/device-vm/d"],
        skipped=["start/client/a", "start/client/b"],
    )
    assert to_undo(NEW, outcome) == [
        "define/client/b",
        "define/client/a",
        "start/device-vm/d",
        "define/device-vm/d",
    ]


def test_what_serves_somebody_stays() -> None:
    done = ["define/device-vm/d", "start/device-vm/d", "define/client/a", "start/client/a", "define/client/b"]
    assert to_undo(NEW, Outcome(done=done, failed=["start/client/b"])) == ["start/client/b", "define/client/b"]


def test_a_domain_stopped_for_a_failed_change_is_started_again_after_the_change_is_undone() -> None:
    steps = (
        step("stop/client/a"),
        step("stop/device-vm/d", "stop/client/a"),
        step("define/device-vm/d", "stop/device-vm/d"),
        step("start/device-vm/d", "define/device-vm/d"),
        step("start/client/a", "start/device-vm/d", "stop/client/a"),
    )
    done = ["stop/client/a", "stop/device-vm/d", "define/device-vm/d"]
    outcome = Outcome(done=done, failed=["start/device-vm/d"], skipped=["start/client/a"])
    assert to_undo(steps, outcome) == ["start/device-vm/d", "define/device-vm/d", "stop/device-vm/d", "stop/client/a"]
