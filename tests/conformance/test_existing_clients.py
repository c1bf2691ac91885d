"""What every driver must do with a domain that is somebody else's: give it devices, and take out these alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from conftest import Domains, Vmm
from devicevm.domain import Attachment, Channel, DomainSpec, Role
from devicevm.errors import DevicevmError
from devicevm.frontend.registry import FRONTENDS
from devicevm.inventory.supports import LIVE_DEVICES
from devicevm.manifest.topology import Boot, Consumer
from devicevm.vmm.driver import VmmError
from devicevm.vmm.libvirt import attaching
from devicevm.vmm.libvirt.attached import Change
from devicevm.vmm.libvirt.driver import LibvirtDriver
from guests import OWNER

pytestmark = pytest.mark.libvirt

THEIRS = """\
<domain type='{kind}'>
  <name>ledger-db</name>
  <metadata><they:own xmlns:they='urn:they'><they:word/></they:own></metadata>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
    {more}
    <serial type='null'/>
  </devices>
</domain>
"""
ROOT = "<controller type='pci' index='0' model='pcie-root'/>"
PORTS = "".join(f"<controller type='pci' index='{n}' model='pcie-root-port'/>" for n in range(1, 9))


@contextmanager
def existing(vmm: Vmm, driver: LibvirtDriver, machine: str = "q35", more: str = "") -> Iterator[str]:
    """A domain that devicevm did not make; its UUID."""
    disk = vmm.work / "theirs.img"
    disk.write_bytes(bytes(65536))
    disk.chmod(0o666)
    kind, machine = ("qemu", machine) if vmm.guests else ("test", "pc")
    xml = THEIRS.format(kind=kind, machine=machine, disk=disk, more=more if vmm.guests else "")
    first = driver.connection.defineXML(xml).XMLDesc(driver.libvirt.VIR_DOMAIN_XML_INACTIVE)
    # Read once more, as libvirt does at every start of its own and change of the domain: that sorts controllers.
    domain = driver.connection.defineXML(first)
    try:
        yield domain.UUIDString()
    finally:
        if domain.isActive():
            domain.destroy()
        domain.undefine()


def given(uuid: str, *frontends: str, name: str = "ledger", owner: str = OWNER, address: str = "/run/x") -> DomainSpec:
    """What a client with these front ends is to have in that domain."""
    return DomainSpec(
        name,
        uuid,
        Role.CLIENT,
        owner,
        "h1",
        0,
        0,
        "",
        "",
        "",
        Boot(),
        attachments=tuple(
            Attachment(one, "disk", one, Channel("stream", f"{address}-{one}.sock", one), "dvm", index)
            for index, one in enumerate(frontends)
        ),
        consumer=Consumer.EXISTING,
        domain="ledger-db",
    )


def definition(driver: LibvirtDriver) -> str:
    flags = driver.libvirt.VIR_DOMAIN_XML_INACTIVE
    return str(driver.connection.lookupByName("ledger-db").XMLDesc(flags))


FITTING = sorted(name for name, one in FRONTENDS.items() if one.attachable and not one.arguments and not one.machine)


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_every_front_end_comes_and_goes_and_leaves_no_trace(vmm: Vmm, driver: LibvirtDriver, machine: str) -> None:
    with existing(vmm, driver, machine, ROOT + PORTS if machine == "q35" else "") as uuid:
        before = definition(driver)
        # A PC has two USB ports, and libvirt's test driver gives redirected devices none.
        names = FITTING if machine == "q35" and vmm.guests else [name for name in FITTING if name != "usb-redir"]
        spec = given(uuid, *names)
        for wanted in (spec, spec):
            driver.attach_client(wanted)
            (seen,) = driver.observe()
            assert (seen.name, seen.owner, seen.uuid, seen.consumer) == ("ledger", OWNER, uuid, Consumer.EXISTING)
            assert (seen.spec, seen.active, seen.drift, seen.broken) == (spec, False, (), "")
        for name in names:
            assert f"/run/x-{name}.sock" in definition(driver)
        for _ in range(2):
            driver.detach_client("ledger", OWNER, uuid)
            assert definition(driver) == before
        assert driver.observe() == ()


def test_what_is_asked_for_otherwise_is_changed_and_the_rest_stays(vmm: Vmm, driver: LibvirtDriver) -> None:
    with existing(vmm, driver, more=ROOT) as uuid:
        before = definition(driver)
        driver.attach_client(given(uuid, "virtio-blk", "virtio-rng"))
        other = given(uuid, "virtio-blk", "pci-serial", address="/run/y")
        driver.attach_client(other)
        assert driver.observe()[0].spec == other
        now = definition(driver)
        assert "/run/x" not in now
        assert now[now.index("\n  <devices>") :].count("/run/y") == 2
        driver.detach_client("ledger", OWNER, uuid)
        assert definition(driver) == before


def test_owners_do_not_disturb_each_other(vmm: Vmm, driver: LibvirtDriver) -> None:
    with existing(vmm, driver, more=ROOT) as uuid:
        before = definition(driver)
        one = given(uuid, "virtio-blk")
        other = given(uuid, "virtio-blk", "virtio-rng", owner="somebody", address="/run/z")
        driver.attach_client(one)
        driver.attach_client(other)
        assert {(seen.owner, seen.spec, seen.drift) for seen in driver.observe()} == {
            (OWNER, one, ()),
            ("somebody", other, ()),
        }
        driver.detach_client("ledger", OWNER, uuid)
        assert [(seen.owner, seen.spec, seen.drift) for seen in driver.observe()] == [("somebody", other, ())]
        driver.detach_client("ledger", "somebody", uuid)
        assert definition(driver) == before


def test_what_somebody_takes_out_of_the_definition_is_seen(vmm: Vmm, driver: LibvirtDriver) -> None:
    with existing(vmm, driver, more=ROOT) as uuid:
        spec = given(uuid, "virtio-blk", "virtio-rng")
        driver.attach_client(spec)
        text = definition(driver)
        start, end = text.index("<rng"), text.index("</rng>") + len("</rng>")
        driver.connection.defineXML((text[:start] + text[end:]).replace("socket='/run/x", "socket='/run/w"))
        assert driver.observe()[0].drift == (
            "virtio-blk (virtio-blk) is not as declared in its definition",
            "virtio-rng (virtio-rng) is missing in its definition",
        )
        driver.attach_client(spec)
        assert driver.observe()[0].drift == ()


def test_marks_that_cannot_be_read_or_are_a_clones(vmm: Vmm, driver: LibvirtDriver) -> None:
    with existing(vmm, driver, more=ROOT) as uuid:
        before = definition(driver)
        spec = given(uuid, "virtio-blk")
        driver.attach_client(spec)
        text = definition(driver)
        driver.connection.defineXML(text.replace("virtio-blk.sock&quot;", "x&quot;").replace('digest="', 'digest="0'))
        (seen,) = driver.observe()
        assert "changed by hand" in seen.broken
        driver.attach_client(spec)
        assert [(one.spec, one.broken) for one in driver.observe()] == [(spec, "")]
        other = "99999999-9999-9999-9999-999999999999"
        clone = text.replace("<name>ledger-db<", "<name>clone<").replace(f"<uuid>{uuid}<", f"<uuid>{other}<")
        copy = driver.connection.defineXML(clone)
        try:
            assert [one.uuid for one in driver.observe()] == [uuid]
        finally:
            copy.undefine()
        driver.detach_client("ledger", OWNER, uuid)
        assert definition(driver) == before


def test_a_domain_that_is_gone_or_called_otherwise_is_told(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    driver.detach_client("ledger", OWNER, "99999999-9999-9999-9999-999999999999")
    with pytest.raises(VmmError, match="domain ledger-db has changed: it is gone"):
        driver.attach_client(given("99999999-9999-9999-9999-999999999999", "virtio-blk"))
    with existing(vmm, driver) as uuid:
        spec = replace(given(uuid, "virtio-blk"), domain="ledger")
        with pytest.raises(VmmError, match="it is called ledger-db now"):
            driver.attach_client(spec)
    driver.define(domains.client)
    with pytest.raises(VmmError, match="is devicevm's own"):
        driver.attach_client(replace(given(domains.client.uuid, "virtio-blk"), domain="web"))


def test_a_running_domain_gets_what_can_be_plugged_in(vmm: Vmm, driver: LibvirtDriver, domains: Domains) -> None:
    """The device VM's sockets are there: QEMU connects to them when it is given the devices."""
    driver.define(domains.device_vm)
    driver.start("web-dvm")
    data, gps = (emulator.channel.address for emulator in domains.device_vm.emulators)
    with existing(vmm, driver, more=ROOT + PORTS) as uuid:
        domain = driver.connection.lookupByName("ledger-db")
        domain.create()
        before = domain.XMLDesc(0)
        spec = given(uuid, "virtio-rng", "pci-serial", "isa-serial")
        first, second, third = spec.attachments
        channels = (Channel("stream", data, "a"), Channel("stream", gps, "b"), Channel("stream", gps, "c"))
        spec = replace(
            spec,
            attachments=tuple(
                replace(one, channel=channel) for one, channel in zip((first, second, third), channels, strict=True)
            ),
        )
        driver.attach_client(spec)
        seen = next(one for one in driver.observe() if one.name == "ledger")
        assert (seen.active, seen.spec, seen.drift) == (True, spec, ())
        assert seen.live_drift == ("isa-serial (isa-serial) is not there",)
        if LIVE_DEVICES in driver.supports:
            assert seen.active_spec == spec
            assert domain.XMLDesc(0).count("ua-devicevm-") == 2
        else:
            assert domain.XMLDesc(0) == before


