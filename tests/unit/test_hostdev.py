"""Devices of the host in domains: rendered, defined in libvirt, seen in the inventory as held, and missed when gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.domain import DomainSpec, HostDevice
from devicevm.errors import DevicevmError
from devicevm.inventory.blocks import Block, BlockAnswer, BlockRequest, match_blocks
from devicevm.inventory.free import free
from devicevm.record import from_data
from devicevm.vmm.driver import Driver
from devicevm.vmm.libvirt.domain_xml import domain_xml
from devicevm.vmm.libvirt.drift import drift
from devicevm.vmm.libvirt.hostdev_xml import hostdev_address, hostdev_element
from devicevm.vmm.registry import open_driver

TESTS = Path(__file__).resolve().parents[1]
MDEV = "d069d019-36ea-4111-8f0a-8c9a70e21366"
CARD = BlockRequest(vendor="0x1172", device="0x4")


def spec() -> DomainSpec:
    text = (TESTS / "goldens" / "domains" / "device-vm-blocks.json").read_text()
    return from_data(DomainSpec, json.loads(text))


@pytest.mark.parametrize(
    "device", [HostDevice("pci", "0000:03:00.0"), HostDevice("pci", "00ff:af:1f.7"), HostDevice("mdev", MDEV)]
)
def test_an_address_is_read_back_as_it_was(device: HostDevice) -> None:
    assert hostdev_address(hostdev_element(device)) == device.address


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (HostDevice("pci", "03:00.0"), "'03:00.0' is no PCI address"),
        (HostDevice("pci", "0000:03:20.0"), "is no PCI address"),
        (HostDevice("pci", "0000:03:00.8"), "is no PCI address"),
        (HostDevice("pci", "0000:03:00.0\n"), "is no PCI address"),
        (HostDevice("mdev", "0000:03:00.0"), "is no UUID"),
        (HostDevice("mdev", MDEV.upper()), "is no UUID"),
        (HostDevice("usb", "usb:1:2"), "kind 'usb' is unknown"),
    ],
)
def test_what_is_no_address_is_refused(device: HostDevice, says: str) -> None:
    with pytest.raises(DevicevmError, match=says):
        hostdev_element(device)


def test_a_device_is_given_once() -> None:
    twice = replace(spec(), host_devices=(HostDevice("mdev", MDEV),) * 2)
    with pytest.raises(DevicevmError, match=f"blocks: host device {MDEV} is there twice"):
        domain_xml(twice, "/state")


def test_a_client_is_given_none() -> None:
    client = from_data(DomainSpec, json.loads((TESTS / "goldens" / "domains" / "client.json").read_text()))
    with pytest.raises(DevicevmError, match="is a client: devices of the host are for device VMs"):
        domain_xml(replace(client, host_devices=(HostDevice("mdev", MDEV),)), "/state")


def test_a_device_that_is_gone_is_drift() -> None:
    wanted, actual = domain_xml(spec(), "/state"), domain_xml(spec(), "/state")
    devices = actual.find("devices")
    assert devices is not None
    devices.remove(devices.findall("hostdev")[1])
    assert drift(wanted, actual) == ("host device 0001:af:1f.7 is missing",)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    pytest.importorskip("libvirt", reason="python3-libvirt is not there for this Python")
    with open_driver(f"test://{TESTS / 'data' / 'blocks-host.xml'}", images=tmp_path) as opened:
        yield opened


def blocks(driver: Driver, request: BlockRequest) -> BlockAnswer:
    """What the planner has to do: the host's devices, and who holds them."""
    host = driver.host()
    return match_blocks(host.node_devices, request, free(host).node_devices)


@pytest.mark.libvirt
def test_a_block_goes_from_the_inventory_into_a_domain_and_is_held(driver: Driver) -> None:
    answer = blocks(driver, CARD)
    assert answer.says == (
        "2 PCI functions of vendor 0x1172, device 0x4 are there: 0000:03:00.0 is held by lab1, "
        "0000:04:00.0 is free, and takes 0000:04:00.1 along"
    )
    (block,) = answer.blocks
    assert block == Block("pci", ("0000:04:00.0", "0000:04:00.1"), ("0000:04:00.0",), node=0, iommu_group=10)
    given = tuple(HostDevice(block.kind, address) for address in block.addresses)
    small = replace(spec(), accelerator="test", host_devices=given)
    driver.define(small)
    driver.start(small.name)
    driver.mark(small)
    (seen,) = driver.observe()
    assert (seen.spec, seen.active_spec, seen.drift, seen.live_drift) == (small, small, (), ())
    assert blocks(driver, CARD).says == (
        "2 PCI functions of vendor 0x1172, device 0x4 are there: 0000:03:00.0 is held by lab1, "
        "0000:04:00.0 is held by blocks"
    )
    driver.stop(small.name)
    assert not blocks(driver, CARD).blocks, "a domain that is defined may start at any time"
    driver.undefine(small.name)
    assert blocks(driver, CARD).blocks == (block,)


@pytest.mark.libvirt
def test_a_mediated_device_whose_parent_is_held_cannot_be_had(driver: Driver) -> None:
    answer = blocks(driver, BlockRequest(kind="mdev", mdev_type="fpga-slot"))
    assert not answer.blocks
    assert answer.refusals[0].reason == "cannot be had: its parent 0000:03:00.0 is held by lab1"
    small = replace(spec(), accelerator="test", host_devices=(HostDevice("mdev", MDEV),))
    driver.define(small)
    assert driver.observe()[0].drift == ()
    assert blocks(driver, BlockRequest(kind="mdev")).refusals[0].reason == "is held by blocks"
    driver.undefine(small.name)
