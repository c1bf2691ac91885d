"""Whom a device VM that is there takes in: never anybody for whose sake those that it serves would lose it."""

from __future__ import annotations

from dataclasses import replace

from devicevm.domain import DomainSpec
from devicevm.inventory.host import Host
from devicevm.manifest.topology import (
    Client,
    Device,
    DeviceClass,
    DeviceVM,
    HostPolicy,
    ResourceRequest,
    Serves,
    ShareScope,
    Topology,
)
from devicevm.planner.plan import Effect, Plan
from world import DISK, NET, RNG, TPM, ModelVmm, client, core, disk, host, thread, topology

CLASSES = (DISK, NET, RNG, TPM)
EVERYBODY = DeviceVM("s", Serves(), ShareScope.HOST)
TRUST = replace(disk("t"), class_="tpm")
WEB = client("web", disk())


def declared(*clients: Client, classes: tuple[DeviceClass, ...] = CLASSES, one: DeviceVM = EVERYBODY) -> Topology:
    return topology(*clients, classes=classes, device_vms=(one,))


def device_vms(plan: Plan) -> set[str]:
    """The steps that a plan has for device VMs, none of which anybody feels."""
    assert all(step.affects == () for step in plan.steps)
    return {step.id for step in plan.steps if step.kind == "device-vm"}


APART = {"define/device-vm/s-2", "start/device-vm/s-2"}


def test_who_needs_another_image_has_a_device_vm_apart_from_one_who_is_not_declared() -> None:
    vmm = ModelVmm(host())
    vmm.apply(declared(WEB))
    assert device_vms(vmm.plan(declared(client("sec", TRUST)))) == APART
    # One with the same image may join.
    assert device_vms(vmm.plan(declared(client("sec", Device("r", "rng"))))) == {"update/device-vm/s"}


def test_who_needs_another_image_has_a_device_vm_apart_from_one_who_has_no_place() -> None:
    vmm = ModelVmm(host())
    vmm.apply(declared(WEB))
    plan = vmm.plan(declared(replace(WEB, host="nowhere"), client("sec", TRUST)))
    assert {item.client for item in plan.unplaced} == {"web"}
    assert device_vms(plan) == APART


def test_a_device_whose_class_has_another_image_now_leaves_the_device_vm_to_the_others() -> None:
    vmm = ModelVmm(host())
    shop = client("shop", disk())
    vmm.apply(declared(WEB, shop))
    plan = vmm.plan(declared(shop, classes=(replace(DISK, image="tpm"),)))
    assert {step.id for step in plan.steps if step.effect is Effect.RESTART} == {"stop/client/shop"}
    assert "define/device-vm/s-2" in {step.id for step in plan.steps}


def test_an_image_that_an_alternative_brings_along_can_be_joined() -> None:
    program = ResourceRequest("program", options={"image": "tpm", "command": ["x"]})
    one = replace(EVERYBODY, resources=((program, ResourceRequest("thread")),))
    vmm = ModelVmm(host())
    vmm.apply(declared(WEB, one=one))
    assert [spec.image.rpartition("-")[0] for spec in specs(vmm) if spec.image] == ["tpm"]
    assert device_vms(vmm.plan(declared(client("shop", disk()), one=one))) == {"update/device-vm/s"}
    # Without the program, who goes on would be in an image of which nothing is said.
    assert device_vms(vmm.plan(declared(client("shop", disk())))) == APART


def test_a_device_vm_that_goes_on_for_others_gets_no_alternative_with_another_image() -> None:
    program = ResourceRequest("program", options={"image": "tpm", "command": ["x"]})
    one = replace(EVERYBODY, resources=((program, *core(2)), thread()))
    vmm = ModelVmm(host(cores=3, threads=1))
    vmm.apply(declared(WEB, one=one))
    # A newcomer joins it; but what it has cannot be had any more, and there is nothing else with that program.
    wanted = replace(declared(client("shop", disk()), one=one), hosts=(HostPolicy("h1", reserved_cpus=(0,)),))
    assert device_vms(vmm.plan(wanted)) == APART


def specs(vmm: ModelVmm) -> list[DomainSpec]:
    return [one.spec for one in vmm.observe() if one.spec]


def test_a_nic_joins_no_device_vm_that_has_no_network() -> None:
    vmm = ModelVmm(host())
    vmm.apply(declared(WEB))
    newcomers = [client(name, Device("lan", "net")) for name in ("a", "b")]
    plan = vmm.apply(declared(WEB, newcomers[0]))
    assert device_vms(plan) == APART
    # And both are on one network.
    assert device_vms(vmm.apply(declared(WEB, *newcomers))) == {"update/device-vm/s-2"}


TWO: tuple[Host, ...] = (host("h1"), host("h2"))
RESTING = (HostPolicy("h1", maintenance=True), HostPolicy("h2"))


def test_nobody_new_joins_a_device_vm_on_a_host_in_maintenance() -> None:
    vmm = ModelVmm(*TWO)
    vmm.apply(declared(WEB))
    wanted = replace(declared(WEB, client("a", disk()), client("b", disk())), hosts=RESTING)
    plan = vmm.apply(wanted)
    assert plan.unplaced == () and device_vms(plan) == APART
    assert {spec.host for spec in plan.domains if spec.name != "web"} == {"h2"}
    # Those that are there may still have more of it.
    more = client("web", disk(), disk("more"))
    plan = vmm.plan(replace(wanted, clients=(*wanted.clients[:2], more)))
    assert "update/device-vm/s" in {step.id for step in plan.steps}


def test_nobody_new_joins_a_network_on_a_host_in_maintenance() -> None:
    vmm = ModelVmm(*TWO)
    first = client("a", Device("lan", "net"))
    vmm.apply(declared(first))
    plan = vmm.plan(replace(declared(first, client("b", Device("lan", "net"))), hosts=RESTING))
    assert {(item.client, item.reasons[0]) for item in plan.unplaced} == {("b", "h1: it is in maintenance")}
    assert plan.steps == ()
