"""What is left out after an interruption: it runs on as it does, and its definition takes nobody's processors."""

from __future__ import annotations

from dataclasses import replace

from devicevm.domain import CpuPlacement
from devicevm.manifest.topology import Client, DeviceVM, ResourceRequest, Serves, Topology
from devicevm.planner.plan import Plan
from world import ModelVmm, client, core, disk, host, thread, topology


def carry_out_until(vmm: ModelVmm, plan: Plan, last: str) -> None:
    """Carry out a plan up to a step, and no further."""
    ids = [step.id for step in plan.steps]
    for step in plan.steps[: ids.index(last) + 1]:
        vmm.carry_out(replace(plan, steps=(replace(step, after=()),)))


def wanted(*clients: Client, resources: tuple[ResourceRequest, ...], name: str = "") -> Topology:
    """Clients on device VMs of these resources; with a name, on one that is declared under that name."""
    declared = (DeviceVM(name or "x", Serves(), resources=(resources,)),)
    return topology(*clients, device_vms=declared)


def placement(vmm: ModelVmm, name: str) -> CpuPlacement:
    spec = vmm.domains[name].spec
    assert spec
    return spec.placement


def test_of_two_definitions_of_one_processor_one_gives_way() -> None:
    """A device VM was to take over from another: both are defined, neither runs, and nothing is to be had now."""
    vmm = ModelVmm(host(cores=2, threads=1))
    web = client("web", disk())
    vmm.apply(wanted(web, resources=core(), name="one"))
    plan = vmm.plan(wanted(web, resources=core(), name="two"))
    carry_out_until(vmm, plan, "define/device-vm/two")
    assert placement(vmm, "one").vcpus == placement(vmm, "two").vcpus
    left = wanted(replace(web, host="elsewhere"), resources=core(), name="two")
    plan = vmm.apply(left)
    assert plan.unplaced
    assert [step.id for step in plan.steps] == ["define/device-vm/two"]
    assert "instead of 0" in plan.steps[0].reason
    assert placement(vmm, "one").dedicated and placement(vmm, "two") == CpuPlacement()
    assert not any(one.active for one in vmm.observe())
    assert vmm.plan(left).steps == ()
    # Where there is room again, it is placed as it is declared.
    vmm.apply(wanted(web, resources=core(), name="two"))
    assert placement(vmm, "two").dedicated and "one" not in vmm.domains


def test_a_client_that_was_to_have_other_processors_gives_way_to_what_runs() -> None:
    vmm = ModelVmm(host(cores=3, threads=1))
    alone = client("alone")
    alone = replace(alone, vm=replace(alone.vm, cpus=thread(dedicated=True)[0]))
    vmm.apply(topology(alone))
    (mine,) = placement(vmm, "alone").vcpus
    vmm.domains["alone"] = replace(vmm.domains["alone"], active=False, active_spec=None)
    # Somebody has been moved there meanwhile, as an apply in between may have done.
    other = client("other")
    other = replace(other, vm=replace(other.vm, cpus=thread(dedicated=True)[0]))
    vmm.apply(topology(other))
    spec = vmm.domains["other"].spec
    assert spec
    moved = replace(spec, placement=replace(spec.placement, vcpus=(mine,), emulator=mine))
    vmm.domains["other"] = replace(vmm.domains["other"], spec=moved, active_spec=moved)
    left = topology(replace(alone, host="elsewhere"), other)
    plan = vmm.apply(left)
    assert [step.id for step in plan.steps] == ["define/client/alone"]
    assert placement(vmm, "alone") == CpuPlacement() and not vmm.domains["alone"].active
    assert vmm.plan(left).steps == ()


def test_a_move_of_what_is_left_out_is_finished_when_it_was_interrupted() -> None:
    """Nobody can tell how far it came: until it is done the client may be on either processor."""
    vmm = ModelVmm(host(cores=4, threads=1))
    alone = client("alone")
    alone = replace(alone, vm=replace(alone.vm, cpus=thread(dedicated=True)[0]))
    vmm.apply(topology(alone))
    there = vmm.domains["alone"]
    assert there.spec
    moved = replace(there.spec, placement=replace(there.spec.placement, vcpus=((3,),), emulator=(3,)))
    vmm.domains["alone"] = replace(there, spec=moved)
    plan = vmm.apply(topology(replace(alone, host="elsewhere"), client("web", disk())))
    assert {item.client for item in plan.unplaced} == {"alone"}
    assert "update/client/alone" in [step.id for step in plan.steps]
    assert vmm.domains["alone"].active_spec == moved and vmm.domains["alone"].active


def test_a_newcomer_whose_device_is_there_already_is_left_out() -> None:
    """Its device was added to the device VM of another, then the apply was interrupted; now no host is for it."""
    shared = (DeviceVM("storage", Serves()),)
    web, shop = client("web", disk()), client("shop", disk())
    vmm = ModelVmm(host(cores=2, threads=1))
    vmm.apply(topology(web, device_vms=shared))
    carry_out_until(vmm, vmm.plan(topology(web, shop, device_vms=shared)), "update/device-vm/storage")
    left = topology(web, replace(shop, host="nowhere"), device_vms=shared)
    plan = vmm.apply(left)
    assert {item.client for item in plan.unplaced} == {"shop"}
    assert vmm.plan(left).steps == ()
