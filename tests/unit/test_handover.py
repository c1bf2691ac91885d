"""A processor is taken only after whoever has it has given it up."""

from __future__ import annotations

from dataclasses import replace

from devicevm.apply.check import check_plan
from devicevm.manifest.topology import DeviceVM, FloatingDomains, HostPolicy, ResourceRequest, Serves, Topology
from devicevm.planner.handover import in_turn
from devicevm.planner.plan import Action, Effect, Phase, Plan, Step, Subject
from world import ModelVmm, client, core, disk, host, thread, topology


def served(name: str, resources: tuple[ResourceRequest, ...]) -> DeviceVM:
    """A device VM of one client's own."""
    return DeviceVM(f"{name}-storage", Serves(clients=(name,)), resources=(resources,))


def wanted(hosts: tuple[HostPolicy, ...] = (), **clients: tuple[ResourceRequest, ...]) -> Topology:
    """Clients, each with what its device VM runs on."""
    declared = tuple(served(name, resources) for name, resources in clients.items())
    return topology(*(client(name, disk()) for name in clients), device_vms=declared, hosts=hosts)


def before(plan: Plan, key: str) -> tuple[str, ...]:
    """What a step waits for; each of these comes before it in the plan."""
    order = [step.id for step in plan.steps]
    (step,) = [step for step in plan.steps if step.id == key]
    assert all(order.index(one) < order.index(key) for one in step.after)
    return step.after


def test_a_new_device_vm_waits_for_the_one_that_shares_from_now_on() -> None:
    pool = (HostPolicy("h1", shared_cpus=(1,)),)
    vmm = ModelVmm(host(cores=2, threads=1))
    vmm.apply(wanted(pool, z=core()))
    plan = vmm.plan(wanted(pool, a=core(), z=thread()))
    assert "update/device-vm/z-storage" in before(plan, "start/device-vm/a-storage")
    check_plan(plan)


def test_what_is_started_with_more_waits_for_what_is_stopped_to_have_less() -> None:
    vmm = ModelVmm(host(cores=4, threads=1))
    vmm.apply(wanted(a=core(), z=core(2)))
    plan = vmm.plan(wanted(a=core(2), z=core()))
    assert "stop/device-vm/z-storage" in before(plan, "start/device-vm/a-storage")


def test_a_client_waits_for_the_device_vm_that_goes() -> None:
    vmm = ModelVmm(host(cores=2, threads=1))
    vmm.apply(wanted(z=core()))
    alone = client("a")
    alone = replace(alone, vm=replace(alone.vm, cpus=thread(dedicated=True)[0]))
    plan = vmm.plan(topology(alone, client("z")))
    assert before(plan, "start/client/a") == ("define/client/a", "stop/device-vm/z-storage")


def test_what_shares_waits_for_nobody_who_shares() -> None:
    vmm = ModelVmm(host(cores=1, threads=1))
    vmm.apply(wanted(z=thread()))
    plan = vmm.plan(topology(client("a", disk()), client("z")))
    assert "stop/device-vm/z-storage" in {step.id for step in plan.steps}
    assert before(plan, "start/device-vm/a-dvm") == ("define/device-vm/a-dvm",)


def test_what_floats_is_off_a_processor_before_it_is_dedicated_and_comes_back_after() -> None:
    policy = (HostPolicy("h1", floating_domains=FloatingDomains.MOVE),)
    vmm = ModelVmm(host(cores=4, threads=1))
    vmm.apply(wanted(policy, z=thread()))
    plan = vmm.apply(wanted(policy, a=core(2), z=thread()))
    assert {"update/client/z", "update/device-vm/z-storage"} < set(before(plan, "start/device-vm/a-storage"))
    plan = vmm.plan(wanted(policy, a=core(), z=thread()))
    assert before(plan, "update/client/z") == ("stop/device-vm/a-storage",)


def test_where_places_are_changed_in_a_circle_one_comes_too_early() -> None:
    """There may be no other processor; steps that wait for each other would never be done."""
    vmm = ModelVmm(host(cores=4, threads=1))
    names = ("a-storage", "b-storage", "c-storage")
    vmm.apply(wanted(a=core(), b=core(), c=core()))
    there = {name: vmm.domains[name] for name in names}
    old = {name: one.spec for name, one in there.items() if one.spec}
    new = {name: replace(old[name], placement=old[names[number - 1]].placement) for number, name in enumerate(names)}
    assert len({spec.placement for spec in new.values()}) == len(names)
    steps = {
        name: Step(name, Action.UPDATE, Subject.DEVICE_VM, name, Phase.CONFIGURE, Effect.LIVE, "") for name in names
    }
    found = in_turn(steps, there, new)
    assert {name: step.after for name, step in found.items()} == {
        "c-storage": (),
        "b-storage": ("a-storage",),
        "a-storage": ("c-storage",),
    }
    assert list(found) == ["c-storage", "a-storage", "b-storage"]
