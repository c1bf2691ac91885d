"""Carrying out a plan whose steps fail in ways that nobody foresaw."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest
from devicevm.apply import actions
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


class Guests(Driver):
    """Tells in which order guests start, and how many at once. `slow`: one that starts only when the rest have."""

    def __init__(self, slow: str = "") -> None:
        super().__init__()
        self.slow, self.others = slow, threading.Event()
        self.begun: list[str] = []
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def start(self, name: str) -> None:
        kind = name[:6]
        self.begun.append(name)
        self.now[kind] += 1
        self.most[kind] = max(self.most[kind], self.now[kind])
        if name == self.slow:
            assert self.others.wait(10)
        time.sleep(0.02)
        self.now[kind] -= 1


def starts(count: int) -> Plan:
    """As many device VMs with a client each."""
    steps = [step(f"start/device-vm/device{number}") for number in range(count)]
    steps += [step(f"start/client/client{number}", f"start/device-vm/device{number}") for number in range(count)]
    spec = PLAN.domains[0]
    domains = [replace(spec, name=f"device{number}", role=Role.DEVICE_VM) for number in range(count)]
    return Plan("lab", "0", steps=tuple(steps), domains=tuple(domains))


def test_device_vms_boot_before_clients_where_cores_are_few() -> None:
    driver = Guests()
    outcome = execute(Context(starts(6), cast(Any, driver), False, 1.0), 8, 2, Progress())
    assert len(outcome.done) == 12
    assert driver.most["device"] == 2
    # The last device VM may leave a core to a client.
    assert sum(name.startswith("device") for name in driver.begun[:6]) >= 5


def test_clients_start_at_once_where_cores_are_many() -> None:
    driver = Guests(slow="device0")
    plan = starts(4)

    class Watch(Progress):
        def done(self, step: Step, seconds: float) -> None:
            if step.kind is Subject.CLIENT:
                seen.add(step.name)
            if len(seen) == 3:
                driver.others.set()

    seen: set[str] = set()
    outcome = execute(Context(plan, cast(Any, driver), False, 1.0), 8, 64, Watch())
    assert len(outcome.done) == 8
    assert driver.begun[-1] == "client0"


def test_a_client_whose_devices_never_answer_is_ended_and_told() -> None:
    class Mute(Driver):
        stopped = threading.Event()

        def start(self, name: str) -> None:
            assert self.stopped.wait(10)
            raise DevicevmError("QEMU is gone")

        def stop(self, name: str) -> None:
            self.stopped.set()

    outcome = execute(Context(PLAN, cast(Any, Mute()), False, 0.05), 2, 2, Progress())
    assert outcome.errors["start/client/a"].message == (
        "client a did not start within 0.05 s: a device VM of its does not answer"
    )


def test_a_client_that_does_not_go_on_is_told_and_what_serves_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def rejoin(_driver: object, _owner: str, _emulators: object) -> None:
        raise DevicevmError("web stays paused")

    monkeypatch.setattr(actions, "rejoin_clients", rejoin)
    steps = (step("start/device-vm/d"), step("start/client/a", "start/device-vm/d"))
    spec = DomainSpec("d", "u", Role.DEVICE_VM, "lab", "h1", 1, 2**20, "tcg", "x86_64", "pc", Boot())
    driver = Driver()
    plan = replace(PLAN, steps=steps, domains=(*PLAN.domains, spec))
    outcome = execute(Context(plan, cast(Any, driver), False, 1.0), 2, 2, Progress())
    assert outcome.done == ["start/device-vm/d", "start/client/a"] and not outcome.undone
    assert {key: error.message for key, error in outcome.errors.items()} == {"start/device-vm/d": "web stays paused"}
    assert not outcome.ok
