"""Blocks are programmed before their device VM starts and cleared when it has ended: from a manifest to a made-up
sysfs, with libvirt's test driver in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from devicevm.apply.outcome import Outcome
from devicevm.apply.progress import Progress
from devicevm.apply.workflow import Options, carry_out, plan_on
from devicevm.domain import Boot, DomainSpec, HostDevice, Role
from devicevm.errors import DevicevmError
from devicevm.manifest.read import topology_from_documents
from devicevm.manifest.topology import Topology
from devicevm.planner.planner import Intent
from devicevm.vmm.libvirt.test import TestDriver
from devicevm.vmm.places import places_of
from devicevm.vmm.programming import Programmer

REPO = Path(__file__).resolve().parents[2]
CARD = "0000:04:00.0"
ME = Intent("default", prune=True)


class Card:
    """A made-up sysfs in which one card has an FPGA manager; `loaded` is what it was programmed with."""

    def __init__(self, root: Path) -> None:
        self.loaded: list[str] = []
        self.manager = root / "sys" / "class" / "fpga_manager" / "fpga0"
        self.manager.mkdir(parents=True)
        device = root / "sys" / "devices" / CARD
        device.mkdir(parents=True)
        (self.manager / "device").symlink_to(device)
        for name, text in {"name": "Made-up FPGA Manager", "state": "unknown", "status": "", "firmware": ""}.items():
            (self.manager / name).write_text(text)
        firmware = root / "firmware" / "lab"
        firmware.mkdir(parents=True)
        for name in ("meter", "blank"):
            (firmware / f"{name}.rbf").write_bytes(b"\xff" * 64)
        self.programmer = Programmer(
            root / "run" / "blocks", sysfs=root / "sys", firmware=root / "firmware", write=self.write
        )

    def write(self, path: Path, text: str) -> None:
        assert path == self.manager / "firmware"
        self.loaded.append(text)
        (self.manager / "state").write_text("operating\n")


class LabDriver(TestDriver):
    """libvirt's test driver on a host whose cards can be programmed."""

    __test__ = False
    programmer: Programmer

    def load(self, spec: DomainSpec) -> None:
        self.programmer.load(spec)

    def unload(self, uuid: str, spec: DomainSpec | None) -> None:
        self.programmer.unload(uuid, spec)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


@pytest.fixture
def driver(card: Card) -> Iterator[LabDriver]:
    with LabDriver(places_of(f"test://{REPO}/tests/data/blocks-host.xml")) as made:
        made.programmer = card.programmer
        yield made


def wanted(driver: LabDriver, *, clear: str = "lab/blank.rbf") -> Topology:
    """A client with an instrument that is a card's circuit."""
    block = {"vendor": "0x1172", "device": "0x0004", "bitstream": "lab/meter.rbf", "clear": clear}
    spec = {
        "protocol": "bytes",
        "frontends": ["isa-serial"],
        "program": {"command": ["meter"]},
        "memory": {"base": "64MiB"},
        "resources": [{"block": block}],
    }
    vm = {"memory": "64MiB", "boot": {"kernel": "/boot/vmlinuz"}}
    documents = [
        {"kind": "DeviceClass", "metadata": {"name": "meter"}, "spec": spec},
        {
            "kind": "Client",
            "metadata": {"name": "web"},
            "spec": {"vm": vm, "devices": [{"name": "m", "class": "meter"}]},
        },
    ]
    return topology_from_documents(
        [{"apiVersion": "devicevm/v1", **document} for document in documents],
        schemas=REPO / "schemas",
        classes=REPO / "classes",
    )


def apply(driver: LabDriver, topology: Topology) -> Outcome:
    plan = plan_on(driver, topology, ME)
    return carry_out(plan, driver, driver.host(), Options(), Progress())


def spec(*devices: HostDevice, uuid: str = "u1") -> DomainSpec:
    return DomainSpec(
        "d", uuid, Role.DEVICE_VM, "o", "h", 1, 2**20, "tcg", "x86_64", "pc", Boot(), host_devices=devices
    )


@pytest.mark.libvirt
def test_a_declared_block_is_programmed_held_and_cleared(driver: LabDriver, card: Card) -> None:
    outcome = apply(driver, wanted(driver))
    assert not outcome.errors, outcome.errors
    assert card.loaded == ["lab/meter.rbf"]
    holders = {address: one.domain for one in driver.host().holdings for address in one.node_devices}
    assert holders == {"0000:03:00.0": "lab1", CARD: "web-dvm", "0000:04:00.1": "web-dvm"}
    assert plan_on(driver, wanted(driver), ME).steps == ()

    assert not apply(driver, Topology()).errors
    assert card.loaded == ["lab/meter.rbf", "lab/blank.rbf"]
    assert list(card.programmer.notes.iterdir()) == []
    assert driver.host().holdings[0].domain == "lab1"
    assert len(driver.host().holdings) == 1