def test_plugging_in_that_dies_in_the_middle_is_finished(
    vmm: Vmm, driver: LibvirtDriver, domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    if LIVE_DEVICES not in driver.supports:
        pytest.skip("this driver gives nothing to a running domain")
    driver.define(domains.device_vm)
    driver.start("web-dvm")
    address = domains.device_vm.emulators[0].channel.address
    with existing(vmm, driver, "pc") as uuid:
        driver.connection.lookupByName("ledger-db").create()
        spec = given(uuid, "virtio-rng", "pci-serial")
        channel = Channel("stream", address, "a")
        spec = replace(spec, attachments=tuple(replace(one, channel=channel) for one in spec.attachments))

        def half(driver: LibvirtDriver, domain: object, wanted: Change, start: str) -> None:
            whole(driver, domain, Change(add=wanted.add[:1]), start)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        whole = attaching._change_live
        monkeypatch.setattr(attaching, "_change_live", half)
        with pytest.raises(KeyboardInterrupt):
            driver.attach_client(spec)
        monkeypatch.undo()
        seen = next(one for one in driver.observe() if one.name == "ledger")
        assert seen.spec == spec
        assert seen.active_spec is not None
        assert [one.name for one in seen.active_spec.attachments] == ["virtio-rng"]
        driver.attach_client(spec)
        assert next(one for one in driver.observe() if one.name == "ledger").active_spec == spec


def test_a_running_domain_without_room_is_left_as_it_is(vmm: Vmm, driver: LibvirtDriver) -> None:
    if LIVE_DEVICES not in driver.supports:
        pytest.skip("this driver gives nothing to a running domain")
    with existing(vmm, driver, more=ROOT) as uuid:
        domain = driver.connection.lookupByName("ledger-db")
        domain.create()
        before = definition(driver), domain.XMLDesc(0)
        free = domain.XMLDesc(0).count("model='pcie-root-port'")
        spec = given(uuid, "virtio-blk")
        many = tuple(replace(spec.attachments[0], name=f"d{n}", index=n) for n in range(free + 1))
        with pytest.raises(DevicevmError, match="has no free PCI Express port for d"):
            driver.attach_client(replace(spec, attachments=many))
        assert (definition(driver), domain.XMLDesc(0)) == before
