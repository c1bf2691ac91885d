"""What a device VM that was away is to its clients: who goes on, who is restarted, and who must be let go on."""

from __future__ import annotations

from dataclasses import replace

from devicevm.manifest.topology import Device, DeviceVM, Program, Serves, Store, Topology
from devicevm.planner.plan import Effect, Plan, Seconds, Until
from world import DISK, MIB, RNG, SERIAL, ModelVmm, client, disk, host, topology

GPS = Device("gps", "serial", {"command": ["a"]})
ENTROPY = Device("entropy", "rng")
KEPT = Device("kept", "disk", {"size": "1MiB"}, store=Store("file", MIB, path="/data/kept.raw"))


def after_its_death(wanted: Topology, name: str = "m-dvm") -> Plan:
    """The plan when the device VM of a topology that was applied has died."""
    vmm = ModelVmm(replace(host(), accelerator="tcg"))
    vmm.apply(wanted)
    vmm.domains[name] = replace(vmm.domains[name], active=False, active_spec=None)
    return vmm.apply(wanted)


def effects(plan: Plan) -> dict[str, Effect]:
    return {step.id: step.effect for step in plan.steps if step.kind.value != "store"}


def test_a_client_of_a_dead_device_vm_goes_on_when_all_it_had_there_is_still_there() -> None:
    plan = after_its_death(topology(client("m", KEPT, ENTROPY, GPS)))
    assert effects(plan) == {"start/device-vm/m-dvm": Effect.RECONNECT}
    (felt,) = plan.steps[-1].felt
    assert (felt.clients, felt.until, felt.seconds) == (("m",), Until.ANSWERED, Seconds(2, 4))


def test_a_client_whose_disk_was_in_the_dead_device_vm_s_memory_is_restarted() -> None:
    plan = after_its_death(topology(client("m", KEPT, disk())))
    assert effects(plan) == {
        "stop/client/m": Effect.RESTART,
        "start/device-vm/m-dvm": Effect.NONE,
        "start/client/m": Effect.NONE,
    }


def test_only_those_who_lost_something_are_restarted() -> None:
    shared = DeviceVM("shared", Serves())
    plan = after_its_death(topology(client("a", disk()), client("b", KEPT), device_vms=(shared,)), "shared")
    started = next(step for step in plan.steps if step.id == "start/device-vm/shared")
    assert (started.effect, started.affects) == (Effect.RECONNECT, ("b",))
    assert [step.name for step in plan.steps if step.action.value == "stop"] == ["a"]


def changed(device: Device, program: Program) -> Plan:
    """The plan when a client's disk is to be another one, or to be emulated otherwise."""
    vmm = ModelVmm()
    vmm.apply(topology(client("m", KEPT)))
    return vmm.plan(topology(client("m", device), classes=(replace(DISK, program=program), RNG, SERIAL)))


def test_a_disk_that_is_emulated_otherwise_is_back_and_one_with_other_content_needs_a_restart() -> None:
    other = replace(DISK.program, command=("nbdkit", "file", "${backing}"))
    assert effects(changed(KEPT, other)) == {"update/device-vm/m-dvm": Effect.RECONNECT}
    for store in (Store("file", 2 * MIB, path="/data/kept.raw"), Store("file", MIB, path="/data/other.raw")):
        assert "stop/client/m" in effects(changed(replace(KEPT, store=store), DISK.program))


def test_a_device_vm_that_is_restarted_is_waited_for_by_clients_with_kept_disks() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("m", KEPT)))
    larger = replace(DISK, memory=replace(DISK.memory, base=512 * MIB))
    assert effects(vmm.plan(topology(client("m", KEPT), classes=(larger,)))) == {
        "stop/device-vm/m-dvm": Effect.RECONNECT,
        "define/device-vm/m-dvm": Effect.NONE,
        "start/device-vm/m-dvm": Effect.NONE,
    }


def test_a_client_that_its_vmm_has_paused_is_let_go_on() -> None:
    vmm = ModelVmm()
    wanted = topology(client("m", KEPT))
    vmm.apply(wanted)
    vmm.domains["m"] = replace(vmm.domains["m"], stalled=True)
    (step,) = vmm.apply(wanted).steps
    assert (step.id, step.effect, step.affects) == ("resume/client/m", Effect.LIVE, ("m",))
    assert vmm.plan(wanted).steps == ()


def test_a_device_vm_that_its_vmm_has_paused_is_let_go_on_before_anybody_asks_it() -> None:
    vmm = ModelVmm()
    wanted = topology(client("m", KEPT))
    vmm.apply(wanted)
    for name in ("m", "m-dvm"):
        vmm.domains[name] = replace(vmm.domains[name], stalled=True)
    plan = vmm.plan(wanted)
    assert effects(plan) == {"resume/device-vm/m-dvm": Effect.LIVE, "resume/client/m": Effect.LIVE}
    assert plan.steps[1].after == ("resume/device-vm/m-dvm",) and plan.steps[0].affects == ("m",)
    plan = vmm.apply(topology(client("m", KEPT, disk(name="more"))))
    (update,) = [step for step in plan.steps if step.id == "update/device-vm/m-dvm"]
    assert "resume/device-vm/m-dvm" in update.after


def test_a_client_that_is_paused_for_a_disk_of_its_own_goes_on_though_another_lives_in_memory() -> None:
    """The host's disk is full under its image: its device VM has not died since."""
    vmm = ModelVmm()
    wanted = topology(client("m", KEPT, disk()))
    vmm.apply(wanted)
    vmm.domains["m"] = replace(vmm.domains["m"], stalled=True)
    assert effects(vmm.plan(wanted)) == {"resume/client/m": Effect.LIVE}


def test_a_paused_client_whose_disk_s_content_is_gone_is_restarted_though_the_device_vm_is_back() -> None:
    vmm = ModelVmm()
    wanted = topology(client("m", KEPT, disk()))
    vmm.apply(wanted)
    spec = vmm.domains["m"].spec
    assert spec is not None
    away = tuple(one.channel.address for one in spec.attachments)
    vmm.domains["m"] = replace(vmm.domains["m"], stalled=True, away=away)
    plan = vmm.plan(wanted)
    assert effects(plan) == {"stop/client/m": Effect.RESTART, "start/client/m": Effect.NONE}
    assert "its content is gone" in plan.steps[0].reason
