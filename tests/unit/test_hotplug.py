"""Which devices a running device VM is given: on which SCSI target a new disk goes."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from devicevm.domain import Channel, Emulator
from devicevm.errors import DevicevmError
from devicevm.manifest.topology import Store
from devicevm.vmm.libvirt.device_vm_xml import DISKS, backing_disk
from devicevm.vmm.libvirt.hotplug import missing, present

DISK = (
    "<disk type='file' device='disk'><target dev='{}' bus='scsi'/><serial>{}</serial>"
    "<address type='drive' controller='0' bus='0' target='{}' unit='{}'/></disk>"
)


def emulator(serial: str) -> Emulator:
    channel = Channel("stream", "/run/x.sock", "web.data")
    return Emulator("web", "data", "disk", channel, ("nbdkit",), serial=serial, store=Store("file", 1, path="/x"))


def place(live: str, serial: str = "new") -> tuple[str, str, str]:
    """The name, SCSI target and unit that a new disk gets."""
    disk = missing(ElementTree.fromstring(f"<domain><devices>{live}</devices></domain>"), emulator(serial))[0]
    name, address = disk.find("target"), disk.find("address")
    assert name is not None
    assert address is not None
    assert (address.get("controller"), address.get("bus")) == ("0", "0")
    return name.get("dev", ""), address.get("target", ""), address.get("unit", "")


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        ((), ("sda", "0", "0")),
        ((("sda", 0, 0), ("sdb", 1, 0)), ("sdc", "2", "0")),
        # One that was detached has left its place.
        ((("sda", 0, 0), ("sdc", 2, 0)), ("sdb", "1", "0")),
        # Seven on one target, as libvirt places disks that say nothing.
        (tuple((f"sd{letter}", 0, unit) for unit, letter in enumerate("abcdefg")), ("sdh", "7", "0")),
        ((("sda", 1, 0),), ("sdc", "2", "0")),
        (tuple((f"sd{letter}", n, 0) for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz")), ("sdaa", "26", "0")),
    ],
)
def test_a_new_disk_takes_a_free_target(live: tuple[tuple[str, int, int], ...], expected: tuple[str, str, str]) -> None:
    disks = "".join(DISK.format(dev, f"s{n}", target, unit) for n, (dev, target, unit) in enumerate(live))
    assert place(disks) == expected


def test_a_disk_that_is_there_is_not_attached_again() -> None:
    live = ElementTree.fromstring(f"<domain><devices>{DISK.format('sda', 'mine', 0, 0)}</devices></domain>")
    assert [device.tag for device in missing(live, emulator("mine"))] == ["channel"]


def test_a_copy_has_two_disks_each_with_a_target_of_its_own() -> None:
    """Of which the one that is there already, when an apply before this one died in between, stays."""
    copy = replace(emulator("new"), base=Store("file", 0, path="/golden", read_only=True))
    live = f"<domain><devices>{DISK.format('sda', 'new', 0, 0)}{DISK.format('sdb', 'other', 1, 0)}</devices></domain>"
    for text, serials, targets in ((live, ["new.base"], ["2"]), ("<domain/>", ["new", "new.base"], ["0", "1"])):
        disks = [device for device in missing(ElementTree.fromstring(text), copy) if device.tag == "disk"]
        assert [disk.findtext("serial") for disk in disks] == serials
        assert [disk.find("address").get("target") for disk in disks] == targets  # type: ignore[union-attr]
        assert [disk.find("readonly") is not None for disk in disks] == [serial == "new.base" for serial in serials]
    held = (
        f"<domain><devices>{DISK.format('sda', 'new', 0, 0)}{DISK.format('sdb', 'new.base', 1, 0)}</devices></domain>"
    )
    assert [device.findtext("serial") for device in present(ElementTree.fromstring(held), copy)] == ["new", "new.base"]


def test_the_bus_has_an_end() -> None:
    store = Store("file", 1, path="/x")
    assert backing_disk("web.data", "x", store, DISKS - 1).find(f"address[@target='{DISKS - 1}']") is not None
    with pytest.raises(DevicevmError, match=f"web.data is disk number {DISKS + 1}, a device VM has room for {DISKS}"):
        backing_disk("web.data", "x", store, DISKS)
