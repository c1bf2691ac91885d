"""What the planner decides, case by case, on a model of a VMM."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devicevm.domain import Role
from devicevm.inventory.host import Holding
from devicevm.inventory.supports import GUESTS
from devicevm.manifest.topology import ClassMemory, Device, DeviceVM, HostPolicy, Program, Serves, ShareScope, Store
from devicevm.planner.plan import Action, Effect, Plan, Until
from devicevm.planner.planner import Intent
from world import (
    DISK,
    GIB,
    ME,
    MIB,
    RNG,
    SERIAL,
    ModelVmm,
    class_,
    client,
    core,
    disk,
    host,
    thread,
    topology,
)

GPS = Device("gps", "serial")
ENTROPY = Device("entropy", "rng")
SHARED = DeviceVM("storage", Serves())


def disk_of(name: str) -> Device:
    """An ephemeral disk of another class."""
    return replace(disk("d"), class_=name)


def actions(plan: Plan) -> list[str]:
    return [step.id for step in plan.steps]


def test_a_client_gets_one_device_vm_for_all_kinds_of_its_devices() -> None:
    plan = ModelVmm().plan(topology(client("web", disk(), ENTROPY, GPS)))
    assert actions(plan) == [
        "define/device-vm/web-dvm",
        "start/device-vm/web-dvm",
        "define/client/web",
        "start/client/web",
    ]
    (allocation,) = plan.allocations
    assert allocation.serves == ("web/data", "web/entropy", "web/gps")
    assert (allocation.unit, allocation.cpus) == ("thread", (0,))
    # 96 MiB base, 8 + 1 for the disk and its content, 1 for each of the others: 107, in steps of 32.
    assert allocation.memory == 128 * MIB
    assert not plan.unplaced


def test_a_declared_device_vm_is_shared_by_clients() -> None:
    plan = ModelVmm().plan(topology(client("a", disk(), ENTROPY, GPS), client("b", disk()), device_vms=(SHARED,)))
    assert [allocation.device_vm for allocation in plan.allocations] == ["storage"]
    starts = next(step for step in plan.steps if step.id == "start/client/b")
    assert "start/device-vm/storage" in starts.after


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        (ShareScope.DEVICE, ["dv-a-data", "dv-a-more", "dv-b-data"]),
        (ShareScope.CLIENT, ["dv-a", "dv-b"]),
        (ShareScope.TRUST_DOMAIN, ["dv", "dv-red"]),
        (ShareScope.HOST, ["dv"]),
    ],
)
def test_scope_bounds_who_shares(scope: ShareScope, names: list[str]) -> None:
    clients = (client("a", disk(), disk("more")), client("b", disk(), trust_domain="red"))
    plan = ModelVmm().plan(topology(*clients, device_vms=(DeviceVM("dv", Serves(), scope),)))
    assert [allocation.device_vm for allocation in plan.allocations] == names


def test_selectors_choose_the_device_vm() -> None:
    front = DeviceVM("front", Serves(classes=("disk",), match_labels={"tier": "front"}))
    clients = (client("a", disk(), ENTROPY, labels={"tier": "front"}), client("b", disk()))
    plan = ModelVmm().plan(topology(*clients, device_vms=(front,)))
    assert {allocation.device_vm: allocation.serves for allocation in plan.allocations} == {
        "a-dvm": ("a/entropy",),
        "b-dvm": ("b/data",),
        "front": ("a/data",),
    }


def test_a_full_device_vm_gets_a_second_one() -> None:
    small = replace(SHARED, max_devices=2)
    clients = [client(name, disk()) for name in "abc"]
    plan = ModelVmm().plan(topology(*clients, device_vms=(small,)))
    assert [allocation.serves for allocation in plan.allocations] == [("a/data", "b/data"), ("c/data",)]
    assert [allocation.device_vm for allocation in plan.allocations] == ["storage", "storage-2"]


def test_nothing_to_do_the_second_time() -> None:
    vmm = ModelVmm()
    wanted = topology(client("a", disk(), ENTROPY), client("b", GPS), device_vms=(SHARED,))
    assert vmm.apply(wanted).steps
    assert vmm.plan(wanted).steps == ()


def test_a_third_client_is_added_live_and_nobody_feels_it() -> None:
    vmm = ModelVmm()
    first = [client("a", disk()), client("b", disk())]
    vmm.apply(topology(*first, device_vms=(SHARED,)))
    plan = vmm.apply(topology(*first, client("c", ENTROPY), device_vms=(SHARED,)))
    assert actions(plan) == ["update/device-vm/storage", "define/client/c", "start/client/c"]
    assert [step.effect for step in plan.steps] == [Effect.LIVE, Effect.NONE, Effect.NONE]
    assert plan.steps[0].affects == ()


def test_without_live_changes_a_newcomer_gets_its_own_device_vm() -> None:
    vmm = ModelVmm(host(supports=(GUESTS,)))
    vmm.apply(topology(client("a", disk()), device_vms=(SHARED,)))
    plan = vmm.apply(topology(client("a", disk()), client("b", disk()), device_vms=(SHARED,)))
    assert [allocation.device_vm for allocation in plan.allocations] == ["storage", "storage-2"]
    assert {step.effect for step in plan.steps} == {Effect.NONE}


def test_what_does_not_fit_the_memory_of_a_running_device_vm_gets_its_own() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk()), device_vms=(SHARED,)))
    plan = vmm.plan(topology(client("a", disk()), client("b", disk(size=64 * MIB)), device_vms=(SHARED,)))
    assert [allocation.device_vm for allocation in plan.allocations] == ["storage", "storage-2"]


def test_what_finds_no_port_in_a_running_device_vm_gets_its_own() -> None:
    """A virtio-serial controller cannot be added to what runs; the first has ports for 14 devices and control."""
    vmm = ModelVmm()
    shared = replace(SHARED, max_devices=64)
    many = [Device(f"e{number:02}", "rng") for number in range(15)]
    vmm.apply(topology(client("a", *many[:13]), client("b", many[13]), device_vms=(shared,)))
    assert sorted(vmm.domains) == ["a", "b", "storage"]
    plan = vmm.plan(topology(client("a", *many[:13]), client("b", *many[13:]), device_vms=(shared,)))
    assert [allocation.device_vm for allocation in plan.allocations] == ["storage", "storage-2"]


def test_a_removed_client_takes_its_device_vm_along_only_when_pruned() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk()), client("b", disk())))
    rest = topology(client("b", disk()))
    assert vmm.plan(rest).steps == ()
    plan = vmm.apply(rest, Intent("default", prune=True))
    assert actions(plan) == [
        "stop/client/a",
        "undefine/client/a",
        "stop/device-vm/a-dvm",
        "undefine/device-vm/a-dvm",
    ]
    assert plan.steps[0].effect is Effect.REMOVE
    assert sorted(vmm.domains) == ["b", "b-dvm"]


def test_a_shared_device_vm_drops_a_removed_client_live() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk()), client("b", disk()), device_vms=(SHARED,)))
    plan = vmm.apply(topology(client("b", disk()), device_vms=(SHARED,)), Intent("default", prune=True))
    assert actions(plan) == ["stop/client/a", "undefine/client/a", "update/device-vm/storage"]
    spec = vmm.domains["storage"].spec
    assert spec and [emulator.id for emulator in spec.emulators] == ["b.data"]


def test_removing_everything_leaves_nothing() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk()), client("b", disk()), device_vms=(SHARED,)))
    vmm.apply(topology(), Intent("default", prune=True))
    assert vmm.domains == {}


def test_another_owner_is_never_touched() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk())), Intent("theirs"))
    before = dict(vmm.domains)
    vmm.apply(topology(client("b", disk())), ME)
    vmm.apply(topology(), Intent("default", prune=True))
    assert vmm.domains == before


def test_a_name_that_somebody_else_has_is_refused_with_the_reason() -> None:
    foreign = Holding("web", "u", True, 1, MIB)
    plan = ModelVmm(host(holdings=(foreign,))).plan(topology(client("web", disk())))
    assert plan.steps == ()
    assert "not devicevm's" in plan.unplaced[0].reasons[0]


def test_a_device_vm_avoids_a_name_that_somebody_else_has() -> None:
    foreign = Holding("web-dvm", "u", True, 1, MIB)
    plan = ModelVmm(host(holdings=(foreign,))).plan(topology(client("web", disk())))
    assert [allocation.device_vm for allocation in plan.allocations] == ["web-dvm-2"]


def test_threads_are_spread_and_dedicated_ones_are_alone() -> None:
    vmm = ModelVmm(host(cores=2, threads=2))
    alone = class_("alone", resources=(thread(dedicated=True),))
    clients = [client("a", disk_of("alone")), *(client(name, disk()) for name in "bcd")]
    plan = vmm.plan(topology(*clients, classes=(DISK, alone)))
    cpus = {allocation.device_vm: allocation.cpus for allocation in plan.allocations}
    assert cpus["a-dvm"] == (0,)
    assert sorted(cpus[f"{name}-dvm"] for name in "bcd") == [(1,), (2,), (3,)]


def test_a_core_is_all_its_threads() -> None:
    whole = class_("whole", resources=(core(),))
    plan = ModelVmm(host(cores=2, threads=2)).plan(topology(client("a", disk_of("whole")), classes=(whole,)))
    (allocation,) = plan.allocations
    assert (allocation.unit, allocation.cpus, allocation.dedicated) == ("core", (0, 2), True)
    spec = next(spec for spec in plan.domains if spec.role is Role.DEVICE_VM)
    assert spec.vcpus == 2 and spec.placement.vcpus == ((0,), (2,))


def test_reserved_and_held_processors_are_respected_and_the_reason_counts_them() -> None:
    held = Holding("db", "u", True, 1, MIB, cpus=(2,), floats=False)
    whole = class_("whole", resources=(core(2),))
    one = host(cores=3, threads=1, holdings=(held,))
    plan = ModelVmm(one).plan(
        topology(client("a", disk_of("whole")), classes=(whole,), hosts=(HostPolicy("h1", reserved_cpus=(0,)),))
    )
    assert plan.steps == ()
    assert plan.unplaced[0].reasons == (
        "h1: a-dvm: 2 cores: 2 cores asked, 1 free: 0 reserved, 2 shared by db",
        "nearest for a-dvm: 1 instead of 2 of core would fit on h1",
    )


def test_the_first_alternative_that_fits_is_taken_and_the_others_are_explained() -> None:
    picky = class_("picky", resources=(core(9), thread()))
    plan = ModelVmm().plan(topology(client("a", disk_of("picky")), classes=(picky,)))
    (allocation,) = plan.allocations
    assert allocation.unit == "thread"
    assert allocation.reasons[0] == "9 cores: 9 cores asked, 4 free of CPUs 0-7"
    assert allocation.reasons[1].startswith("1 thread: CPU 0")


def test_memory_that_is_not_there_is_told_with_the_arithmetic() -> None:
    plan = ModelVmm(host(memory=GIB)).plan(topology(client("a", disk(size=2 * GIB))))
    assert plan.steps == ()
    assert "memory: 2176MiB asked, 1GiB free of 1GiB" in plan.unplaced[0].reasons[0]


def test_an_image_that_is_not_built_is_told_with_the_command() -> None:
    bare = replace(host(), images=())
    plan = ModelVmm(bare).plan(topology(client("a", disk())))
    assert any("devicevm image build base" in reason for reason in plan.unplaced[0].reasons)


def test_what_stays_keeps_its_place_when_another_comes_before_it() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("m", disk())))
    plan = vmm.apply(topology(client("a", disk()), client("m", disk())))
    cpus = {allocation.device_vm: allocation.cpus for allocation in plan.allocations}
    assert cpus == {"m-dvm": (0,), "a-dvm": (1,)}
    assert not any(step.name.startswith("m") for step in plan.steps)


def test_a_processor_taken_from_a_device_vm_moves_it_while_it_runs() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("m", disk())))
    plan = vmm.apply(topology(client("m", disk()), hosts=(HostPolicy("h1", reserved_cpus=(0,)),)))
    assert actions(plan) == ["update/device-vm/m-dvm"]
    assert plan.steps[0].effect is Effect.LIVE and plan.steps[0].reason == "it runs on CPU 1 instead of 0"
    assert plan.allocations[0].reasons[0] == "it could not stay: CPU 0 is now reserved"


def test_a_serial_port_whose_emulator_changes_or_restarts_reconnects() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("m", GPS)))
    talker = replace(SERIAL, program=Program(("talk",), ready="bytes"))
    plan = vmm.plan(topology(client("m", GPS), classes=(talker,)))
    assert [(step.id, step.effect, step.affects) for step in plan.steps] == [
        ("update/device-vm/m-dvm", Effect.RECONNECT, ("m",))
    ]
    both = ModelVmm()
    both.apply(topology(client("m", disk(), GPS)))
    (step,) = both.plan(topology(client("m", disk(), GPS), classes=(DISK, talker))).steps
    assert [(felt.clients, felt.until) for felt in step.felt] == [(("m",), Until.ANSWERED)], "its disk stays"
    larger = replace(SERIAL, memory=ClassMemory(160 * MIB, MIB))
    plan = vmm.plan(topology(client("m", GPS), classes=(larger,)))
    assert actions(plan) == ["stop/device-vm/m-dvm", "define/device-vm/m-dvm", "start/device-vm/m-dvm"]
    assert (plan.steps[0].effect, plan.steps[0].affects) == (Effect.RECONNECT, ("m",))


def test_a_changed_client_is_restarted_and_its_device_vm_is_not() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("m", disk())))
    bigger = client("m", disk())
    bigger = replace(bigger, vm=replace(bigger.vm, memory=256 * MIB))
    plan = vmm.apply(topology(bigger))
    assert actions(plan) == ["stop/client/m", "define/client/m", "start/client/m"]
    assert plan.steps[0].reason == f"memory {128 * MIB} -> {256 * MIB}"


def test_a_dead_device_vm_is_started_and_only_clients_that_cannot_reconnect_are_restarted() -> None:
    vmm = ModelVmm()
    wanted = topology(client("a", disk()), client("b", GPS), device_vms=(SHARED,))
    vmm.apply(wanted)
    vmm.domains["storage"] = replace(vmm.domains["storage"], active=False, active_spec=None)
    plan = vmm.apply(wanted)
    assert actions(plan) == ["stop/client/a", "start/device-vm/storage", "start/client/a"]


@pytest.mark.parametrize(
    ("protocol", "frontend", "steps"),
    [
        ("bytes", "virtio-port", [("start/device-vm/a-dvm", "reconnect")]),
        (
            "9p",
            "9p-port",
            [("stop/client/a", "restart"), ("start/device-vm/a-dvm", "none"), ("start/client/a", "none")],
        ),
    ],
)
def test_a_port_goes_on_by_itself_and_a_tree_is_mounted_anew(
    protocol: str, frontend: str, steps: list[tuple[str, str]]
) -> None:
    kind = replace(SERIAL, name="k", protocol=protocol, frontends=(frontend,))
    vmm = ModelVmm()
    wanted = topology(client("a", Device("p", "k")), classes=(kind,))
    vmm.apply(wanted)
    vmm.domains["a-dvm"] = replace(vmm.domains["a-dvm"], active=False, active_spec=None)
    assert [(step.id, step.effect.value) for step in vmm.apply(wanted).steps] == steps
    assert vmm.plan(wanted).steps == ()


def test_an_update_that_was_interrupted_is_done_again() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk()), device_vms=(SHARED,)))
    old = vmm.domains["storage"]
    wanted = topology(client("a", disk()), client("b", ENTROPY), device_vms=(SHARED,))
    plan = vmm.plan(wanted)
    new = next(spec for spec in plan.domains if spec.name == "storage")
    vmm.domains["storage"] = replace(old, spec=new, active_spec=old.spec)
    assert "update/device-vm/storage" in actions(vmm.apply(wanted))
    assert vmm.plan(wanted).steps == ()


def test_a_device_vm_that_was_started_and_never_seen_to_answer_is_waited_for() -> None:
    vmm = ModelVmm()
    wanted = topology(client("a", disk()))
    vmm.apply(wanted)
    vmm.domains["a-dvm"] = replace(vmm.domains["a-dvm"], ready=False)
    assert actions(vmm.apply(wanted)) == ["start/device-vm/a-dvm"]
    assert vmm.plan(wanted).steps == ()


def test_drift_is_put_right_without_disturbing_anybody() -> None:
    vmm = ModelVmm()
    wanted = topology(client("a", disk()))
    vmm.apply(wanted)
    vmm.domains["a-dvm"] = replace(vmm.domains["a-dvm"], drift=("memory is 1, declared 2",))
    plan = vmm.plan(wanted)
    assert [(step.id, step.effect, step.reason) for step in plan.steps] == [
        ("define/device-vm/a-dvm", Effect.NONE, "memory is 1, declared 2")
    ]


def test_stores_are_created_before_their_device_vm_and_deleted_only_when_told() -> None:
    vmm = ModelVmm()
    kept = replace(disk(), store=Store("file", 64 * MIB, "/data/a.raw"), memory=0)
    plan = vmm.apply(topology(client("a", kept)))
    assert actions(plan)[0] == "create/store/a/data"
    assert "create/store/a/data" in next(step for step in plan.steps if step.id == "define/device-vm/a-dvm").after
    gone = Intent("default", prune=True)
    assert not any(step.action is Action.DELETE for step in vmm.plan(topology(), gone).steps)
    told = vmm.apply(topology(), replace(gone, delete_data=True))
    assert actions(told)[-1] == "delete/store/a/data"


def test_data_of_a_client_that_leaves_a_shared_device_vm_is_deleted_when_told() -> None:
    vmm = ModelVmm()
    kept = replace(disk(), store=Store("file", 64 * MIB, "/data/a.raw"), memory=0)
    vmm.apply(topology(client("a", kept), client("b", ENTROPY), device_vms=(SHARED,)))
    told = Intent("default", remove=frozenset("a"), delete_data=True)
    plan = vmm.plan(topology(device_vms=(SHARED,)), told)
    assert actions(plan)[-2:] == ["update/device-vm/storage", "delete/store/a/data"]


def test_what_can_be_placed_is_planned_beside_what_cannot() -> None:
    greedy = class_("greedy", resources=(core(99),))
    plan = ModelVmm().plan(topology(client("a", disk_of("greedy")), client("b", disk()), classes=(DISK, greedy)))
    assert [item.client for item in plan.unplaced] == ["a"]
    assert {step.name for step in plan.steps} == {"b", "b-dvm"}


def test_a_running_client_is_not_removed_because_it_can_no_longer_be_placed() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk())))
    plan = vmm.plan(topology(client("a", disk(), ENTROPY), classes=(DISK, replace(RNG, resources=(core(99),)))))
    assert [item.device for item in plan.unplaced] == ["data", "entropy"]
    assert not any(step.action in (Action.STOP, Action.UNDEFINE) for step in plan.steps)


def stored(name: str, path: str) -> Device:
    """A disk with a file."""
    return Device(name, "disk", {"size": "64MiB"}, store=Store("file", 64 * MIB, path))


def test_data_that_a_renamed_client_goes_on_using_is_not_deleted() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", stored("data", "/x.raw"))))
    plan = vmm.plan(topology(client("webc", stored("data", "/x.raw"))), Intent("default", prune=True, delete_data=True))
    assert "create/store/webc/data" in actions(plan)
    assert not any(step.action is Action.DELETE for step in plan.steps)


def test_storage_that_another_owner_writes_is_refused() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", stored("data", "/x.raw"))), Intent("theirs"))
    plan = vmm.plan(topology(client("mine", stored("data", "/x.raw"))))
    assert plan.steps == ()
    assert plan.unplaced[0].reasons == ("its storage /x.raw is in use by web/data of owner theirs",)


def test_a_device_that_moves_is_let_go_of_before_it_is_taken_over_and_its_old_device_vm_goes_last() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", stored("data", "/x.raw"))))
    plan = vmm.apply(topology(client("web", stored("data", "/x.raw")), device_vms=(SHARED,)))
    steps = {step.id: step for step in plan.steps}
    assert "stop/device-vm/web-dvm" in steps["define/device-vm/storage"].after
    assert "start/client/web" in steps["undefine/device-vm/web-dvm"].after
    assert vmm.plan(topology(client("web", stored("data", "/x.raw")), device_vms=(SHARED,))).steps == ()


def test_content_without_a_store_that_is_lost_is_told() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", disk())))
    plan = vmm.plan(topology(client("web", disk()), device_vms=(SHARED,)))
    assert "web/data has no store: what is on it is lost" in plan.warnings


def test_names_that_read_the_same_do_not_put_trust_domains_together() -> None:
    clients = (
        client("a-b", replace(disk(), name="c"), trust_domain="red"),
        client("a", replace(disk(), name="b-c"), trust_domain="blue"),
    )
    plan = ModelVmm().plan(topology(*clients, device_vms=(DeviceVM("d", Serves(), ShareScope.DEVICE),)))
    assert {allocation.serves for allocation in plan.allocations} == {("a/b-c",), ("a-b/c",)}


def test_a_client_with_the_name_of_a_device_vm_of_ours_is_refused() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", disk())))
    plan = vmm.plan(topology(client("web", disk()), client("web-dvm", disk())))
    assert [(item.client, item.reasons) for item in plan.unplaced] == [
        ("web-dvm", ("a device VM of this owner's has this name",))
    ]


def test_a_declared_device_vm_may_be_renamed_to_a_part_of_its_name() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk()), device_vms=(replace(SHARED, name="pool-1"),)))
    vmm.apply(topology(client("a", disk()), device_vms=(replace(SHARED, name="pool"),)))
    assert sorted(vmm.domains) == ["a", "pool"]


def test_resources_that_are_declared_later_are_given_and_the_restart_is_told() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", disk()), device_vms=(SHARED,)))
    plan = vmm.apply(topology(client("a", disk()), device_vms=(replace(SHARED, resources=(core(),)),)))
    assert plan.allocations[0].unit == "core"
    assert plan.allocations[0].reasons[0].startswith("it could not stay: it has CPU 0 as thread")
    assert Effect.RESTART in {step.effect for step in plan.steps}


def test_fewer_devices_a_device_vm_move_the_others_out() -> None:
    vmm = ModelVmm()
    wanted = [client(name, disk()) for name in "abc"]
    vmm.apply(topology(*wanted, device_vms=(SHARED,)))
    plan = vmm.apply(topology(*wanted, device_vms=(replace(SHARED, max_devices=2),)))
    assert [allocation.serves for allocation in plan.allocations] == [("a/data", "b/data"), ("c/data",)]


def test_a_class_with_a_larger_base_does_not_make_a_running_device_vm_restart() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("a", ENTROPY), device_vms=(SHARED,)))
    plan = vmm.plan(topology(client("a", ENTROPY), client("b", disk()), device_vms=(SHARED,)))
    assert [allocation.device_vm for allocation in plan.allocations] == ["storage", "storage-2"]