@pytest.mark.libvirt
def test_a_device_vm_that_ended_by_itself_leaves_nothing_behind(driver: LabDriver, card: Card) -> None:
    assert not apply(driver, wanted(driver)).errors
    driver.connection.lookupByName("web-dvm").destroy()
    assert card.loaded == ["lab/meter.rbf"]
    assert not apply(driver, Topology()).errors
    assert card.loaded == ["lab/meter.rbf", "lab/blank.rbf"]


@pytest.mark.libvirt
def test_a_block_that_cannot_be_cleared_stays_with_its_domain(driver: LabDriver, card: Card) -> None:
    assert not apply(driver, wanted(driver)).errors
    (card.manager / "device").unlink()
    outcome = apply(driver, Topology())
    assert f"block {CARD} could not be cleared: {CARD} has no FPGA manager" in " ".join(
        error.message for error in outcome.errors.values()
    )
    assert [seen.name for seen in driver.observe() if seen.role is Role.DEVICE_VM] == ["web-dvm"]
    held = [address for one in driver.host().holdings if one.domain == "web-dvm" for address in one.node_devices]
    assert CARD in held


@pytest.mark.libvirt
def test_a_block_that_cannot_be_programmed_undoes_the_start(driver: LabDriver, card: Card) -> None:
    """Nothing was put into it, so nothing has to be cleared."""
    (card.manager / "device").unlink()
    outcome = apply(driver, wanted(driver))
    assert f"{CARD} has no FPGA manager" in " ".join(error.message for error in outcome.errors.values())
    assert not outcome.undo_errors
    assert (driver.observe(), card.loaded) == ((), [])


def test_a_bitstream_that_is_missing_is_told_before_anything_is_done(card: Card) -> None:
    for bitstream, clear in (("lab/none.rbf", "lab/blank.rbf"), ("lab/meter.rbf", "lab/none.rbf")):
        with pytest.raises(DevicevmError, match=r"there is no bitstream .*lab/none\.rbf"):
            card.programmer.load(spec(HostDevice("pci", CARD, bitstream, clear)))
    assert card.loaded == []


def test_what_is_somebody_elses_by_now_is_not_cleared(card: Card) -> None:
    device = HostDevice("pci", CARD, "lab/meter.rbf", "lab/blank.rbf")
    card.programmer.load(spec(device))
    card.programmer.load(spec(device, uuid="u2"))
    card.programmer.unload("u1")
    assert card.loaded == ["lab/meter.rbf", "lab/meter.rbf"]
    card.programmer.unload("u2")
    card.programmer.unload("u2")
    assert card.loaded == ["lab/meter.rbf", "lab/meter.rbf", "lab/blank.rbf"]


def test_blocks_without_a_bitstream_are_left_as_they_are(card: Card) -> None:
    card.programmer.load(spec(HostDevice("pci", CARD), HostDevice("mdev", "uuid")))
    card.programmer.unload("u1")
    assert card.loaded == []


@pytest.mark.parametrize("note", ["", "?", "{}"])
def test_a_note_that_says_nothing_is_told_to_whose_block_it_is_and_disturbs_nobody_else(card: Card, note: str) -> None:
    device = HostDevice("pci", CARD, "lab/meter.rbf", "lab/blank.rbf")
    card.programmer.load(spec(device))
    (card.programmer.notes / CARD).write_text(note)
    card.programmer.unload("u2", spec(HostDevice("pci", "0000:05:00.0", "lab/meter.rbf", "lab/blank.rbf"), uuid="u2"))
    card.programmer.unload("u3")
    with pytest.raises(DevicevmError, match="does not say whose block it was programmed for"):
        card.programmer.unload("u1", spec(device))


def test_a_note_is_whole_or_not_there(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: nothing is programmed that nobody would clear, and what was noted before stays."""
    device = HostDevice("pci", CARD, "lab/meter.rbf", "lab/blank.rbf")
    card.programmer.load(spec(device))

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(DevicevmError, match="No space left"):
            card.programmer.load(spec(device, uuid="u2"))
    card.programmer.unload("u1", spec(device))
    assert card.loaded == ["lab/meter.rbf", "lab/blank.rbf"]
