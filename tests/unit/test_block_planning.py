"""Reconfigurable blocks in plans: whose they are, why not, what takes their place, and when they are given back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from devicevm.domain import HostDevice
from devicevm.inventory.host import DomainSupport, FileFacts, Holding, Host, ImageFacts, NodeDevice
from devicevm.manifest.topology import (
    ClassMemory,
    Device,
    DeviceClass,
    DeviceVM,
    Program,
    ResourceRequest,
    Serves,
    Topology,
)
from devicevm.planner.plan import Effect
from devicevm.planner.planner import Intent, make_plan
from world import ME, MIB, ModelVmm, class_, client, host, topology

BITSTREAM = {"bitstream": "lab/meter.rbf", "clear": "lab/blank.rbf"}
CARD = ResourceRequest("block", options={"provider": "host", "kind": "pci", "vendor": "0x1172", **BITSTREAM})
SIMULATED = ResourceRequest(
    "block", options={"provider": "simulated", "file": "/opt/meter.design", "image": "simulator"}
)
ISA = (
    ResourceRequest("isa", options={"features": ["avx2"]}),
    ResourceRequest("program", options={"image": "avx", "command": ["meter-avx", "--name=${device}"]}),
)
CORE, THREAD = (ResourceRequest("core", 1, True),), (ResourceRequest("thread", 1),)
ROM = ResourceRequest(
    "firmware",
    options={"kind": "rom", "file": "/opt/meter.rom", "arch": "x86_64", "machine": "pc", "memory": 2 * MIB},
)


def card(number: int, **changes: Any) -> NodeDevice:
    """An FPGA card in an IOMMU group of its own."""
    made = NodeDevice(
        f"pci_{number}",
        "pci",
        vendor="0x1172",
        product="0x0004",
        class_code="0x120000",
        address=f"0000:0{number}:00.0",
        iommu_group=number,
        node=0,
    )
    return replace(made, **changes)


def lab(*cards: NodeDevice, digest: str = "ab12", **changes: Any) -> Host:
    """A host with these cards, a design and an image for each way to simulate it."""
    images = tuple(
        ImageFacts(name, "0" * 12, f"/i/{name}/kernel", f"/i/{name}/initramfs", "quiet")
        for name in ("avx", "base", "client", "simulator")
    )
    files = (FileFacts("/opt/meter.design", 1024, digest),)
    return replace(replace(host(), node_devices=cards, images=images, files=files), **changes)


def meter(*alternatives: tuple[ResourceRequest, ...], **changes: Any) -> DeviceClass:
    """A class of instruments."""
    made = class_(
        "meter",
        protocol="bytes",
        frontends=("isa-serial",),
        program=Program(("meter", "${device}")),
        memory=ClassMemory(96 * MIB),
        resources=alternatives,
        storage=None,
    )
    return replace(made, **changes)


def declared(class_: DeviceClass, *names: str) -> Topology:
    """Clients with an instrument each."""
    return topology(*(client(name, Device("m", "meter")) for name in names), classes=(class_,))


ANY = meter((CARD,), ISA, CORE, THREAD, (ROM,))


def test_a_block_is_one_device_vms_at_a_time() -> None:
    plan = make_plan(declared(meter((CARD,)), "a", "b", "c"), (lab(card(3), card(4)),), (), ME)
    assert [allocation.blocks for allocation in plan.allocations] == [("0000:03:00.0",), ("0000:04:00.0",)]
    (item,) = plan.unplaced
    assert item.reasons == (
        "h1: c-dvm: PCI function of vendor 0x1172: 2 PCI functions of vendor 0x1172 are there: "
        "0000:03:00.0 is held by a-dvm, 0000:04:00.0 is held by b-dvm",
    )
    (spec,) = [spec for spec in plan.domains if spec.name == "a-dvm"]
    assert spec.host_devices == (HostDevice("pci", "0000:03:00.0", **BITSTREAM),)
    assert spec.emulators[0].command == ("meter", "m")


def test_what_others_hold_is_not_given() -> None:
    held = (Holding("lab1", "u", True, 1, MIB, node_devices=("0000:03:00.0",)),)
    plan = make_plan(declared(meter((CARD,)), "a"), (lab(card(3), holdings=held),), (), ME)
    assert "0000:03:00.0 is held by lab1" in plan.unplaced[0].reasons[0]
    (allocation,) = make_plan(
        declared(meter((CARD,)), "a"), (lab(card(3), card(4), holdings=held),), (), ME
    ).allocations
    assert allocation.blocks == ("0000:04:00.0",)


def test_the_rest_of_a_group_goes_along_and_is_not_programmed() -> None:
    other = card(3, name="pci_3_1", address="0000:03:00.1", vendor="0x10ee")
    (spec, _) = make_plan(declared(meter((CARD,)), "a"), (lab(card(3), other),), (), ME).domains[::-1]
    assert spec.host_devices == (
        HostDevice("pci", "0000:03:00.0", **BITSTREAM),
        HostDevice("pci", "0000:03:00.1"),
    )


def test_the_nearest_card_is_told() -> None:
    asked = replace(CARD, options={**CARD.options, "numaNode": 1})
    plan = make_plan(declared(meter((asked,)), "a"), (lab(card(3)),), (), ME)
    assert plan.unplaced[0].reasons[0].endswith("0000:03:00.0 is on NUMA node 0, node 1 is asked")
    assert plan.unplaced[0].reasons[1:] == ("nearest for a-dvm: giving up numaNode of block would fit on h1",)


@pytest.mark.parametrize(
    ("there", "what", "reasons"),
    [
        (lab(card(3)), (("0000:03:00.0",), "thread", ""), 1),
        (
            lab(support=(DomainSupport(arch="x86_64", accelerator="tcg", host_features=("avx2",)),)),
            ((), "thread", ""),
            2,
        ),
        (lab(), ((), "core", ""), 3),
        (lab(holdings=(Holding("db", "u", True, 4, MIB, (0, 1, 2, 3), False),)), ((), "thread", ""), 4),
        (lab(images=lab().images[2:3]), ((), "thread", "/opt/meter.rom"), 5),
    ],
    ids=["block", "isa", "core", "thread", "firmware"],
)
def test_one_class_takes_what_there_is(there: Host, what: tuple[tuple[str, ...], str, str], reasons: int) -> None:
    """The last: a host without the image that every other alternative boots."""
    (allocation,) = make_plan(declared(ANY, "a"), (there,), (), ME).allocations
    assert (allocation.blocks, allocation.unit, allocation.firmware) == what
    assert len(allocation.reasons) == reasons
    if reasons > 1:
        assert allocation.reasons[0] == (
            "PCI function of vendor 0x1172: no PCI function of vendor 0x1172 is there: the host has 0 PCI functions"
        )


def test_an_alternative_may_have_a_program_and_an_image_of_its_own() -> None:
    support = (DomainSupport(arch="x86_64", accelerator="tcg", host_features=("avx2",)),)
    vmm = ModelVmm(lab(support=support))
    (spec,) = [spec for spec in vmm.apply(declared(ANY, "a")).domains if spec.name == "a-dvm"]
    assert (spec.image.split("-")[0], spec.emulators[0].command) == ("avx", ("meter-avx", "--name=m"))
    assert vmm.plan(declared(ANY, "a")).steps == ()
    vmm.hosts = (lab(support=support, images=lab().images[1:]),)
    assert vmm.plan(declared(ANY, "a")).steps == (), "what runs needs no image that is there still"
    (reason, *_) = [
        reason
        for reason in make_plan(declared(ANY, "b"), vmm.hosts, (), ME).allocations[0].reasons
        if "image avx" in reason and "not there" in reason
    ]
    assert reason.endswith(": image avx is not there: build it with 'devicevm image build avx'")


def test_a_simulation_takes_the_place_of_a_card_and_stays_there() -> None:
    both = meter((CARD,), (SIMULATED,))
    vmm = ModelVmm(lab())
    plan = vmm.apply(declared(both, "a"))
    assert (
        plan.allocations[0]
        .reasons[1]
        .startswith("simulated block meter.design: image simulator simulates /opt/meter.design (SHA-256 ab12); CPU")
    )
    (spec,) = [spec for spec in plan.domains if spec.name == "a-dvm"]
    (emulator,) = spec.emulators
    assert emulator.command == ("/usr/lib/devicevm/simulate", f"/dev/backing/{emulator.serial}", "ab12")
    assert emulator.store
    assert (emulator.store.path, emulator.store.size, emulator.store.read_only) == ("/opt/meter.design", 1024, True)
    # A card that comes later moves nothing; another design is a change while it runs; a file that is gone is none.
    vmm.hosts = (lab(card(3)),)
    assert vmm.plan(declared(both, "a")).steps == ()
    vmm.hosts = (lab(card(3), digest="cd34"),)
    (step,) = vmm.plan(declared(both, "a")).steps
    assert (step.id, step.effect) == ("update/device-vm/a-dvm", Effect.RECONNECT)
    vmm.hosts = (replace(lab(card(3)), files=()),)
    assert vmm.plan(declared(both, "a")).steps == ()
    removed = vmm.plan(declared(both), Intent("default", prune=True, delete_data=True))
    assert not [step for step in removed.steps if step.kind.value == "store"], "a design is nobody's data"


def test_a_simulation_needs_whole_sectors() -> None:
    files = (FileFacts("/opt/meter.design", 1000, "ab12"),)
    plan = make_plan(declared(meter((SIMULATED,)), "a"), (replace(lab(), files=files),), (), ME)
    assert "has 1000 bytes, which are no whole sectors of 512: truncate -s %512 it" in plan.unplaced[0].reasons[0]
    large = (FileFacts("/opt/meter.design", 2**20 + 512, "ab12"),)
    plan = make_plan(declared(meter((SIMULATED,)), "a"), (replace(lab(), files=large),), (), ME)
    assert "a design has 1048576 at most" in plan.unplaced[0].reasons[0]


def test_a_block_stays_and_is_given_back() -> None:
    vmm = ModelVmm(lab(card(3)))
    both = meter((CARD,), (SIMULATED,))
    vmm.apply(declared(both, "b"))
    plan = vmm.apply(declared(both, "a", "b"))
    assert {item.device_vm: item.blocks for item in plan.allocations} == {"a-dvm": (), "b-dvm": ("0000:03:00.0",)}
    assert vmm.plan(declared(both, "a", "b")).steps == ()
    vmm.apply(declared(both), Intent("default", prune=True))
    assert vmm.domains == {}
    (allocation,) = vmm.plan(declared(both, "c")).allocations
    assert allocation.blocks == ("0000:03:00.0",)


def test_another_bitstream_or_card_is_a_restart_of_the_device_vm() -> None:
    vmm = ModelVmm(lab(card(3), card(4)))
    vmm.apply(declared(meter((CARD,)), "a"))
    other = replace(CARD, options={**CARD.options, "bitstream": "lab/other.rbf"})
    steps = {step.id: step for step in vmm.plan(declared(meter((other,)), "a")).steps}
    assert steps["stop/device-vm/a-dvm"].effect is Effect.RECONNECT
    vmm.hosts = (lab(card(4)),)
    plan = vmm.apply(declared(meter((CARD,)), "a"))
    assert "host_devices changes" in next(step.reason for step in plan.steps if step.id == "define/device-vm/a-dvm")
    assert plan.allocations[0].blocks == ("0000:04:00.0",)
    assert "it could not stay: it has 0000:03:00.0 and CPU 0 as thread" in plan.allocations[0].reasons[0]


def test_whoever_takes_a_block_over_waits_until_it_is_let_go() -> None:
    vmm = ModelVmm(lab(card(3)))
    vmm.apply(declared(meter((CARD,)), "b"))
    plan = vmm.plan(declared(meter((CARD,)), "a"), Intent("default", prune=True))
    start = next(step for step in plan.steps if step.id == "start/device-vm/a-dvm")
    after = {step.id: set(step.after) for step in plan.steps}
    before = set(start.after)
    while more := {key for known in before for key in after[known]} - before:
        before |= more
    assert "stop/device-vm/b-dvm" in before
    vmm.carry_out(plan)


def test_a_command_that_lacks_a_value_is_a_reason() -> None:
    ranged = (THREAD[0], ResourceRequest("program", options={"image": "", "command": ["meter", "${range}"]}))
    all_meters = DeviceVM("all", Serves(), resources=(ranged, (SIMULATED,)))
    plan = make_plan(replace(declared(meter(THREAD), "a"), device_vms=(all_meters,)), (lab(),), (), ME)
    assert plan.allocations[0].reasons[0] == (
        "1 thread and meter: a/m: the program's command needs range, which has no value"
    )
    assert not plan.unplaced
