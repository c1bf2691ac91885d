"""The manager's keeper, when something of a device VM fails, or whoever was at work on one: everybody else goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from devicevm.apply import ready
from devicevm.domain import DomainSpec
from devicevm.errors import DevicevmError
from devicevm.manager import kept as limits
from devicevm.manager.keeper import Keeper, Times
from devicevm.manager.kept import MAX_DEATHS, MAX_TRIES, Kept
from devicevm.manifest.topology import Start, Store
from devicevm.part.keeper import Parts
from devicevm.part.part import Part
from remembering import GRACE, SHARED, TWO, A, Agent, B, Remembering, keeper, kill, until

Q_A, Q_B = (emulator.id for emulator in SHARED[0].emulators)


class Shared(Remembering):
    """One device VM of two clients, with its agent, on a VMM that runs guests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(replace(SHARED[0], control=str(folder / "control")))
        self.agent = Agent(str(folder / "control"), dict.fromkeys((Q_A, Q_B), "running"))
        self.probed: list[str] = []

    def keeper(self, told: list[str], seconds: float = 5.0) -> Keeper:
        made = Keeper(self, boots=2, times=Times(ready=seconds, grace=GRACE, pause=0.01), tell=told.append)
        made.take_over(lambda _name: False)
        made.found_running([])
        return made


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    made = Shared(tmp_path)
    monkeypatch.setitem(
        cast(dict[str, object], ready.PROBES), "nbd", lambda address, _seconds: made.probed.append(address)
    )
    monkeypatch.setattr(ready, "_LINGER", 0.05)
    return made


@pytest.mark.parametrize("state", ["failed", "starting"])
def test_a_broken_emulator_is_told_and_takes_the_device_vm_from_nobody_else(shared: Shared, state: str) -> None:
    told: list[str] = []
    kept = shared.keeper(told, seconds=1.0)
    kept.prepare(A, "default", ["both"])
    kept.prepare(B, "default", ["both"])
    shared.agent.states[Q_B] = state
    kill(shared, kept, "both")
    until(lambda: not kept.deaths()["both"].returning)
    assert shared.active == shared.marked == {"both"} and len(shared.starts) == 2
    assert any(text.startswith(f"both: {Q_B}: its emulation code") for text in told)
    assert not any(Q_A in text for text in told)
    kept.prepare(A, "default", ["both"])
    with pytest.raises(DevicevmError, match=Q_B):
        kept.prepare(B, "default", ["both"])
    kept.release(B)
    time.sleep(3 * GRACE)
    assert shared.active == {"both"} and len(shared.starts) == 2
    shared.agent.states[Q_B] = "running"
    kept.prepare(B, "default", ["both"])


def test_a_client_starts_beside_a_broken_emulator_and_each_is_asked_for_its_own(shared: Shared) -> None:
    told: list[str] = []
    kept = shared.keeper(told)
    addresses = {emulator.id: emulator.channel.address for emulator in SHARED[0].emulators}
    shared.agent.states[Q_A] = "failed"
    kept.prepare(B, "default", ["both"])
    assert shared.probed == [addresses[Q_B]]
    kept.prepare(B, "default", ["both"])
    assert shared.probed == [addresses[Q_B]], "nothing has been started since"
    shared.agent.states[Q_A] = "running"
    kept.prepare(A, "default", ["both"])
    assert shared.probed == [addresses[Q_B], addresses[Q_A]] and shared.starts == ["both"]


def test_an_emulator_that_fails_later_refuses_its_client_the_next_start(shared: Shared) -> None:
    told: list[str] = []
    kept = shared.keeper(told)
    kept.prepare(A, "default", ["both"])
    shared.agent.states[Q_A] = "failed"
    kept.times = replace(kept.times, silence=0.3)
    threading.Thread(target=kept.watch, daemon=True).start()
    asked = shared.agent.asked
    until(lambda: shared.agent.asked > asked + 2)
    with pytest.raises(DevicevmError, match=f"{Q_A} does not stay up"):
        kept.prepare(A, "default", ["both"])
    kept.close()
    assert shared.active == {"both"}


class Standing(Parts):
    """Host parts that are only remembered, with what happened in which order; `broken` do not start."""

    def __init__(self, happened: list[str]) -> None:
        super().__init__(Path("nowhere"))
        self.happened, self.running = happened, set[str]()
        self.broken: set[str] = set()

    def start(self, part: Part) -> None:
        if part.name in self.broken:
            raise DevicevmError(f"host part {part.name} did not start")
        if part.name not in self.running:
            self.happened.append(f"start {part.name}")
        self.running.add(part.name)

    def stop(self, part: Part) -> None:
        self.happened.append(f"stop {part.name}")
        self.running.discard(part.name)

    def is_running(self, part: Part) -> bool:
        return part.name in self.running


