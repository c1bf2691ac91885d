"""The manager's keeper, on a VMM that only remembers: who is started, stopped and restarted, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.domain import DomainSpec
from devicevm.errors import DevicevmError
from devicevm.health import check_health
from devicevm.manager.keeper import Keeper, Times
from devicevm.manager.kept import MAX_DEATHS, MAX_TRIES
from devicevm.manifest.topology import Start
from devicevm.planner.naming import domain_uuid
from devicevm.vmm.lock import is_locked, lock
from devicevm.vmm.places import places_of
from remembering import GRACE, SHARED, TWO, A, Agent, B, C, Remembering, device_vms, keeper, kill, until
from world import client, disk, topology


def test_a_client_s_device_vms_run_and_have_answered_when_it_is_let_start() -> None:
    driver = Remembering(*TWO)
    keeper(driver).prepare(A, "default", ["a-dvm"])
    assert driver.active == driver.marked == {"a-dvm"}


def test_many_that_start_at_once_share_one_start() -> None:
    driver = Remembering(*SHARED)
    driver.slow = 0.1
    kept = keeper(driver)
    threads = [threading.Thread(target=kept.prepare, args=(uuid, "default", ["both"])) for uuid in (A, B) * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert driver.starts == ["both"]


@pytest.mark.parametrize("boots", [1, 2])
def test_no_more_boot_at_once_than_may(boots: int) -> None:
    names = [f"c{number}" for number in range(6)]
    driver = Remembering(*device_vms(topology(*(client(name, disk()) for name in names))))
    driver.slow = 0.05
    kept = keeper(driver, boots)
    threads = [
        threading.Thread(target=kept.prepare, args=(domain_uuid("default", name), "default", [f"{name}-dvm"]))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert driver.active == {f"{name}-dvm" for name in names}
    assert driver.most == boots


@pytest.mark.parametrize(("owner", "name"), [("default", "c-dvm"), ("somebody", "a-dvm")])
def test_a_device_vm_that_is_not_the_owner_s_is_refused(owner: str, name: str) -> None:
    driver = Remembering(*TWO)
    with pytest.raises(DevicevmError, match=f"{name}.*does not have"):
        keeper(driver).prepare(A, owner, [name])
    assert driver.starts == []


def test_a_device_vm_that_does_not_start_is_told_and_not_tried_again_by_itself() -> None:
    driver = Remembering(*TWO)
    driver.broken = {"a-dvm"}
    kept = keeper(driver)
    with pytest.raises(DevicevmError, match="no such kernel"):
        kept.prepare(A, "default", ["a-dvm"])
    kept.died("a-dvm", "it powered off")
    time.sleep(0.1)
    assert driver.starts == ["a-dvm"] and not driver.active
    driver.broken.clear()
    kept.prepare(A, "default", ["a-dvm"])
    assert driver.active == {"a-dvm"}


def test_a_device_vm_stops_some_time_after_its_last_client() -> None:
    driver = Remembering(*SHARED)
    kept = keeper(driver)
    kept.prepare(A, "default", ["both"])
    kept.prepare(B, "default", ["both"])
    kept.release(A)
    time.sleep(3 * GRACE)
    assert driver.active == {"both"}
    kept.release(B)
    assert driver.active == {"both"}
    until(lambda: not driver.active)


def test_a_client_that_is_back_in_time_finds_it_running() -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    kept.release(A)
    kept.prepare(A, "default", ["a-dvm"])
    time.sleep(3 * GRACE)
    assert driver.starts == ["a-dvm"] and driver.active == {"a-dvm"}


def test_what_is_declared_to_run_stays_without_clients() -> None:
    driver = Remembering(*(replace(spec, start=Start.APPLY) for spec in TWO))
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    kept.release(A)
    time.sleep(3 * GRACE)
    assert driver.active == {"a-dvm"}


def test_what_dies_is_back() -> None:
    driver = Remembering(*TWO)
    told: list[str] = []
    back: list[DomainSpec] = []
    kept = Keeper(driver, boots=1, guests=False, tell=told.append, returned=back.append)
    kept.take_over(lambda _name: False)
    kept.prepare(A, "default", ["a-dvm"])
    assert not back
    kill(driver, kept, "a-dvm")
    until(lambda: len(back) == 1)
    assert driver.marked == {back[0].name} == {"a-dvm"}
    assert driver.starts == ["a-dvm", "a-dvm"]
    assert told == ["a-dvm: its QEMU died; it is restarted"]


def test_why_it_died_is_its_console_s_word_and_kept_until_somebody_starts_it() -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    assert kept.deaths() == {}
    driver.consoles["a-dvm"] = ("up after 9 ms", "[  1.0] Kernel panic - not syncing: no idle task", "Call Trace:")
    begun = time.time()
    for count in (1, 2):
        kill(driver, kept, "a-dvm")
        until(lambda count=count: len(driver.starts) == count + 1 and driver.marked == {"a-dvm"})  # type: ignore[misc]
        until(lambda: not kept.deaths()["a-dvm"].returning)
        (death,) = kept.deaths().values()
        assert (death.count, death.reason) == (count, "its kernel panicked: no idle task")
        assert begun <= death.time <= time.time()
    kept.stop("a-dvm")
    kept.start("a-dvm")
    assert kept.deaths() == {}


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Keeper, Remembering, Agent, list[str]]]:
    """A keeper that watches over one device VM, which runs, its agent, and what the keeper tells."""
    monkeypatch.setattr("devicevm.manager.keeper.wait_up", lambda *_args: {})
    control = str(tmp_path / "control")
    driver, told = Remembering(replace(TWO[0], control=control)), list[str]()
    driver.active = driver.marked = {"a-dvm"}
    times = Times(ready=0.5, silence=0.6, pause=0.01)
    made = Keeper(driver, boots=1, times=times, tell=told.append, changing=lambda: "busy" in driver.consoles)
    made.take_over(lambda _name: False)
    agent = Agent(control)
    threading.Thread(target=made.watch, daemon=True).start()
    yield made, driver, agent, told
    made.close()


Watched = tuple[Keeper, Remembering, Agent, list[str]]


def test_what_answers_is_left_alone_and_what_hangs_is_restarted(watched: Watched) -> None:
    kept, driver, agent, told = watched
    time.sleep(1.5)
    assert driver.starts == [] and kept.deaths() == {}
    agent.answers = False
    until(lambda: driver.starts == ["a-dvm"])
    agent.answers = True
    until(lambda: not kept.deaths()["a-dvm"].returning)
    assert kept.deaths()["a-dvm"].reason == "it has not answered for 0.6 s"
    assert told[0] == "a-dvm: it has not answered for 0.6 s; it is restarted"
    time.sleep(1)
    assert driver.active == {"a-dvm"} and driver.starts == ["a-dvm"]


def test_what_is_being_changed_is_not_taken_for_hanging(watched: Watched) -> None:
    kept, driver, agent, _told = watched
    kept.times = replace(kept.times, ready=60)
    driver.consoles["busy"] = ()
    kept.define(driver.specs["a-dvm"])
    agent.answers = False
    time.sleep(2)
    assert driver.starts == []
    del driver.consoles["busy"]
    until(lambda: driver.starts == ["a-dvm"])


@pytest.mark.parametrize("touched", [False, True])
def test_an_apply_that_changes_something_else_or_does_not_end_spares_nobody(watched: Watched, touched: bool) -> None:
    kept, driver, agent, _told = watched
    driver.consoles["busy"] = ()
    if touched:
        kept.define(driver.specs["a-dvm"])
    agent.answers = False
    until(lambda: driver.starts == ["a-dvm"])


def test_one_that_its_vmm_has_paused_for_a_disk_does_not_hang(watched: Watched) -> None:
    kept, driver, agent, told = watched
    agent.answers = False
    driver.paused = {"a-dvm": "no room is left for sda"}
    until(lambda: bool(told))
    time.sleep(1.2)
    assert driver.starts == [] and kept.deaths() == {}
    assert told == ["a-dvm: no room is left for sda; it is tried again"]
    driver.paused = {"a-dvm": ""}
    agent.answers = True
    until(lambda: not driver.paused)
    until(lambda: told[1:] == ["a-dvm: its VMM had paused it, for a disk that failed; it goes on"])
    time.sleep(0.3)
    assert driver.starts == [] and len(told) == 2


def test_what_was_stopped_stays_so() -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    kept.start("a-dvm")
    kept.stop("a-dvm")
    kept.died("a-dvm", "it was ended")
    time.sleep(0.1)
    assert not driver.active


def test_what_dies_again_and_again_is_left_so_with_the_reason_until_somebody_asks() -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    for count in range(MAX_DEATHS):
        kill(driver, kept, "a-dvm")
        until(lambda count=count: len(driver.starts) == count + 2 and driver.marked == {"a-dvm"})  # type: ignore[misc]
    kill(driver, kept, "a-dvm")
    until(lambda: bool(kept.observe()[0].failure))
    assert "its QEMU died" in kept.observe()[0].failure and not driver.active
    kept.prepare(A, "default", ["a-dvm"])
    assert driver.active == {"a-dvm"} and not kept.observe()[0].failure


def test_what_cannot_be_restarted_is_given_up() -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    driver.broken = {"a-dvm"}
    kill(driver, kept, "a-dvm")
    until(lambda: "no such kernel" in kept.observe()[0].failure)
    assert len(driver.starts) == 1 + MAX_TRIES


def test_the_next_manager_takes_over_restarts_what_died_meanwhile_and_stops_what_nobody_uses() -> None:
    driver = Remembering(*device_vms(topology(*(client(name, disk()) for name in "abc"))))
    driver.active = driver.marked = {"a-dvm", "b-dvm"}
    kept = Keeper(driver, boots=2, times=Times(grace=GRACE, pause=0.01), guests=False)
    kept.take_over(lambda name: name == "c-dvm")
    until(lambda: "c-dvm" in driver.active)
    time.sleep(3 * GRACE)
    assert driver.active == {"a-dvm", "b-dvm", "c-dvm"}, "nobody has said yet who runs"
    kept.found_running([A, C])
    until(lambda: driver.active == {"a-dvm", "c-dvm"})
    assert driver.starts == ["c-dvm"]


def test_a_manager_that_ends_touches_nothing_any_more() -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    kept.release(A)
    kept.close()
    time.sleep(3 * GRACE)
    assert driver.active == {"a-dvm"}
    kill(driver, kept, "a-dvm")
    time.sleep(0.1)
    assert driver.starts == ["a-dvm"]


def test_what_is_being_changed_is_waited_for() -> None:
    driver = Remembering(*TWO)
    busy = threading.Event()
    busy.set()
    kept = Keeper(driver, boots=1, times=Times(ready=10), guests=False, changing=busy.is_set)
    kept.take_over(lambda _name: False)
    for end in (lambda: kept.start("a-dvm"), busy.clear):
        kept.stop("a-dvm")
        before = len(driver.starts)
        asking = threading.Thread(target=kept.prepare, args=(A, "default", ["a-dvm"]))
        asking.start()
        time.sleep(0.2)
        assert len(driver.starts) == before
        end()
        asking.join(10)
        assert driver.active == {"a-dvm"}


def test_a_change_that_does_not_end_is_a_reason() -> None:
    driver = Remembering(*TWO)
    kept = Keeper(driver, boots=1, times=Times(ready=0.1), guests=False, changing=lambda: True)
    kept.take_over(lambda _name: False)
    kept.stop("a-dvm")
    with pytest.raises(DevicevmError, match="a-dvm is being changed"):
        kept.prepare(A, "default", ["a-dvm"])


def test_status_tells_what_was_given_up() -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    driver.broken = {"a-dvm"}
    kill(driver, kept, "a-dvm")
    until(lambda: bool(kept.observe()[0].failure))
    seen = kept.observe()
    driver.observe = lambda: seen  # type: ignore[method-assign]
    states = {domain.name: (domain.state, domain.detail) for domain in check_health(driver, ()).domains}
    assert states["a-dvm"] == ("failed", seen[0].failure) and states["b-dvm"] == ("stopped", "")


def test_a_lock_is_seen_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = replace(places_of("test:///default"), runtime=tmp_path)
    monkeypatch.setattr("devicevm.vmm.lock.places_of", lambda _uri: places)
    assert not is_locked(places)
    with lock("test:///default"):
        assert is_locked(places)
    assert not is_locked(places)


def test_what_dies_while_a_manager_takes_over_is_back() -> None:
    driver = Remembering(*TWO)
    driver.active = driver.marked = {"a-dvm"}
    kept = Keeper(driver, boots=1, guests=False)
    seen = driver.observe()
    driver.active = driver.marked = set()
    kept.died("a-dvm", "its QEMU died")
    driver.observe = lambda: seen  # type: ignore[method-assign]
    kept.take_over(lambda _name: False)
    until(lambda: driver.active == {"a-dvm"})
