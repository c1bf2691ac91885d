"""Who feels a step, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devicevm.manifest.topology import Device, DeviceVM, HostPolicy, Serves, Topology
from devicevm.planner.felt import START, words
from devicevm.planner.plan import Effect, Felt, Plan, Seconds, Until
from devicevm.planner.planner import Intent
from world import MIB, ModelVmm, client, disk, host, topology

GPS = Device("gps", "serial", {"command": ["a"]})
SHARED = DeviceVM("shared", Serves())


def felt(plan: Plan) -> dict[str, tuple[Felt, ...]]:
    return {step.id: step.felt for step in plan.steps if step.felt}


def effects(plan: Plan) -> dict[str, tuple[Effect, tuple[str, ...]]]:
    return {step.id: (step.effect, step.affects) for step in plan.steps if step.effect is not Effect.NONE}


def changed(first: Topology, second: Topology, accelerator: str = "tcg") -> Plan:
    vmm = ModelVmm(replace(host(), accelerator=accelerator))
    vmm.apply(first)
    return vmm.plan(second)


def bigger(*clients: object) -> Topology:
    """The same clients on a device VM that must be restarted to have as much memory."""
    return topology(*clients, device_vms=(replace(SHARED, memory=512 * MIB),))  # type: ignore[arg-type]


def test_nobody_feels_what_is_new() -> None:
    assert felt(ModelVmm().plan(topology(client("web", disk(), GPS)))) == {}


def test_a_restarted_client_is_away_until_it_has_booted_and_longer_with_its_device_vm() -> None:
    web = client("web", disk())
    plan = changed(topology(web, device_vms=(SHARED,)), bigger(web))
    assert felt(plan) == {"stop/client/web": (Felt(("web",), Until.BOOTED, Seconds(START["tcg"].from_)),)}
    assert effects(plan)["stop/device-vm/shared"] == (Effect.RESTART, ("web",))
    wider = replace(web, vm=replace(web.vm, vcpus=2))
    assert felt(changed(topology(web), topology(wider))) == {"stop/client/web": (Felt(("web",), Until.BOOTED),)}


def test_a_serial_port_comes_back_by_itself() -> None:
    """And its client is neither restarted, nor told to be."""
    boat = client("boat", GPS)
    plan = changed(topology(boat, device_vms=(SHARED,)), bigger(boat))
    assert effects(plan) == {"stop/device-vm/shared": (Effect.RECONNECT, ("boat",))}
    assert felt(plan) == {"stop/device-vm/shared": (Felt(("boat",), Until.ANSWERED, START["tcg"]),)}


def test_of_two_clients_each_is_told_what_it_feels() -> None:
    web, boat = client("web", disk()), client("boat", GPS)
    plan = changed(topology(web, boat, device_vms=(SHARED,)), bigger(web, boat))
    assert felt(plan) == {
        "stop/client/web": (Felt(("web",), Until.BOOTED, Seconds(2)),),
        "stop/device-vm/shared": (Felt(("boat",), Until.ANSWERED, Seconds(2, 4)),),
    }


def test_what_a_serial_device_runs_is_changed_live_and_its_client_reconnects() -> None:
    boat = client("boat", GPS)
    other = client("boat", replace(GPS, class_="echo"))
    classes = topology().classes
    echo = replace(classes[2], name="echo")
    plan = changed(topology(boat, classes=(*classes, echo)), topology(other, classes=(*classes, echo)))
    assert effects(plan)["stop/client/boat"] == (Effect.RESTART, ("boat",)), "its attachment is another one"
    slower = tuple(replace(one, program=replace(one.program, command=("other",))) for one in classes)
    plan = changed(topology(boat), topology(boat, classes=slower))
    assert effects(plan) == {"update/device-vm/boat-dvm": (Effect.RECONNECT, ("boat",))}
    assert felt(plan) == {"update/device-vm/boat-dvm": (Felt(("boat",), Until.ANSWERED),)}


def test_a_client_that_is_kept_undeclared_is_told_to_need_a_restart() -> None:
    web, other = client("web", disk()), client("other", disk())
    plan = changed(topology(web, other, device_vms=(SHARED,)), bigger(web))
    assert felt(plan)["stop/device-vm/shared"] == (Felt(("other",), Until.RESTARTED),)
    assert effects(plan)["stop/device-vm/shared"] == (Effect.RESTART, ("other", "web"))


def test_what_is_not_measured_is_not_told() -> None:
    web = client("web", disk())
    plan = changed(topology(web, device_vms=(SHARED,)), bigger(web), accelerator="kvm")
    assert felt(plan) == {"stop/client/web": (Felt(("web",), Until.BOOTED),)}


def test_who_is_removed_is_gone() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", disk())))
    plan = vmm.plan(topology(hosts=(HostPolicy("h1"),)), Intent("default", prune=True))
    assert felt(plan) == {"stop/client/web": (Felt(("web",), Until.NEVER),)}


@pytest.mark.parametrize(
    ("felt", "text"),
    [
        (Felt(("a",), Until.BOOTED, Seconds(2)), "a is away until it has booted, 2 s or more"),
        (Felt(("a", "b"), Until.BOOTED), "a, b are away until they have booted"),
        (Felt(("a",), Until.ANSWERED, Seconds(2, 4)), "a has no answer until the device VM has answered, 2-4 s"),
        (Felt(("a", "b"), Until.RESTARTED), "a, b have no answer until somebody restarts them"),
        (Felt(("a",), Until.NEVER), "a is gone for good"),
    ],
)
def test_words(felt: Felt, text: str) -> None:
    assert words(felt) == text
