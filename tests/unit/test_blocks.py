"""Blocks of a host that can be given to a device VM, and why not the others: made-up hosts and recorded devices."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from devicevm.inventory.blocks import Block, BlockRequest, match_blocks
from devicevm.inventory.host import NodeDevice
from devicevm.inventory.nodedevices import parse_node_device

RECORDED = Path(__file__).resolve().parents[1] / "data" / "node-devices"
ALTERA = BlockRequest(vendor="0x1172")
UUID = "3e8c1d5a-4f4e-4b1c-9d5e-6a0c1f2b7d10"
MADE = "d069d019-36ea-4111-8f0a-8c9a70e21366"


def pci(
    address: str, group: int = -1, *, vendor: str = "0x1172", product: str = "0x0004", **more: object
) -> NodeDevice:
    values = {"class_code": "0x120000", "iommu_group": group, **more}
    name = "pci_" + address.replace(":", "_").replace(".", "_")
    return NodeDevice(name=name, kind="pci", address=address, vendor=vendor, product=product, **values)  # type: ignore[arg-type]


def reasons(devices: list[NodeDevice], request: BlockRequest = ALTERA, **held: str) -> dict[str, str]:
    answer = match_blocks(devices, request, {key.replace("_", ":", 2).replace("_", "."): v for key, v in held.items()})
    return {refusal.address: refusal.reason for refusal in answer.refusals}


def test_what_does_not_fit_is_told_with_its_numbers() -> None:
    devices = [pci("0000:04:00.0"), pci("0000:03:00.0", 9), pci("0000:00:1f.6", 3, vendor="0x8086")]
    answer = match_blocks(devices, ALTERA, {"0000:03:00.0": "lab1"})
    assert answer.blocks == ()
    assert answer.says == (
        "2 PCI functions of vendor 0x1172 are there: 0000:03:00.0 is held by lab1, "
        "0000:04:00.0 has no IOMMU group: the host's IOMMU is off or has none for it"
    )


def test_matches_come_by_node_and_address_whatever_the_order() -> None:
    devices = [pci("0000:84:00.0", 4, node=1), pci("0000:03:00.0", 2, node=0), pci("0000:0a:00.0", 3, node=0)]
    devices += [pci("0000:01:00.0", 8), pci("0000:00:02.0", 1, vendor="0x10de")]
    wanted = ["0000:03:00.0", "0000:0a:00.0", "0000:84:00.0", "0000:01:00.0"]
    first = match_blocks(devices, ALTERA, {})
    assert [block.addresses for block in first.blocks] == [(address,) for address in wanted]
    assert first.blocks[2] == Block("pci", ("0000:84:00.0",), ("0000:84:00.0",), node=1, iommu_group=4)
    for order in permutations(devices):
        assert match_blocks(order, ALTERA, {}) == first


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, 1),
        ({"vendor": "0x1172"}, 1),
        ({"vendor": "0X1172", "device": "0x4"}, 1),
        ({"vendor": "0x10ee"}, 0),
        ({"device": "0x0005"}, 0),
        ({"class_code": "0x12"}, 1),
        ({"class_code": "0x1200"}, 1),
        ({"class_code": "0x120001"}, 0),
        ({"node": 1}, 1),
        ({"node": 0}, 0),
        ({"iommu_group": 7}, 1),
        ({"iommu_group": 8}, 0),
        ({"kind": "vf"}, 0),
        ({"kind": "mdev"}, 0),
    ],
)
def test_each_condition_counts(change: dict[str, object], found: int) -> None:
    request = BlockRequest(**change)  # type: ignore[arg-type]
    answer = match_blocks([pci("0000:03:00.0", 7, node=1)], request, {})
    assert len(answer.blocks) == found
    assert ("0000:03:00.0" in answer.says) == (found == 1 or "node" in change or "iommu_group" in change)


def test_where_a_block_is_not_is_told() -> None:
    devices = [pci("0000:03:00.0", 7, node=1), pci("0000:04:00.0", 8)]
    assert reasons(devices, replace(ALTERA, node=0)) == {
        "0000:03:00.0": "is on NUMA node 1, node 0 is asked",
        "0000:04:00.0": "is on no NUMA node that is told, node 0 is asked",
    }
    assert reasons(devices, replace(ALTERA, iommu_group=8)) == {"0000:03:00.0": "is in IOMMU group 7, group 8 is asked"}


def test_a_group_goes_together() -> None:
    card = [pci("0000:03:00.0", 7), pci("0000:03:00.1", 7, vendor="0x8086", driver="igb")]
    bridge = pci("0000:00:01.0", 7, vendor="0x8086", class_code="0x060400", driver="pcieport")
    answer = match_blocks([*card, bridge], ALTERA, {})
    assert answer.blocks == (Block("pci", ("0000:03:00.0", "0000:03:00.1"), ("0000:03:00.0",), iommu_group=7),)
    assert answer.says == "1 PCI function of vendor 0x1172 is there: 0000:03:00.0 is free, and takes 0000:03:00.1 along"
    assert reasons(card, **{"0000_03_00_1": "lab2"}) == {
        "0000:03:00.0": "cannot be had without the rest of IOMMU group 7: 0000:03:00.1 is held by lab2"
    }


@pytest.mark.parametrize(("driver", "refused"), [("ahci", True), ("", False), ("vfio-pci", False)])
def test_a_group_with_what_the_host_uses_is_refused(driver: str, refused: bool) -> None:
    answer = match_blocks(
        [pci("0000:03:00.0", 7), pci("0000:00:17.0", 7, vendor="0x8086", class_code="0x010601", driver=driver)],
        ALTERA,
        {},
    )
    assert bool(answer.blocks) != refused
    assert ("0000:00:17.0 is in use by the host (driver ahci)" in answer.says) == refused


def test_two_matches_of_a_group_are_one_block() -> None:
    answer = match_blocks([pci("0000:03:00.1", 7), pci("0000:03:00.0", 7)], ALTERA, {})
    both = ("0000:03:00.0", "0000:03:00.1")
    assert [(block.addresses, block.matched) for block in answer.blocks] == [(both, both)]


def test_functions_virtual_and_physical_do_not_go_to_two() -> None:
    physical = pci("0000:03:00.0", 7, node=1, virtual_functions=("0000:03:00.4", "0000:03:00.5"))
    virtual = [pci(f"0000:03:00.{n}", n + 10, physical_function="0000:03:00.0") for n in (4, 5)]
    devices = [physical, *virtual]
    functions = replace(ALTERA, kind="vf", node=1)
    answer = match_blocks(devices, functions, {"0000:03:00.4": "lab1"})
    assert [(block.addresses, block.node) for block in answer.blocks] == [(("0000:03:00.5",), 1)]
    assert answer.says == (
        "2 virtual functions of vendor 0x1172 are there: 0000:03:00.4 is held by lab1, 0000:03:00.5 is free"
    )
    assert reasons(devices, **{"0000_03_00_4": "lab1"}) == {
        "0000:03:00.0": "cannot be had: its virtual function 0000:03:00.4 is held by lab1"
    }
    assert set(reasons(devices, functions, **{"0000_03_00_0": "lab2"}).values()) == {
        "cannot be had: its physical function 0000:03:00.0 is held by lab2"
    }


def test_mediated_devices() -> None:
    parent = pci("0000:05:00.0", 3, node=1, mdev_types={"fpga-slot": 2, "fpga-big": 0})
    made = NodeDevice(name="mdev_1", kind="mdev", parent=parent.name, product="fpga-slot", address=UUID, iommu_group=40)
    slot = BlockRequest(kind="mdev", mdev_type="fpga-slot", vendor="0x1172", node=1)
    answer = match_blocks([parent, made], slot, {})
    assert answer.blocks == (Block("mdev", (UUID,), (UUID,), node=1, iommu_group=40),)
    assert match_blocks([parent, made], slot, {UUID: "lab1"}).refusals[0].reason == "is held by lab1"
    held = match_blocks([parent, made], slot, {"0000:05:00.0": "lab1"})
    assert held.refusals[0].reason == "cannot be had: its parent 0000:05:00.0 is held by lab1"
    whole = match_blocks([parent, made], ALTERA, {UUID: "lab3"})
    assert whole.refusals[0].reason == f"cannot be had: its mediated device {UUID} is held by lab3"
    assert match_blocks([parent], slot, {}).says == (
        "no mediated device of vendor 0x1172, type fpga-slot is there: none at all are made; "
        "0000:05:00.0 has room for 2 of type fpga-slot"
    )


def test_nothing_there_tells_what_is() -> None:
    devices = [pci("0000:03:00.0", 7), pci("0000:00:02.0", 1, vendor="0x10de")]
    assert match_blocks(devices, BlockRequest(vendor="0x10ee"), {}).says == (
        "no PCI function of vendor 0x10ee is there: the host has 2 PCI functions, of vendors 0x10de, 0x1172"
    )
    assert match_blocks(devices, replace(ALTERA, device="0x9"), {}).says == (
        "no PCI function of vendor 0x1172, device 0x9 is there, but 1 PCI function of vendor 0x1172: "
        "0000:03:00.0 is 0x0004, class 0x120000"
    )


def test_a_kind_that_is_none() -> None:
    with pytest.raises(ValueError, match="usb"):
        match_blocks([], BlockRequest(kind="usb"), {})


def recorded() -> list[NodeDevice]:
    """The recorded devices; of the two documents of one function, that of the virtual function."""
    files = [file for file in sorted(RECORDED.glob("*.xml")) if file.stem != "pci_0000_02_10_7_mdev_types"]
    return [parse_node_device(file.read_text()) for file in files]


def told(devices: list[NodeDevice], request: BlockRequest) -> tuple[list[str], dict[str, str]]:
    answer = match_blocks(devices, request, {})
    matched = [address for block in answer.blocks for address in block.matched]
    return matched, {refusal.address: refusal.reason for refusal in answer.refusals}


def test_recorded_devices() -> None:
    devices = recorded()
    matched, refused = told(devices, BlockRequest())
    assert matched == ["0000:02:00.0", "0000:42:00.0"]
    assert refused == {"0000:00:19.0": "has no IOMMU group: the host's IOMMU is off or has none for it"}
    assert told(devices, BlockRequest(kind="vf")) == (["0000:02:10.7"], {})
    assert told(devices, BlockRequest(kind="vf", vendor="0x8086", device="0x10ca", node=0, iommu_group=31))[0]
    assert told(devices, BlockRequest(kind="mdev", mdev_type="i915-GVTg_V5_8")) == ([MADE], {})
    assert told(devices, BlockRequest(vendor="0x1172")) == ([], {})
    assert match_blocks(devices, BlockRequest(vendor="0x1172"), {}).says == (
        "no PCI function of vendor 0x1172 is there: the host has 3 PCI functions, of vendors 0x15b3, 0x8086"
    )


def test_a_recorded_function_tells_what_can_be_made_on_it() -> None:
    parent = parse_node_device((RECORDED / "pci_0000_02_10_7_mdev_types.xml").read_text())
    assert match_blocks([parent], BlockRequest(kind="mdev", mdev_type="foo2"), {}).says == (
        "no mediated device of type foo2 is there: none at all are made; 0000:02:10.7 has room for 2 of type foo2"
    )
