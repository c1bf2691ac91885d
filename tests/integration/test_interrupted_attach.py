"""Giving an existing domain devices, and taking them out, dies anywhere: the next apply finishes or undoes it, and in
the end the domain is as it was.

On libvirt's test driver, as in test_interrupted_apply.py; here the driver also dies in the middle of its own work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devicevm.apply.progress import Progress
from devicevm.apply.workflow import Options, carry_out, plan_on
from devicevm.manifest.topology import Client, Consumer, Topology
from devicevm.planner.planner import Intent
from devicevm.vmm.libvirt.driver import LibvirtDriver
from devicevm.vmm.libvirt.test import TestDriver
from devicevm.vmm.places import places_of
from world import client, disk, topology

libvirt = pytest.importorskip("libvirt")
pytestmark = pytest.mark.libvirt

PRUNE = Intent("default", prune=True)
THEIRS = (
    "<domain type='test'><name>{}</name><memory>32768</memory><os><type>hvm</type></os>"
    "<devices><disk type='file'><source file='/x'/><target dev='vda'/></disk></devices></domain>"
)


def existing(name: str, domain: str, *devices: str) -> Client:
    return client(name, *map(disk, devices), vm=None, consumer=Consumer.EXISTING, domain=domain)


FIRST = topology(existing("ledger", "legacy", "log", "data"), existing("archive", "old", "log"))
SECOND = topology(existing("ledger", "old", "data", "more"))
NOTHING: Topology = topology()


class Killed(BaseException):
    """The process is gone: nothing after it runs, no clean-up, no undo."""


class Mortal(TestDriver):
    """A driver that dies at its n-th call of what it is made of: before that does anything, or right after."""

    left = 10**9
    after = False
    dead = False

    def _die_at(self, call: Callable[[], Any]) -> Any:
        if self.dead:
            raise Killed
        self.left -= 1
        self.dead = self.left <= 0
        if self.dead and not self.after:
            raise Killed
        result = call()
        if self.dead:
            raise Killed
        return result

    def define(self, *arguments: Any) -> None:
        self._die_at(lambda: super(Mortal, self).define(*arguments))

    def start(self, *arguments: Any) -> None:
        self._die_at(lambda: super(Mortal, self).start(*arguments))

    def stop(self, *arguments: Any) -> None:
        self._die_at(lambda: super(Mortal, self).stop(*arguments))

    def undefine(self, *arguments: Any) -> None:
        self._die_at(lambda: super(Mortal, self).undefine(*arguments))

    def change_definition(self, *arguments: Any) -> None:
        self._die_at(lambda: super(Mortal, self).change_definition(*arguments))

    def set_metadata(self, *arguments: Any) -> None:
        self._die_at(lambda: super(Mortal, self).set_metadata(*arguments))


@pytest.fixture
def driver() -> Iterator[LibvirtDriver]:
    """A driver with two domains of somebody else's, which are in the end as they were."""
    with _open(TestDriver) as opened:
        theirs = [opened.connection.defineXML(THEIRS.format(name)) for name in ("legacy", "old")]
        before = [one.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) for one in theirs]
        yield opened
        _apply(opened, NOTHING)
        assert opened.observe() == ()
        assert [one.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE) for one in theirs] == before
        for one in theirs:
            one.undefine()


def _open(kind: type[TestDriver]) -> TestDriver:
    return kind(places_of(f"test://{Path(__file__).parents[1] / 'data' / 'test-host.xml'}", None))


def _apply(driver: LibvirtDriver, wanted: Topology) -> int:
    plan = plan_on(driver, wanted, PRUNE)
    outcome = carry_out(plan, driver, driver.host(), Options(parallel=1), Progress())
    assert outcome.ok, outcome.errors
    return len(plan.steps)


@pytest.mark.parametrize(
    ("then", "after"),
    [(FIRST, True), (SECOND, False), (NOTHING, False), (NOTHING, True)],
    ids=["same", "other", "nothing-before", "nothing-after"],
)
def test_a_death_at_any_call_is_repaired(driver: LibvirtDriver, then: Topology, after: bool) -> None:
    deaths = 0
    for calls in range(1, 200):
        mortal = _open(Mortal)
        # The test driver's domains are a connection's.
        mortal.connection, mortal.left, mortal.after = driver.connection, calls, after
        try:
            _apply(mortal, FIRST)
            _apply(mortal, SECOND)
        except Killed:
            deaths += 1
        else:
            break
        _apply(driver, then)
        assert _apply(driver, then) == 0
        assert {one.name for one in driver.observe() if one.consumer is Consumer.EXISTING} == {
            one.name for one in then.clients
        }
        _apply(driver, NOTHING)
        assert driver.observe() == ()
    assert deaths > 15


def test_what_cannot_be_attached_is_undone(driver: LibvirtDriver) -> None:
    """A domain that says no, after its mark was written: nothing of the client stays."""

    class Refusing(TestDriver):
        def change_definition(self, *arguments: Any) -> None:
            if arguments[1].add:
                raise libvirt.libvirtError("no room")

    refusing = _open(Refusing)
    refusing.connection = driver.connection
    wanted = replace(FIRST, clients=FIRST.clients[1:])
    plan = plan_on(refusing, wanted, PRUNE)
    outcome = carry_out(plan, refusing, refusing.host(), Options(parallel=1), Progress())
    assert outcome.failed == ["attach/client/ledger"]
    assert not outcome.undo_errors
    assert driver.observe() == ()
