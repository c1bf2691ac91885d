"""What every VMM driver must do (plugin/module_utils/devicevm/vmm/driver.py), on each VMM that can be had here."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Domains, Vmm
from devicevm.channel.registry import MAX_ADDRESS
from devicevm.domain import CpuPlacement
from devicevm.errors import DevicevmError
from devicevm.inventory.supports import GUESTS, LIVE_DEVICES
from devicevm.manifest.topology import Boot, Store
from devicevm.planner import naming
from devicevm.vmm.driver import VmmError
from devicevm.vmm.libvirt.driver import LibvirtDriver
from devicevm.vmm.libvirt.metadata import NAMESPACE, PREFIX
from guests import GREETING, MIB, OWNER, client, device_vm, emulator, foreign

pytestmark = pytest.mark.libvirt


def test_what_was_defined_is_observed(driver: LibvirtDriver, domains: Domains) -> None:
    before = driver.domain_names()
    driver.define(domains.device_vm)
    driver.define(domains.client)
    assert driver.domain_names() == before | {"web", "web-dvm"}
    seen = driver.observe()
    assert [domain.spec for domain in seen] == [domains.client, domains.device_vm]
    for domain in seen:
        assert (domain.owner, domain.active, domain.active_spec) == (OWNER, False, None)
        assert (domain.drift, domain.broken) == ((), "")
        assert domain.spec is not None
        assert (domain.uuid, domain.role) == (domain.spec.uuid, domain.spec.role)


def test_define_and_start_are_idempotent(driver: LibvirtDriver, domains: Domains) -> None:
    for _ in range(2):
        driver.define(domains.device_vm)
    for _ in range(2):
        driver.start("web-dvm")
    driver.define(domains.device_vm)
    (seen,) = driver.observe()
    assert seen.active
    assert seen.spec == seen.active_spec == domains.device_vm
    assert seen.drift == ()


def test_a_client_runs_with_its_device_vm(driver: LibvirtDriver, domains: Domains) -> None:
    for spec in (domains.device_vm, domains.client):
        driver.define(spec)
        driver.start(spec.name)
    assert [(seen.name, seen.active, seen.drift) for seen in driver.observe()] == [
        ("web", True, ()),
        ("web-dvm", True, ()),
    ]
    assert not driver.resume("web") and not driver.resume("web-dvm"), "nobody has paused them"


def test_a_running_domain_goes_on_as_it_is_until_it_is_marked(driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.device_vm)
    driver.start("web-dvm")
    changed = replace(domains.device_vm, memory=64 * MIB)
    driver.define(changed)
    (seen,) = driver.observe()
    assert (seen.spec, seen.active_spec, seen.ready) == (changed, domains.device_vm, False)
    assert (seen.drift, seen.live_drift) == ((), ())
    driver.mark(changed)
    (seen,) = driver.observe()
    assert (seen.spec, seen.active_spec, seen.ready) == (changed, changed, True)
    assert seen.live_drift == ("memory is 32MiB, declared 64MiB",)


def test_stop_and_undefine_are_idempotent_and_leave_nothing(driver: LibvirtDriver, domains: Domains) -> None:
    for spec in (domains.device_vm, domains.client):
        driver.define(spec)
        driver.start(spec.name)
    if driver.places.runtime.is_dir():
        # As virtlogd puts a full log aside.
        for number in range(3):
            (driver.places.runtime / f"web.console.{number}").touch()
    for name in ("web", "web-dvm"):
        for _ in range(2):
            driver.stop(name)
            assert not driver.is_active(name)
        for _ in range(2):
            driver.undefine(name)
    assert not driver.domain_names() & {"web", "web-dvm"}
    places = [path for path in (driver.places.runtime,) if path.is_dir()]
    assert {name for path in places for name in os.listdir(path)} <= {"lock"}


def test_a_running_domain_is_not_undefined(driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.device_vm)
    driver.start("web-dvm")
    with pytest.raises(VmmError, match="cannot undefine web-dvm: it runs"):
        driver.undefine("web-dvm")
    assert driver.is_active("web-dvm")


def test_unknown_domains(driver: LibvirtDriver, domains: Domains) -> None:
    driver.stop("nobody")
    driver.undefine("nobody")
    assert not driver.is_active("nobody") and not driver.resume("nobody")
    fail: list[Callable[[], None]] = [lambda: driver.start("nobody"), lambda: driver.mark(domains.device_vm)]
    for fails in fail:
        with pytest.raises(VmmError, match=r"no such domain|does not run"):
            fails()


def test_a_foreign_domain_is_left_alone(driver: LibvirtDriver, domains: Domains) -> None:
    theirs = foreign(driver)
    before = theirs.XMLDesc(driver.libvirt.VIR_DOMAIN_XML_INACTIVE)
    try:
        named = replace(domains.device_vm, name="theirs")
        touches: list[Callable[[], None]] = [
            lambda: driver.define(named),
            lambda: driver.start("theirs"),
            lambda: driver.stop("theirs"),
            lambda: driver.undefine("theirs"),
            lambda: driver.mark(named),
        ]
        for touch in touches:
            with pytest.raises(VmmError, match="theirs is not devicevm's, and is left alone"):
                touch()
        assert driver.observe() == ()
        assert theirs.XMLDesc(driver.libvirt.VIR_DOMAIN_XML_INACTIVE) == before
        assert "theirs" in {holding.domain for holding in driver.host().holdings}
    finally:
        theirs.undefine()


def test_another_owners_domain_is_not_redefined(driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.device_vm)
    with pytest.raises(VmmError, match="belongs to owner 'conformance', not to 'other'"):
        driver.define(replace(domains.device_vm, owner="other", memory=64 * MIB))
    assert driver.observe()[0].spec == domains.device_vm


def test_a_renamed_domain_is_told_from_a_new_one(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.client)
    driver.connection.lookupByName("web").rename("web9", 0)
    try:
        with pytest.raises(VmmError, match=f"domain web9 has its UUID {domains.client.uuid}") as caught:
            driver.define(domains.client)
        assert "virsh domrename web9 web" in caught.value.hint
        assert "web" not in driver.domain_names()
    finally:
        driver.connection.lookupByName("web9").undefine()
    driver.define(domains.client)


def test_a_foreign_domain_with_the_planned_uuid_is_left_alone(driver: LibvirtDriver, domains: Domains) -> None:
    uuid = domains.client.uuid
    theirs = foreign(driver, f"<uuid>{uuid}</uuid>")
    try:
        with pytest.raises(VmmError, match=f"domain theirs has its UUID {uuid}") as caught:
            driver.define(domains.client)
        assert "virsh undefine theirs" in caught.value.hint
    finally:
        theirs.undefine()


def test_a_domain_of_the_name_with_another_uuid_is_not_redefined(driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.client)
    with pytest.raises(VmmError, match=f"the domain of this name has UUID {domains.client.uuid}") as caught:
        driver.define(replace(domains.client, uuid=domains.device_vm.uuid))
    assert "virsh undefine web" in caught.value.hint
    assert [seen.spec for seen in driver.observe()] == [domains.client]


def test_other_tools_see_who_serves_whom(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.device_vm)
    domain = driver.connection.lookupByName("web-dvm")
    assert (
        domain.metadata(driver.libvirt.VIR_DOMAIN_METADATA_TITLE, None, 0)
        == "device VM of web: data (disk), gps (disk)"
    )
    tree = ElementTree.fromstring(domain.metadata(driver.libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, 0))
    assert (tree.get("owner"), tree.get("role")) == (OWNER, "device-vm")
    assert [item.get("client") for item in tree if item.tag.endswith("device")] == ["web", "web"]
    if vmm.name in ("session", "system") and shutil.which("virsh"):
        command = ["virsh", "-c", vmm.uri, "metadata", "web-dvm", NAMESPACE]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f'owner="{OWNER}"' in said


def test_hostile_metadata_is_a_broken_domain(driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.device_vm)
    domain = driver.connection.lookupByName("web-dvm")
    config, kind = driver.libvirt.VIR_DOMAIN_AFFECT_CONFIG, driver.libvirt.VIR_DOMAIN_METADATA_ELEMENT
    for text in (
        "<domain/>",
        "<domain format='99'><spec>{}</spec></domain>",
        f"<domain format='1'><spec>{'[' * 9000}</spec></domain>",
    ):
        domain.setMetadata(kind, text, PREFIX, NAMESPACE, config)
        (seen,) = driver.observe()
        assert seen.spec is None
        assert seen.broken
    driver.host()


def test_changes_behind_devicevms_back_are_drift(driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(replace(domains.device_vm, vcpus=2))
    domain = driver.connection.lookupByName("web-dvm")
    config = driver.libvirt.VIR_DOMAIN_AFFECT_CONFIG
    domain.setVcpusFlags(1, config)
    assert driver.observe()[0].drift == ("vcpus are 1, declared 2",)
    inactive = driver.libvirt.VIR_DOMAIN_XML_INACTIVE
    driver.connection.defineXML(domain.XMLDesc(inactive).replace("<on_reboot>destroy", "<on_reboot>restart"))
    assert driver.observe()[0].drift == ("vcpus are 1, declared 2", "on_reboot is 'restart', declared 'destroy'")
    driver.define(replace(domains.device_vm, vcpus=2))
    assert driver.observe()[0].drift == ()


def test_what_starts_with_the_vmm_is_set_seen_and_taken_back(driver: LibvirtDriver, domains: Domains) -> None:
    def drift() -> tuple[str, ...]:
        (seen,) = driver.observe()
        return seen.drift

    asked = replace(domains.client, autostart=True)
    driver.define(asked)
    (domain,) = driver.connection.listAllDomains(driver.libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
    assert domain.name() == "web" and drift() == ()
    domain.setAutostart(0)
    assert drift() == ("autostart is off, declared on",)
    driver.define(asked)
    assert domain.autostart() and drift() == ()
    driver.define(domains.client)
    assert not domain.autostart(), "it was asked for, and is not any more"
    domain.setAutostart(1)
    driver.define(domains.client)
    assert domain.autostart() and drift() == (), "what somebody has set is theirs"
    driver.define(replace(asked, autostart=False))
    assert not domain.autostart() and drift() == ()


def test_the_longest_names_fit(vmm: Vmm, driver: LibvirtDriver) -> None:
    runtime = str(driver.places.runtime)
    longest = "d" * 63
    devices = (emulator(runtime, longest, "e" * 63), emulator(runtime, longest, "e" * 62 + "f"))
    spec = device_vm(runtime, vmm.accelerator, vmm.kernel, name=longest, emulators=devices)
    user = client(runtime, vmm.accelerator, vmm.kernel, spec, name="c" * 63)
    addresses = [spec.control, *(item.channel.address for item in devices)]
    assert max(len(address.encode()) for address in addresses) <= MAX_ADDRESS
    for one in (spec, user):
        driver.define(one)
        driver.start(one.name)
    assert [seen.drift for seen in driver.observe()] == [(), ()]


def test_the_inventory_names_what_the_driver_can_do(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.device_vm)
    host = driver.host()
    assert host.vmm.runtime_dir == str(driver.places.runtime)
    assert host.accelerator == vmm.accelerator
    assert (GUESTS in host.vmm.supports) == vmm.guests
    assert host.cpus
    assert host.memory > 0
    (holding,) = [one for one in host.holdings if one.domain == "web-dvm"]
    assert (holding.owner, holding.memory, holding.vcpus) == (OWNER, 32 * MIB, 1)


def test_an_error_has_the_vmms_own_words(driver: LibvirtDriver, domains: Domains) -> None:
    with pytest.raises(VmmError, match=r"cannot define web-dvm: .*schema"):
        driver.define(replace(domains.device_vm, uuid="no-uuid"))


def test_rendering_is_pure(driver: LibvirtDriver, domains: Domains) -> None:
    text = driver.render(domains.device_vm)
    assert text == driver.render(domains.device_vm)
    assert ElementTree.fromstring(text).findtext("name") == "web-dvm"
    assert "web-dvm" not in driver.domain_names()


def test_emulators_come_and_go_while_the_device_vm_runs(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    if LIVE_DEVICES not in driver.host().vmm.supports:
        with pytest.raises(VmmError, match="no live devices"):
            driver.attach_emulator("web-dvm", domains.device_vm.emulators[0])
        return
    store = Store("file", MIB, path=str(vmm.work / "store.img"))
    assert driver.ensure_store(store)
    more = emulator(str(driver.places.runtime), "web-dvm", "more", store)
    driver.define(domains.device_vm)
    driver.start("web-dvm")
    try:
        for _ in range(2):
            driver.attach_emulator("web-dvm", more)
        assert stat.S_ISSOCK(os.stat(more.channel.address).st_mode)
        changed = replace(domains.device_vm, emulators=(*domains.device_vm.emulators, more))
        driver.define(changed)
        driver.mark(changed)
        (seen,) = driver.observe()
        assert (seen.spec, seen.active_spec, seen.drift) == (changed, changed, ())
        for _ in range(2):
            driver.detach_emulator("web-dvm", more)
        assert not Path(more.channel.address).exists()
        driver.define(domains.device_vm)
        driver.mark(domains.device_vm)
        (seen,) = driver.observe()
        assert (seen.active_spec, seen.drift) == (domains.device_vm, ())
    finally:
        driver.stop("web-dvm")
        driver.delete_store(store)


def test_the_console_is_read(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.device_vm)
    driver.start("web-dvm")
    if not vmm.guests:
        assert driver.console_tail(domains.device_vm, 5) == ()
        return
    end = time.monotonic() + 20
    while not driver.console_tail(domains.device_vm, 5) and time.monotonic() < end:
        time.sleep(0.1)
    assert driver.console_tail(domains.device_vm, 5) == (GREETING.decode().strip(),)


def test_console_logs_are_where_the_inventory_says(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    facts = driver.host().vmm
    logs = Path(facts.log_dir or facts.runtime_dir)
    assert logs == driver.places.logs
    assert (logs == driver.places.runtime) == (vmm.name != "embed")
    if not vmm.guests:
        return
    spec = replace(domains.device_vm, console=naming.console_log(str(logs), "web-dvm"))
    driver.define(spec)
    driver.start("web-dvm")
    end = time.monotonic() + 20
    while not driver.console_tail(spec, 5) and time.monotonic() < end:
        time.sleep(0.1)
    assert driver.console_tail(spec, 5) == (GREETING.decode().strip(),)
    driver.stop("web-dvm")
    driver.undefine("web-dvm")
    assert list(logs.glob("*.console*")) == []


def test_a_guest_that_opens_no_port_has_none_open(driver: LibvirtDriver, domains: Domains) -> None:
    """Debian's disk, in tests/e2e, opens some."""
    driver.define(domains.device_vm)
    with pytest.raises(VmmError):
        driver.open_ports(domains.device_vm.name)
    driver.start(domains.device_vm.name)
    assert driver.open_ports(domains.device_vm.name) == frozenset()


