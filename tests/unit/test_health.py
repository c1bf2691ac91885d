"""What `status` tells: how each device is, since when, and what a device VM has died of."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from devicevm.cli.statusview import age
from devicevm.domain import Deaths, Firmware, FirmwareKind, ObservedDomain
from devicevm.guest.lastwords import last_words
from devicevm.health import Health, check_health
from devicevm.inventory.supports import GUESTS
from devicevm.vmm.driver import Driver
from world import ModelVmm, client, disk, topology

Serve = Callable[[dict[str, Any]], None]
UPTIME = 1000.0


class Seen(Driver):
    """A VMM as `status` sees it."""

    def __init__(self, *domains: ObservedDomain, died: Deaths | None = None) -> None:
        self.domains, self.died = domains, died

    def observe(self) -> tuple[ObservedDomain, ...]:
        return self.domains

    def deaths(self) -> dict[str, Deaths]:
        return {"web-dvm": self.died} if self.died else {}


Seen.__abstractmethods__ = frozenset()  # status asks for no more than these


@pytest.fixture
def pair(tmp_path: Path) -> tuple[ObservedDomain, ObservedDomain]:
    """A client that runs, and its device VM, which does; its control port is in tmp_path."""
    model = ModelVmm()
    model.apply(topology(client("web", disk())))
    device_vm = model.domains["web-dvm"]
    assert device_vm.spec is not None
    spec = replace(device_vm.spec, control=str(tmp_path / "control"))
    return model.domains["web"], replace(device_vm, spec=spec, active_spec=spec)


@pytest.fixture
def says(tmp_path: Path) -> Serve:
    """Have the device VM's agent say this of the disk."""

    def serve(device: dict[str, Any]) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "control"))
        listener.listen()
        known = {"name": "web.data", "state": "running", "pid": 7, "restarts": 0, "connected": True, "serving": True}

        def answer() -> None:
            peer, _address = listener.accept()
            with peer, peer.makefile("rb") as lines:
                asked = next(json.loads(line) for line in lines if line.strip())
                reply = {"id": asked["id"], "ok": True, "uptime": UPTIME, "memoryAvailable": 1}
                peer.sendall(json.dumps(reply | {"devices": [known | device]}).encode() + b"\n")

        threading.Thread(target=answer, daemon=True).start()

    return serve


def seen(*domains: ObservedDomain, died: Deaths | None = None) -> Health:
    return check_health(Seen(*domains, died=died), (GUESTS,))


def seconds_ago(since: str) -> float:
    return time.time() - datetime.strptime(since, "%Y-%m-%dT%H:%M:%S%z").timestamp()


Pair = tuple[ObservedDomain, ObservedDomain]


@pytest.mark.parametrize(
    ("device", "client_runs", "state"),
    [
        ({"connected": True}, True, "connected"),
        ({"connected": False}, True, "reconnecting"),
        ({"connected": False, "state": "starting"}, True, "reconnecting"),
        ({"connected": False}, False, "ready"),
        ({"connected": False, "state": "starting"}, False, "starting"),
        ({"connected": False, "state": "failed"}, True, "failed"),
    ],
)
def test_a_device_is_what_its_agent_and_its_client_make_it(
    pair: Pair, says: Serve, device: dict[str, Any], client_runs: bool, state: str
) -> None:
    says(device | {"changed": UPTIME - 100})
    web, device_vm = pair
    health = seen(replace(web, active=client_runs), device_vm)
    assert health.devices[0].state == state
    assert 99 <= seconds_ago(health.devices[0].since) <= 110
    assert [99 + 900 <= seconds_ago(one.since) <= 1010 for one in health.domains if one.since] == [True]


@pytest.mark.parametrize("changed", [None, -1.0, UPTIME + 1, 1e300])
def test_what_cannot_be_is_not_told(pair: Pair, says: Serve, changed: float | None) -> None:
    says({} if changed is None else {"changed": changed})
    (told,) = seen(*pair).devices
    assert (told.state, told.since) == ("connected", "")


