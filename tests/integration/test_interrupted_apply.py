"""An apply that dies before or after any call to the VMM is finished, or undone, by the next one.

On libvirt's test driver, whose state lives in this process: the driver under the executor dies at
the n-th changing call, for every n, and the next apply gets a fresh driver on the same VMM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devicevm.apply.progress import Progress
from devicevm.apply.workflow import Options, carry_out, plan_on
from devicevm.manifest.topology import DeviceVM, Serves, Topology
from devicevm.planner.planner import Intent
from devicevm.vmm.driver import Driver
from devicevm.vmm.registry import open_driver
from world import client, core, disk, topology

libvirt = pytest.importorskip("libvirt")
pytestmark = pytest.mark.libvirt

CHANGING = ("define", "start", "stop", "undefine", "mark", "ensure_store", "delete_store")
PRUNE = Intent("default", prune=True)
SHARED = (DeviceVM("shared", Serves(), max_devices=3),)
FIRST = topology(client("a", disk()), client("b", disk("x"), disk("y")), device_vms=SHARED)
SECOND = topology(client("b", disk("x")), client("c", disk()))
NOTHING: Topology = topology()


class Killed(BaseException):
    """The process is gone: nothing after it runs, no clean-up, no undo."""


class Mortal:
    """A driver that dies at its n-th changing call: before it does anything, or right after."""

    def __init__(self, driver: Driver, calls: int, *, after: bool) -> None:
        self.driver, self.left, self.after = driver, calls, after
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.driver, name)
        if name not in CHANGING:
            return method

        def call(*arguments: Any) -> Any:
            if self.dead:
                raise Killed
            self.left -= 1
            self.dead = self.left <= 0
            if self.dead and not self.after:
                raise Killed
            result = method(*arguments)
            if self.dead:
                raise Killed
            return result

        return call


@pytest.fixture
def driver() -> Iterator[Driver]:
    with open_driver(f"test://{Path(__file__).parents[1] / 'data' / 'test-host.xml'}") as opened:
        yield opened
        _apply(opened, NOTHING)
        assert opened.observe() == ()


def _apply(driver: Any, wanted: Topology, parallel: int = 1) -> int:
    plan = plan_on(driver, wanted, PRUNE)
    outcome = carry_out(plan, driver, driver.host(), Options(parallel=parallel), Progress())
    assert outcome.ok, outcome.errors
    return len(plan.steps)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("then", [FIRST, SECOND, NOTHING], ids=["same", "other", "nothing"])
def test_a_death_at_any_call_is_repaired(driver: Driver, then: Topology, after: bool) -> None:
    deaths = 0
    for calls in range(1, 100):
        mortal = Mortal(driver, calls, after=after)
        try:
            _apply(mortal, FIRST)
            _apply(mortal, SECOND)
        except Killed:
            deaths += 1
        else:
            break
        _apply(driver, then)
        assert _apply(driver, then) == 0
        names = {domain.name for domain in driver.observe()}
        assert {client_.name for client_ in then.clients} <= names
        _apply(driver, NOTHING)
        assert driver.observe() == ()
    assert deaths > 15


def test_what_is_left_out_after_a_death_takes_nobodys_processors(driver: Driver) -> None:
    """Device VMs with processors of their own take over from each other; then their clients have no place any more."""
    clients = [client(name, disk()) for name in "ab"]
    cores = len(driver.host().cpus) // 2

    def wanted(first: str, second: str, **changes: Any) -> Topology:
        declared = tuple(
            DeviceVM(name, Serves(clients=(of.name,)), resources=(core(cores - number),))
            for number, (name, of) in enumerate(zip((first, second), clients, strict=True))
        )
        return topology(*(replace(one, **changes) for one in clients), device_vms=declared)

    both = 0
    for calls in range(1, 100):
        mortal = Mortal(driver, calls, after=True)
        try:
            _apply(mortal, wanted("x", "y"))
            _apply(mortal, wanted("z", "x"))
        except Killed:
            both += len(_doubly_held(driver)) > 0
        else:
            break
        left = wanted("z", "x", host="elsewhere")
        plan = plan_on(driver, left, PRUNE)
        assert plan.unplaced or not driver.observe()
        assert carry_out(plan, driver, driver.host(), Options(allow_unplaced=True), Progress()).ok
        assert not _doubly_held(driver)
        _apply(driver, NOTHING)
    assert both > 1


def _doubly_held(driver: Driver) -> set[int]:
    """The processors that one domain has to itself, and another has as well."""
    held = [(cpu, one) for one in driver.host().holdings for cpu in one.cpus]
    return {cpu for cpu, one in held if one.dedicated and any(cpu == c and one is not two for c, two in held)}
