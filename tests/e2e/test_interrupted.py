"""SIGKILL and SIGINT of the real command on real guests: the next apply finishes, or a destroy leaves nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from manifests import client, disk, entropy, serial, write
from stage import Stage

pytestmark = pytest.mark.e2e


def two(stage: Stage) -> Path:
    """A manifest of two clients, with a device VM each."""
    first = client("a", disk("data", "8MiB"), entropy(), memory="192MiB")
    return write(stage.folder, first, client("b", serial(), memory="192MiB"))


def apply_and_kill(stage: Stage, path: Path, lines: int, number: signal.Signals = signal.SIGKILL) -> int:
    """Send the command a signal once it has told of `lines` steps; its exit code."""
    process = stage.start("apply", path)
    assert process.stderr is not None
    seen = 0
    for line in process.stderr:
        seen += any(word in line for word in ("define", "start"))
        if seen > lines:
            break
    process.send_signal(number)
    # Its pipe must not fill up while it puts things in order.
    process.communicate(timeout=60)
    return process.returncode


LATE = pytest.param((4,), marks=pytest.mark.long, id="late")


@pytest.mark.parametrize("lines", [pytest.param((0, 2, 1, 2), id="again-and-again"), LATE])
def test_a_killed_apply_is_finished_by_the_next(stage: Stage, lines: tuple[int, ...]) -> None:
    """Each starts from what the one before it has left."""
    path = two(stage)
    for count in lines:
        apply_and_kill(stage, path, count)
    result = stage.json("apply", path)
    assert not result["failed"]
    assert stage.domains() == ["a", "a-dvm", "b", "b-dvm"]
    assert "No changes" in stage.devicevm("apply", path).stdout
    stage.devicevm("destroy", "--yes", path)


def test_an_apply_that_is_told_to_stop_is_finished_by_the_next(stage: Stage) -> None:
    path = two(stage)
    assert apply_and_kill(stage, path, 3, signal.SIGINT) == 130
    # Nothing is begun after the signal, and nothing is left half done.
    assert set(stage.domains()) < {"a", "a-dvm", "b", "b-dvm"} or stage.json("plan", path)["steps"]
    assert not stage.json("apply", path)["failed"]
    assert stage.domains() == ["a", "a-dvm", "b", "b-dvm"]
    assert "No changes" in stage.devicevm("apply", path).stdout
    stage.devicevm("destroy", "--yes", path)


def test_a_killed_apply_is_undone_by_a_destroy(stage: Stage) -> None:
    path = two(stage)
    apply_and_kill(stage, path, 3)
    stage.devicevm("destroy", "--yes", "--owner", "default")
    assert stage.domains() == []


def test_a_device_vm_that_does_not_come_up_is_undone_and_its_last_words_are_told(stage: Stage) -> None:
    path = write(stage.folder, client("a", disk("data", "8MiB"), serial("x", command=["/bin/false"])))
    result = stage.devicevm("apply", "--timeout", "30", path, ok=False)
    assert result.returncode == 1
    assert "start/device-vm/a-dvm" in result.stderr or "a-dvm" in result.stderr
    assert "a.x" in result.stderr
    assert stage.domains() == []


def test_two_applies_at_once_do_not_double_book(stage: Stage) -> None:
    path = two(stage)
    first = stage.start("apply", "--lock-timeout", "200", path)
    second = stage.start("apply", "--lock-timeout", "200", path)
    codes = [process.wait(timeout=200) for process in (first, second)]
    assert codes == [0, 0]
    assert stage.domains() == ["a", "a-dvm", "b", "b-dvm"]
    stage.devicevm("destroy", "--yes", path)
