"""Clients on one VMM and device VMs on a manager's, seen as one: libvirt's test driver plays both."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.domain import DomainSpec
from devicevm.errors import DevicevmError
from devicevm.inventory.supports import ON_REQUEST
from devicevm.manager import server, wire
from devicevm.manager.keeper import Times
from devicevm.manager.server import Manager
from devicevm.manifest.topology import Start
from devicevm.planner.planner import make_plan
from devicevm.vmm import managed as managed_module
from devicevm.vmm.console import MAX_LOG
from devicevm.vmm.managed import ManagedDriver
from devicevm.vmm.places import places_of
from stage_collection import REPO
from world import ME, client, disk, host, topology

pytest.importorskip("libvirt", reason="libvirt's Python binding is not installed")
from devicevm.vmm.libvirt import rejoin
from devicevm.vmm.libvirt.test import TestDriver

pytestmark = pytest.mark.libvirt

PAUSED = 3
"""libvirt's VIR_DOMAIN_PAUSED."""


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def specs(name: str = "web") -> tuple[DomainSpec, DomainSpec]:
    """A client and its device VM, as the planner says them for libvirt's test driver."""
    plan = make_plan(topology(client(name, disk())), (host(),), (), ME)
    found = {spec.name: replace(spec, accelerator="test", arch="i686", start=Start.REQUEST) for spec in plan.domains}
    return found[name], found[f"{name}-dvm"]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A manager whose VMM is another one than that of the clients."""
    monkeypatch.setattr(server, "REJOIN_AGAIN", 0.05)
    vmm = TestDriver(places_of(f"test://{REPO}/tests/data/test-host.xml"))
    clients = TestDriver(places_of("test:///default"))
    for domain in (*vmm.connection.listAllDomains(), *clients.connection.listAllDomains()):
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    path = str(tmp_path / "sock")
    made = Manager(path, vmm, lambda: TestDriver(places_of("test:///default")), times=Times(grace=0.2, pause=0.01))
    listening = threading.Event()
    thread = threading.Thread(target=made.run, args=(listening.set,), daemon=True)
    thread.start()
    assert listening.wait(30)
    yield made
    made.end()
    thread.join(30)
    clients.close()
    assert not Path(path).exists()


@pytest.fixture
def driver(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManagedDriver]:
    monkeypatch.setattr(managed_module, "QemuDriver", TestDriver)
    monkeypatch.setattr(wire, "socket_path", lambda _places: manager.path)
    with ManagedDriver(places_of("test:///default")) as opened:
        assert isinstance(opened, ManagedDriver)
        yield opened


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a manager looks at now and then it looks at soon."""
    monkeypatch.setattr(server, "LOGS_AGAIN", 0.02)


def test_consoles_of_device_vms_are_bounded_while_they_run(soon: None, manager: Manager) -> None:
    log = manager.vmm.places.logs / "endless.console"
    log.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    log.write_bytes(b"noise\n" * MAX_LOG)
    try:
        until(lambda: log.stat().st_blocks * 512 < MAX_LOG)
        assert log.read_bytes().endswith(b"noise\n")
    finally:
        log.unlink()


def test_both_are_seen_as_one(driver: ManagedDriver, manager: Manager) -> None:
    web, device_vm = specs()
    driver.define(device_vm)
    driver.define(web)
    assert [seen.name for seen in driver.observe()] == ["web", "web-dvm"]
    assert [seen.spec for seen in driver.observe()] == [web, device_vm]
    assert driver.domain_names() == {"web", "web-dvm"}
    assert manager.vmm.domain_names() == {"web-dvm"} and driver.clients.domain_names() == {"web"}
    found = driver.host()
    assert [holding.domain for holding in found.holdings] == ["web", "web-dvm"]
    assert ON_REQUEST in found.vmm.supports


