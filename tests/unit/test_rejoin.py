"""A paused domain goes on when its disks are there, and only then. For real: tests/e2e/test_device_vm_dies.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

libvirt = pytest.importorskip("libvirt")

from devicevm.planner.planner import make_plan  # noqa: E402 - what follows needs libvirt
from devicevm.vmm.driver import VmmError  # noqa: E402
from devicevm.vmm.libvirt import observation, rejoin  # noqa: E402
from devicevm.vmm.libvirt.test import TestDriver  # noqa: E402
from devicevm.vmm.places import places_of  # noqa: E402
from world import ME, client, disk, host, topology  # noqa: E402

STALLED = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]
RUNS = [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED]
DISK = (
    "<disk type='network'><driver name='qemu' error_policy='{policy}'/>"
    "<source protocol='nbd'><host transport='unix' socket='{socket}'/></source></disk>"
)


class Paused:
    """A domain that stops again `times` times."""

    def __init__(self, times: int, *disks: str) -> None:
        self.times, self.disks, self.resumed = times, "".join(disks), 0
        self.errors: dict[str, int] = {}

    def name(self) -> str:
        return "web"

    def XMLDesc(self, _flags: int) -> str:
        return f"<domain><devices>{self.disks}</devices></domain>"

    def state(self) -> list[int]:
        return RUNS if self.resumed > self.times else STALLED

    def resume(self) -> None:
        self.resumed += 1

    def diskErrors(self) -> dict[str, int]:
        return self.errors


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits, and the sockets `there` have a peer."""
    monkeypatch.setattr(rejoin, "_SETTLED", 0.001)
    monkeypatch.setattr(rejoin, "PATIENCE", 0.1)
    monkeypatch.setattr(rejoin, "has_peer", lambda path: Path(path).name == "there")


def test_one_that_stops_once_more_is_let_go_on_once_more() -> None:
    domain = Paused(2, DISK.format(policy="stop", socket="/run/there"))
    rejoin.go_on(domain)
    assert domain.resumed == 3


def test_one_that_never_goes_on_is_an_error() -> None:
    with pytest.raises(VmmError, match="web stays paused"):
        rejoin.go_on(Paused(10**9, DISK.format(policy="stop", socket="/run/there")))


def test_one_whose_disk_has_no_room_says_so_and_is_tried_once() -> None:
    domain = Paused(1)
    domain.errors = {"vdb": libvirt.VIR_DOMAIN_DISK_ERROR_UNSPEC, "vda": libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE}
    with pytest.raises(VmmError, match=r"stays paused: no room is left for vda\n"):
        rejoin.try_again(domain)
    assert domain.resumed == 1
    assert rejoin.try_again(domain)
    assert not rejoin.try_again(domain) and domain.resumed == 2


def test_one_whose_other_disk_is_away_waits_for_that() -> None:
    disks = [DISK.format(policy="stop", socket=f"/run/{name}") for name in ("there", "away")]
    domain = Paused(0, *disks)
    rejoin.go_on(domain)
    assert domain.resumed == 0


def test_a_disk_that_may_fail_is_waited_for_by_nobody() -> None:
    domain = Paused(0, DISK.format(policy="report", socket="/run/away"))
    rejoin.go_on(domain)
    assert domain.resumed == 1


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestDriver]:
    """libvirt's test driver, which knows one reason only to pause a domain; all disks are there."""
    monkeypatch.setattr(rejoin, "has_peer", lambda _path: True)
    monkeypatch.setattr(rejoin, "is_stalled", lambda domain: domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED)
    with TestDriver(places_of("test:///default")) as opened:
        yield opened  # type: ignore[misc]


def test_a_client_goes_on_whatever_it_is_called_by_now(driver: TestDriver) -> None:
    plan = make_plan(topology(client("web", disk())), (host(),), (), ME)
    spec = next(replace(one, accelerator="test", arch="i686") for one in plan.domains if one.name == "web")
    driver.define(spec)
    domain = driver.connection.lookupByUUIDString(spec.uuid)
    domain.rename("web2")
    domain.create()
    domain.suspend()
    with pytest.raises(VmmError, match="belongs to owner 'default'"):
        driver.rejoin(spec.uuid, "lab", ())
    assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    driver.rejoin(spec.uuid, spec.owner, ())
    assert domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    domain.destroy()
    domain.undefine()


def test_who_is_away_from_a_paused_client_is_seen(driver: TestDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = next(one for one in make_plan(topology(client("web", disk())), (host(),), (), ME).domains if one.attachments)
    spec = replace(spec, accelerator="test", arch="i686")
    driver.define(spec)
    driver.start(spec.name)
    driver.connection.lookupByName(spec.name).suspend()
    monkeypatch.setattr(observation, "is_stalled", rejoin.is_stalled)
    for there in (True, False):
        monkeypatch.setattr(observation, "has_peer", lambda _path, there=there: there)
        (seen,) = driver.observe()
        assert seen.stalled
        assert seen.away == (() if there else tuple(one.channel.address for one in spec.attachments))
    driver.resume(spec.name)
    (seen,) = driver.observe()
    assert not seen.stalled and not seen.away
    driver.stop(spec.name)
    driver.undefine(spec.name)


def test_nobody_else_s_domain_is_let_go_on(driver: TestDriver) -> None:
    domain = driver.connection.lookupByName("test")
    domain.suspend()
    with pytest.raises(VmmError, match="is not devicevm's"):
        driver.rejoin(domain.UUIDString(), "default", ())
    with pytest.raises(VmmError, match="is not devicevm's"):
        driver.resume("test")
    assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    domain.resume()