@pytest.mark.parametrize(
    "uptime", [-1e300, -1.0, float("inf"), float("nan"), 10**400], ids=["far", "past", "inf", "nan", "big"]
)
def test_what_one_device_vm_says_is_its_own_failure(
    pair: Pair, says: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uptime: float
) -> None:
    monkeypatch.setattr("test_health.UPTIME", uptime)
    says({})
    web, device_vm = pair
    assert device_vm.spec is not None
    spec = replace(device_vm.spec, name="other-dvm", control=str(tmp_path / "nobody"))
    other = replace(device_vm, name="other-dvm", uuid="other", spec=spec, active_spec=spec, active=False)
    health = seen(web, device_vm, other)
    told = {device.device_vm: device for device in health.devices}
    assert (told["web-dvm"].state, told["other-dvm"].state) == ("unknown", "stopped")
    assert "number" in told["web-dvm"].detail
    assert [domain.since for domain in health.domains] == ["", "", ""]


def test_a_fault_of_ours_in_asking_one_is_its_own(pair: Pair, says: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    says({})
    monkeypatch.setattr("devicevm.health._words", lambda _status, _now: 1 / 0)
    (told,) = seen(*pair).devices
    assert told.state == "unknown" and "ZeroDivisionError" in told.detail


@pytest.mark.parametrize(
    ("returning", "failure", "state"),
    [(True, "", "reconnecting"), (False, "", "stopped"), (False, "it died", "failed")],
)
def test_a_device_vm_that_died_tells_when_and_of_what(pair: Pair, returning: bool, failure: str, state: str) -> None:
    web, device_vm = pair
    dead = replace(device_vm, active=False, active_spec=None, failure=failure)
    health = seen(web, dead, died=Deaths(2, 86400.0, "its kernel panicked", returning))
    (told,) = health.devices
    assert (told.state, told.since) == (state, "1970-01-02T00:00:00Z")
    (domain,) = [one for one in health.domains if one.name == "web-dvm"]
    assert domain.since == told.since
    assert failure or ("its kernel panicked" in domain.detail and "2 times" in domain.detail)


def test_what_its_vmm_has_paused_is_told_and_not_asked(pair: Pair) -> None:
    web, device_vm = pair
    health = seen(web, replace(device_vm, stalled=True))
    assert {one.name: one.state for one in health.domains} == {"web": "running", "web-dvm": "stalled"}
    (device,) = health.devices
    assert device.state == "unknown" and "has paused" in device.detail


def test_without_a_manager_nobody_knows_when_it_stopped(pair: Pair) -> None:
    web, device_vm = pair
    (told,) = seen(web, replace(device_vm, active=False, active_spec=None)).devices
    assert (told.state, told.since) == ("stopped", "")


def test_firmware_is_said_to_have_nobody_to_ask(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    web, device_vm = pair
    assert device_vm.spec is not None
    spec = replace(device_vm.spec, firmware=Firmware(FirmwareKind.ELF, "/a.elf"), control="", console="")
    monkeypatch.setattr("devicevm.health.has_peer", lambda _address: True)
    (told,) = seen(web, replace(device_vm, spec=spec, active_spec=spec)).devices
    assert (told.state, told.since) == ("connected", "") and "no agent to ask" in told.detail


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), ""),
        (("up after 9 ms",), ""),
        (("[ 1.0] Kernel panic - not syncing: Attempted to kill init!", "CPU: 0"), "Attempted to kill init!"),
        (("web.data: killed by signal 11 while its peer was connected", "web.data: powering off"), "signal 11"),
        (("web.data: exit status 1 with nobody connected",), ""),
        (("web.gps: exit status 3 while its peer was connected", "Kernel panic - not syncing: x"), "panicked: x"),
    ],
)
def test_last_words(lines: tuple[str, ...], words: str) -> None:
    found = last_words(lines)
    assert words in found and bool(found) == bool(words)


@pytest.mark.parametrize(
    ("ago", "shown"),
    [
        ({"seconds": 5}, ("5s", "6s", "7s")),
        ({"seconds": 100}, ("100s", "101s", "102s")),
        ({"minutes": 5}, ("5m",)),
        ({"hours": 3}, ("3h",)),
        ({"days": 9}, ("9d",)),
    ],
)
def test_how_long_ago(ago: dict[str, float], shown: tuple[str, ...]) -> None:
    since = datetime.now(timezone.utc) - timedelta(**ago)
    assert age(since.strftime("%Y-%m-%dT%H:%M:%SZ")) in shown
    assert age("") == ""
