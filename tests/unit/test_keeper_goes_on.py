"""The manager's keeper when not all goes well: what a manager before it has left, one client's failure, and errors that
nobody foresaw."""

from __future__ import annotations

import threading
import time

import pytest
from devicevm.errors import DevicevmError
from devicevm.manager.keeper import Keeper, Times
from remembering import GRACE, SHARED, TWO, A, B, C, Remembering, keeper, kill, until


def test_nothing_is_stopped_before_it_is_known_who_runs() -> None:
    driver = Remembering(*SHARED)
    driver.active = driver.marked = {"both"}
    kept = Keeper(driver, boots=1, times=Times(grace=GRACE), guests=False)
    kept.take_over(lambda _name: False)
    kept.release(A)
    time.sleep(3 * GRACE)
    assert driver.active == {"both"}, "b runs, and nobody has asked yet"
    # Their VMM was asked before a ended, and has answered now.
    kept.found_running([A, B])
    time.sleep(3 * GRACE)
    assert driver.active == {"both"}
    kept.release(B)
    until(lambda: not driver.active)


def test_the_next_manager_brings_up_what_a_client_that_runs_needs() -> None:
    """It was down when the manager before this one ended, and the VMM does not know why any more."""
    driver = Remembering(*TWO)
    kept = Keeper(driver, boots=1, times=Times(grace=GRACE), guests=False)
    kept.take_over(lambda _name: False)
    kept.found_running([A])
    until(lambda: driver.marked == {"a-dvm"})
    time.sleep(2 * GRACE)
    assert driver.active == {"a-dvm"} and driver.starts == ["a-dvm"]


def test_one_client_s_failed_start_does_not_end_the_care_for_others() -> None:
    driver = Remembering(*SHARED)
    kept = Keeper(driver, boots=1, times=Times(grace=GRACE, pause=0.2), guests=False)
    kept.take_over(lambda _name: False)
    kept.found_running([])
    kept.prepare(A, "default", ["both"])
    driver.broken = {"both"}
    kill(driver, kept, "both")
    until(lambda: len(driver.starts) == 2)
    with pytest.raises(DevicevmError, match="no such kernel"):
        kept.prepare(B, "default", ["both"])
    kept.release(B)
    driver.broken = set()
    until(lambda: driver.active == {"both"})


UNFORESEEN = [OSError(28, "No space left on device"), KeyError("a.data"), MemoryError()]


@pytest.mark.parametrize("error", UNFORESEEN)
def test_whatever_a_restart_fails_of_it_is_tried_again(error: Exception) -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    kept.prepare(A, "default", ["a-dvm"])
    driver.raises["start"] = driver.raises["console_tail"] = error
    kill(driver, kept, "a-dvm")
    until(lambda: len(driver.starts) >= 3)
    driver.raises.clear()
    until(lambda: driver.marked == {"a-dvm"})


@pytest.mark.parametrize("error", UNFORESEEN)
def test_whatever_a_client_s_device_vm_fails_of_is_told_and_nothing_is_left_running(error: Exception) -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    driver.raises["mark"] = error
    with pytest.raises(DevicevmError, match=f"unexpected {type(error).__name__}"):
        kept.prepare(A, "default", ["a-dvm"])
    assert not driver.active


def test_what_nobody_has_told_of_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is to be had for one that dies, and the VMM fails when it is asked; then both go well again."""
    monkeypatch.setattr("devicevm.manager.keeper._ROUND", 0.05)
    driver, told = Remembering(*TWO), list[str]()
    kept = Keeper(driver, boots=1, times=Times(pause=0.01), guests=False, tell=told.append)
    kept.take_over(lambda _name: False)
    kept.prepare(A, "default", ["a-dvm"])
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", no_thread)
        kill(driver, kept, "a-dvm")
    assert told == ["a-dvm: its QEMU died; can't start new thread"]
    driver.raises["is_active"] = OSError("the VMM is gone")
    threading.Thread(target=kept.watch, daemon=True).start()
    until(lambda: any("tries again: unexpected OSError: the VMM is gone" in text for text in told))
    driver.raises.clear()
    until(lambda: driver.marked == {"a-dvm"})
    kept.close()


def no_thread(_self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_copy_of_a_client_is_not_taken_for_it() -> None:
    driver = Remembering(*TWO)
    kept = keeper(driver)
    with pytest.raises(DevicevmError, match="no devices for this domain"):
        kept.prepare(C, "default", ["a-dvm"])
    kept.prepare(A, "default", ["a-dvm"])
    kept.release(C)
    time.sleep(3 * GRACE)
    assert driver.active == {"a-dvm"}


def test_what_cannot_be_stopped_is_told_and_tried_again_at_the_next_release() -> None:
    driver, told = Remembering(*TWO), list[str]()
    kept = Keeper(driver, boots=1, times=Times(grace=GRACE), guests=False, tell=told.append)
    kept.take_over(lambda _name: False)
    kept.found_running([])
    kept.prepare(A, "default", ["a-dvm"])
    driver.raises["stop"] = OSError("busy")
    kept.release(A)
    until(lambda: set(told) == {"a-dvm: nobody uses it any more, but: unexpected OSError: busy"})
    driver.raises.clear()
    kept.release(A)
    until(lambda: not driver.active)
