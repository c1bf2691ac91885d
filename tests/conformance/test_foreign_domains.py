"""Domains that are not devicevm's: what they hold is seen, and they are moved off dedicated processors and put back."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from conftest import Domains, Vmm
from devicevm.vmm.driver import VmmError
from devicevm.vmm.libvirt.driver import LibvirtDriver
from guests import OWNER, foreign

pytestmark = pytest.mark.libvirt


def test_whom_an_owner_has_moved_is_left_alone_while_that_owner_is_here(
    driver: LibvirtDriver, domains: Domains
) -> None:
    domain = foreign(driver)
    uuid = domain.UUIDString()
    try:
        driver.define(domains.device_vm)
        driver.repin("theirs", uuid, (0,), OWNER)
        untouched = domain.XMLDesc(driver.libvirt.VIR_DOMAIN_XML_INACTIVE)
        for cpus, owner, why in [
            ((), "somebody", "moved by owner"),
            ((-1,), OWNER, "to CPU -1"),
            ((9999,), OWNER, "to CPU 9999"),
        ]:
            with pytest.raises(VmmError, match=why):
                driver.repin("theirs", uuid, cpus, owner)
        assert domain.XMLDesc(driver.libvirt.VIR_DOMAIN_XML_INACTIVE) == untouched
        driver.undefine(domains.device_vm.name)
        driver.repin("theirs", uuid, (), "somebody")
        assert [one.moved_by for one in driver.host().holdings if one.domain == "theirs"] == [""]
    finally:
        domain.undefine()


def test_a_domain_of_others_that_floats_is_moved_and_put_back(vmm: Vmm, driver: LibvirtDriver) -> None:
    pinned = "<cputune><vcpupin vcpu='1' cpuset='0'/></cputune>"
    domain = foreign(driver, f"<vcpu>2</vcpu><iothreads>1</iothreads>{pinned}")
    before = domain.XMLDesc(driver.libvirt.VIR_DOMAIN_XML_INACTIVE)
    domain.create()
    last = driver.connection.getCPUMap(0)[0] - 1
    try:
        for owner in (OWNER, OWNER):
            driver.repin("theirs", domain.UUIDString(), (last,), owner)
            assert [[n for n, on in enumerate(pin) if on] for pin in domain.vcpus()[1]] == [[last], [0]]
            assert [n for n, on in enumerate(domain.emulatorPinInfo()) if on] == [last]
            if vmm.guests:
                assert [[n for n, on in enumerate(io[1]) if on] for io in domain.ioThreadInfo(0)] == [[last]]
            (held,) = [one for one in driver.host().holdings if one.domain == "theirs"]
            assert (held.floats, held.cpus, held.moved_by, held.moved_to) == (True, (0,), OWNER, (last,))
        with pytest.raises(VmmError, match="another one"):
            driver.repin("theirs", "00000000-0000-0000-0000-000000000000", (), OWNER)
        driver.repin("theirs", domain.UUIDString(), (), OWNER)
        assert [all(pin) for pin in domain.vcpus()[1]] == [True, last == 0]
        (held,) = [one for one in driver.host().holdings if one.domain == "theirs"]
        assert (held.floats, held.cpus, held.moved_by, held.moved_to) == (True, (0,), "", ())
        # Nothing but pins on all CPUs is left of it; the numbers of I/O threads are libvirt's own addition.
        after = ElementTree.fromstring(domain.XMLDesc(driver.libvirt.VIR_DOMAIN_XML_INACTIVE))
        tune = after.find("cputune")
        assert tune is not None
        for pin in [one for one in tune if one.get("vcpu") != "1"]:
            tune.remove(pin)
        was = ElementTree.fromstring(before)
        assert [one.tag for one in after if one.tag not in ("metadata", "iothreadids")] == [one.tag for one in was]
        assert ElementTree.tostring(tune).split() == ElementTree.tostring(was.find("cputune")).split()
    finally:
        domain.destroy()
        domain.undefine()


def test_what_was_pinned_while_it_runs_is_held_and_left_alone(driver: LibvirtDriver) -> None:
    """`virsh vcpupin --live`: libvirt keeps such pins with the running domain alone."""
    domain = foreign(driver, "<vcpu>2</vcpu>")
    domain.create()
    count = driver.connection.getCPUMap(0)[0]
    last = count - 1

    def holding() -> tuple[bool, tuple[int, ...], tuple[int, ...]]:
        (held,) = [one for one in driver.host().holdings if one.domain == "theirs"]
        return held.floats, held.cpus, held.moved_to

    try:
        domain.pinVcpu(1, tuple(number == last for number in range(count)))
        assert holding() == (True, (last,), ())
        driver.repin("theirs", domain.UUIDString(), (0,), OWNER)
        assert [[n for n, on in enumerate(pin) if on] for pin in domain.vcpus()[1]] == [[0], [last]]
        # What its next start would let float is moved as well.
        tune = driver.xml_of(domain, live=False).findall("cputune/vcpupin")
        assert [(pin.get("vcpu"), pin.get("cpuset")) for pin in tune] == [("0", "0"), ("1", "0")]
        assert holding() == (True, (last,), (0,))
        driver.repin("theirs", domain.UUIDString(), (), OWNER)
        assert [[n for n, on in enumerate(pin) if on] for pin in domain.vcpus()[1]] == [[*range(count)], [last]]
        assert holding() == (True, (last,), ())
    finally:
        domain.destroy()
        domain.undefine()


def test_a_domain_of_devicevms_own_is_not_repinned(driver: LibvirtDriver, domains: Domains) -> None:
    driver.define(domains.device_vm)
    with pytest.raises(VmmError, match="devicevm's own"):
        driver.repin("web-dvm", domains.device_vm.uuid, (0,), OWNER)
    driver.repin("nobody", domains.device_vm.uuid, (0,), OWNER)
