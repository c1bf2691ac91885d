"""A device VM that was changed while it runs: whose peer is waited for, and whose is there already."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from devicevm.apply import ready
from devicevm.domain import DomainSpec
from devicevm.guest.control import DeviceState, DeviceStatus, GuestStatus
from devicevm.record import from_data

GOLDEN = Path(__file__).resolve().parents[1] / "goldens" / "domains" / "device-vm-blocks.json"


class Driver:
    """A domain that runs and says nothing."""

    def is_active(self, name: str) -> bool:
        return True

    def console_tail(self, spec: DomainSpec, lines: int) -> tuple[str, ...]:
        return ()


class Guest:
    """A guest whose emulator has been started anew since the probe, and has a peer since then."""

    def __init__(self, path: str, timeout: float) -> None:
        self.asked = 0

    def status(self) -> GuestStatus:
        self.asked += 1
        back = self.asked > 1
        state = DeviceState.RUNNING if back else DeviceState.WAITING
        return GuestStatus((DeviceStatus(NAME, state, 7, int(back), back, back),), 1.0, 2**20)

    def close(self) -> None:
        pass


def served() -> DomainSpec:
    spec = from_data(DomainSpec, json.loads(GOLDEN.read_text()))
    return replace(spec, emulators=(replace(spec.emulators[0], ready="nbd"),), cpu_features=())


NAME = served().emulators[0].id


@pytest.fixture(autouse=True)
def guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "Control", Guest)
    monkeypatch.setitem(cast(Any, ready.PROBES), "nbd", lambda address, timeout: None)


def wait(returning: frozenset[str]) -> None:
    ready.wait_ready(cast(Any, Driver()), served(), time.monotonic() + 0.3, returning)


def test_a_client_that_is_to_come_back_may_be_there_before_we_look() -> None:
    wait(frozenset({NAME}))


def test_anybody_else_is_taken_for_the_probe_that_has_not_left() -> None:
    with pytest.raises(ready.NotReady, match="did not come back after its probe"):
        wait(frozenset())


def test_a_device_that_a_guest_does_not_tell_of_any_more_is_not_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Guest):
        def status(self) -> GuestStatus:
            told = super().status()
            return replace(told, devices=()) if self.asked > 1 else told

    monkeypatch.setattr(ready, "Control", Forgetful)
    with pytest.raises(ready.NotReady, match=f"{NAME} did not come back"):
        wait(frozenset({NAME}))


def test_a_client_that_came_unseen_gets_an_emulator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited behind the probe: for the guest, the peer has been there all the time."""

    class Blind(Guest):
        restarted = False

        def status(self) -> GuestStatus:
            self.asked += 1
            there = self.asked > 1
            count = int(Blind.restarted)
            return GuestStatus((DeviceStatus(NAME, DeviceState.RUNNING, 7, count, there, there),), 1.0, 2**20)

        def restart(self, name: str) -> None:
            assert name == NAME
            Blind.restarted = True

    monkeypatch.setattr(ready, "Control", Blind)
    monkeypatch.setattr(ready, "_UNSEEN", 0.1)
    wait(frozenset({NAME}))
    assert Blind.restarted