class Relayed(Remembering):
    """A VMM whose device VMs have host parts."""

    def __init__(self, spec: DomainSpec) -> None:
        emulators = (
            replace(one, part=Part("mount", one.client, one.channel.address, f"/run/{one.id}"))
            for one in spec.emulators
        )
        super().__init__(replace(spec, emulators=tuple(emulators)))
        self.happened: list[str] = []
        self.standing = Standing(self.happened)

    @property
    def parts(self) -> Parts:
        return self.standing

    def start(self, name: str) -> None:
        super().start(name)
        self.happened.append(f"boot {name}")


def test_a_host_part_that_does_not_start_is_one_client_s_affair() -> None:
    driver, told = Relayed(SHARED[0]), list[str]()
    kept = Keeper(driver, boots=1, times=Times(pause=0.01), guests=False, tell=told.append)
    kept.take_over(lambda _name: False)
    kept.found_running([])
    driver.standing.broken = {"b"}
    kept.prepare(A, "default", ["both"])
    assert driver.standing.running == {"a"} and any("host part b did not start" in text for text in told)
    with pytest.raises(DevicevmError, match="host part b did not start"):
        kept.prepare(B, "default", ["both"])
    kill(driver, kept, "both")
    until(lambda: driver.marked == {"both"})
    assert driver.starts == ["both", "both"]


def test_what_is_mounted_of_a_device_vm_s_memory_goes_before_that_starts_with_an_empty_one() -> None:
    driver = Relayed(TWO[0])
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    driver.happened.clear()
    kill(driver, kept, "a-dvm")
    until(lambda: len(driver.happened) == 3)
    assert driver.happened == ["stop a", "boot a-dvm", "start a"]
    kept.release(A)
    until(lambda: not driver.active)
    driver.standing.start(next(one.part for one in driver.specs["a-dvm"].emulators if one.part))
    driver.happened.clear()
    kept.prepare(A, "default", ["a-dvm"])
    assert driver.happened == ["stop a", "boot a-dvm", "start a"]


def test_what_is_mounted_of_a_store_waits_for_its_device_vm() -> None:
    (emulator,) = TWO[0].emulators
    stored = replace(emulator, store=Store("file", emulator.size, path="/srv/a.raw"))
    driver = Relayed(replace(TWO[0], emulators=(stored,)))
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    kill(driver, kept, "a-dvm")
    until(lambda: driver.happened.count("boot a-dvm") == 2 and driver.marked == {"a-dvm"})
    assert driver.happened == ["boot a-dvm", "start a", "boot a-dvm"]


def test_tries_that_take_long_come_to_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long each takes: none of them falls into the time in which deaths are counted."""
    monkeypatch.setattr(limits, "WINDOW", 0.0)
    driver = Remembering(*TWO)
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    driver.broken = {"a-dvm"}
    kill(driver, kept, "a-dvm")
    until(lambda: "did not come up" in kept.observe()[0].failure)
    assert "no such kernel" in kept.observe()[0].failure
    assert len(driver.starts) == 1 + MAX_TRIES


def test_pauses_double_up_to_a_bound() -> None:
    kept = Kept(TWO[0])
    kept.count_death()
    assert kept.pause(0, 1.0) == 0
    pauses = [kept.pause(tries, 20.0) for tries in range(1, MAX_TRIES)]
    assert pauses[0] == 20 and pauses[1] == 2 * pauses[0] and max(pauses) == pauses[-1] == 60
    assert not kept.why_left(MAX_TRIES - 1) and kept.why_left(MAX_TRIES)
    for _death in range(MAX_DEATHS):
        assert not kept.why_left(0)
        kept.count_death()
    assert "times within" in kept.why_left(0)


Busy = Callable[[], bool]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devicevm.manager.keeper._ROUND", 0.02)


def deserted(driver: Remembering, told: list[str], busy: threading.Event) -> Keeper:
    """A keeper that watches, while an apply has stopped one of its device VMs."""
    made = Keeper(driver, boots=1, times=Times(pause=0.01), guests=False, changing=busy.is_set, tell=told.append)
    made.take_over(lambda _name: False)
    made.found_running([])
    threading.Thread(target=made.watch, daemon=True).start()
    made.prepare(A, "default", ["a-dvm"])
    busy.set()
    made.stop("a-dvm")
    time.sleep(0.2)
    assert not driver.active
    return made


def test_what_an_apply_had_stopped_that_was_killed_is_back_for_a_client_that_runs(soon: None) -> None:
    driver, told, busy = Remembering(*TWO), list[str](), threading.Event()
    kept = deserted(driver, told, busy)
    busy.clear()
    until(lambda: driver.marked == {"a-dvm"})
    assert "whoever did that has ended" in told[-1] and "whoever did that has ended" in kept.deaths()["a-dvm"].reason
    kept.close()


@pytest.mark.parametrize("start", [Start.REQUEST, Start.APPLY])
def test_what_an_apply_has_stopped_is_back_without_clients_only_if_it_always_runs(soon: None, start: Start) -> None:
    driver, busy = Remembering(replace(TWO[0], start=start)), threading.Event()
    kept = deserted(driver, [], busy)
    kept.release(A)
    busy.clear()
    if start is Start.APPLY:
        until(lambda: driver.marked == {"a-dvm"})
    else:
        time.sleep(0.3)
        assert not driver.active
    kept.close()