def test_domains_outlive_the_connection(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    if not vmm.guests:
        pytest.skip("the test driver's domains live in this process")
    driver.define(domains.device_vm)
    driver.start("web-dvm")
    driver.close()
    driver.close()
    with vmm.open() as again:
        (seen,) = again.observe()
        assert (seen.active, seen.active_spec, seen.drift) == (True, domains.device_vm, ())


def test_a_device_vm_without_an_image_is_not_defined(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    if not vmm.guests:
        pytest.skip("the test driver needs no image")
    with pytest.raises(DevicevmError, match="no image to boot"):
        driver.define(replace(domains.device_vm, boot=replace(domains.device_vm.boot, kernel="")))


def test_what_a_device_vm_writes_on_its_image_is_gone_at_its_next_start(
    vmm: Vmm, driver: LibvirtDriver, domains: Domains
) -> None:
    if not vmm.guests:
        pytest.skip("the test driver has no disks")
    image, name = vmm.work / "image", domains.device_vm.name
    image.write_bytes(bytes(2**20))
    image.chmod(0o644)
    overlay = driver.places.overlays / f"{name}.qcow2"

    def on_it(command: str) -> str:
        driver.start(name)
        driver.stop(name)
        return subprocess.run(["qemu-io", "-c", command, overlay], check=True, capture_output=True, text=True).stdout

    driver.define(replace(domains.device_vm, boot=Boot(image=str(image))))
    on_it("write -P 7 0 512")
    assert "verification failed" not in on_it("read -P 0 0 512")
    assert image.read_bytes() == bytes(2**20)
    driver.undefine(name)
    assert not overlay.exists()


def test_volumes(vmm: Vmm, driver: LibvirtDriver) -> None:
    if "volumes" not in driver.host().vmm.supports:
        pytest.skip("this driver has no storage pools")
    path = vmm.work / "pool"
    path.mkdir(exist_ok=True)
    xml = f"<pool type='dir'><name>conformance</name><target><path>{path}</path></target></pool>"
    pool = driver.connection.storagePoolCreateXML(xml, 0)
    try:
        store = Store("volume", MIB, pool="conformance", volume="v.img")
        assert driver.ensure_store(store)
        assert not driver.ensure_store(store)
        if vmm.guests:  # the test driver cannot resize
            assert not driver.ensure_store(replace(store, size=2 * MIB))
            assert (path / "v.img").stat().st_size == 2 * MIB
            with pytest.raises(DevicevmError, match="has 2097152 bytes, declared are 1048576: it would lose 1048576"):
                driver.ensure_store(store)
        for _ in range(2):
            driver.delete_store(store)
        with pytest.raises(VmmError, match="storage pool nowhere"):
            driver.ensure_store(replace(store, pool="nowhere"))
    finally:
        pool.destroy()


def test_a_running_domain_moves_to_other_processors_and_back(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    plain = replace(domains.device_vm, placement=CpuPlacement())
    driver.define(plain)
    driver.start("web-dvm")
    domain = driver.connection.lookupByName("web-dvm")
    last = driver.connection.getCPUMap(0)[0] - 1
    moved = replace(plain, placement=CpuPlacement(((last,),), (0,)))
    driver.define(moved)
    driver.pin(moved)
    driver.mark(moved)
    assert [number for number, on in enumerate(domain.vcpus()[1][0]) if on] == [last]
    assert [number for number, on in enumerate(domain.emulatorPinInfo()) if on] == [0]
    (seen,) = driver.observe()
    assert (seen.spec, seen.active_spec, seen.drift, seen.live_drift) == (moved, moved, (), ())
    driver.define(plain)
    driver.pin(plain)
    driver.mark(plain)
    assert all(domain.vcpus()[1][0]) and all(domain.emulatorPinInfo())
    (seen,) = driver.observe()
    assert (seen.active_spec, seen.live_drift) == (plain, ())