def test_each_step_goes_to_whom_has_the_domain(
    driver: ManagedDriver, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spec, home in zip(specs(), (driver.clients, manager.vmm), strict=True):
        driver.define(spec)
        driver.start(spec.name)
        assert home.is_active(spec.name) and driver.is_active(spec.name)
        driver.mark(spec)
        driver.pin(spec)
        home.connection.lookupByName(spec.name).suspend()
        with monkeypatch.context() as paused:
            paused.setattr(rejoin, "is_stalled", lambda domain: domain.state()[0] == PAUSED)
            assert driver.resume(spec.name) and not driver.resume(spec.name)
        (seen,) = [one for one in driver.observe() if one.name == spec.name]
        assert seen.active and seen.ready and seen.active_spec is seen.spec
        driver.stop(spec.name)
        assert not home.is_active(spec.name) and not driver.is_active(spec.name)
        driver.undefine(spec.name)
        assert home.domain_names() == frozenset()
    assert driver.observe() == ()


def test_a_client_s_name_is_no_device_vm_s(driver: ManagedDriver) -> None:
    web, device_vm = specs()
    driver.define(web)
    with pytest.raises(DevicevmError, match="is there already"):
        driver.define(replace(device_vm, name="web"))


def test_the_manager_s_refusal_is_the_driver_s(driver: ManagedDriver) -> None:
    device_vm = specs()[1]
    driver.define(device_vm)
    driver.start(device_vm.name)
    with pytest.raises(DevicevmError, match="cannot undefine web-dvm: it runs"):
        driver.undefine(device_vm.name)
    with pytest.raises(DevicevmError, match="no live devices"):
        driver.attach_emulator(device_vm.name, device_vm.emulators[0])
    with pytest.raises(DevicevmError, match="no live devices"):
        driver.detach_emulator(device_vm.name, device_vm.emulators[0])


def test_libvirt_s_word_of_a_death_is_heard(driver: ManagedDriver, manager: Manager) -> None:
    device_vm = specs()[1]
    driver.define(device_vm)
    driver.start(device_vm.name)
    driver.mark(device_vm)
    manager.vmm.connection.lookupByName(device_vm.name).destroy()
    until(lambda: driver.is_active(device_vm.name))


def test_a_client_is_prepared_and_released(driver: ManagedDriver, manager: Manager) -> None:
    web, device_vm = specs()
    driver.define(device_vm)
    driver.define(web)
    request = {"client": web.uuid, "owner": web.owner, "deviceVMs": [device_vm.name]}
    wire.ask(manager.path, "prepare", 30, **request)
    assert driver.is_active(device_vm.name)
    wire.ask(manager.path, "use", 5, **request)
    wire.ask(manager.path, "release", 5, **request)
    until(lambda: not driver.is_active(device_vm.name))


def test_what_a_client_that_runs_needs_is_brought_up_by_the_next_manager(
    driver: ManagedDriver, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has told this manager of the client, and libvirt does not know why the device VM is off."""
    web, device_vm = specs()
    driver.clients.define(web)
    driver.clients.start("web")
    manager.vmm.define(device_vm)
    manager.keeper.take_over(lambda _name: False)
    with monkeypatch.context() as locked:
        locked.setattr(server, "is_locked", lambda _places: True)
        assert not manager._find_clients() and not driver.is_active(device_vm.name), "an apply is at work"
    assert manager._find_clients()
    until(lambda: manager.vmm.is_active(device_vm.name))


def test_clients_that_do_not_go_on_are_tried_again_and_keep_nobody_else(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "content_stays", lambda _old, _new: True)
    told: list[str] = []
    manager._tell = told.append
    stuck, tried = {specs("web")[0].uuid}, list[str]()

    def rejoin(_driver: TestDriver, uuid: str, _owner: str, _addresses: tuple[str, ...]) -> None:
        tried.append(uuid)
        if uuid in stuck:
            raise OSError("web stays paused")

    monkeypatch.setattr(TestDriver, "rejoin", rejoin)
    for name in ("web", "db"):
        device_vm = specs(name)[1]
        manager.keeper.define(device_vm)
        manager.keeper.start(device_vm.name)
        manager.keeper.mark(device_vm)
        manager._rejoin(device_vm)
    until(lambda: len(tried) > 5)
    assert set(tried) == {specs(name)[0].uuid for name in ("web", "db")} and tried.count(specs("db")[0].uuid) == 1
    assert told == ["web-dvm: unexpected OSError: web stays paused; it is tried again"]
    stuck.clear()
    until(lambda: not manager._waiting)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (b"what?\n", "cannot read"),
        (b"[]\n", "JSON object"),
        (b'{"op": "stop", "version": "0"}\n', "is version"),
        (b'{"op": "prepare", "hook": 0}\n', "devicevm's manager"),
        (b'{"op": "dance", "hook": 2}\n', "no operation"),
        (b'{"op": "prepare", "hook": 2}\n', "cannot read"),
    ],
)
def test_what_is_no_request_is_refused_and_the_manager_goes_on(manager: Manager, request_: bytes, words: str) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(manager.path)
        peer.sendall(request_)
        assert words in json.loads(wire.read_line(peer, time.monotonic() + 10))["error"]
    assert wire.ask(manager.path, "names", 5) == []
