"""Clients whose device VMs come up with them: what a plan does for them, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

from devicevm.inventory.supports import GUESTS, LIVE_DEVICES, ON_REQUEST, STORES
from devicevm.manifest.topology import Client, DeviceVM, Serves, Start, Topology
from devicevm.planner.plan import Effect
from world import ModelVmm, client, disk, host, topology

SHARED = DeviceVM("storage", Serves())


def vmm() -> ModelVmm:
    return ModelVmm(host(supports=(GUESTS, LIVE_DEVICES, STORES, ON_REQUEST)))


def asking(name: str, *disks: str) -> Client:
    made = client(name, *(disk(one) for one in disks or ("data",)))
    return replace(made, vm=replace(made.vm, start=Start.REQUEST))


def steps(model: ModelVmm, wanted: Topology) -> list[str]:
    """The steps to what is wanted, which are then taken."""
    return [step.id for step in model.apply(wanted).steps]


def started(model: ModelVmm, *names: str) -> None:
    """Somebody has started these."""
    for name in names:
        there = model.domains[name]
        model.domains[name] = replace(there, active=True, active_spec=there.spec)


def test_a_client_on_request_is_defined_with_its_device_vm_and_neither_is_started() -> None:
    model, wanted = vmm(), topology(asking("web"))
    assert steps(model, wanted) == ["define/device-vm/web-dvm", "define/client/web"]
    assert steps(model, wanted) == []


def test_running_or_not_is_no_difference() -> None:
    model, wanted = vmm(), topology(asking("web"))
    model.apply(wanted)
    started(model, "web-dvm")
    assert steps(model, wanted) == []
    started(model, "web")
    assert steps(model, wanted) == []


def test_what_runs_is_changed_as_ever() -> None:
    model = vmm()
    model.apply(topology(asking("web")))
    started(model, "web-dvm", "web")
    assert "start/client/web" in steps(model, topology(asking("web", "data", "more")))
    assert model.domains["web"].active


def test_a_device_vm_that_waits_is_changed_without_being_started() -> None:
    model = vmm()
    model.apply(topology(asking("web")))
    assert not [key for key in steps(model, topology(asking("web", "data", "more"))) if key.startswith("start/")]


def test_a_running_client_s_device_vm_that_has_died_is_started() -> None:
    model, wanted = vmm(), topology(asking("web"))
    model.apply(wanted)
    started(model, "web")
    assert "start/device-vm/web-dvm" in steps(model, wanted)


def test_a_device_vm_that_serves_one_who_does_not_ask_runs_always() -> None:
    model = vmm()
    wanted = topology(asking("a"), client("b", disk()), device_vms=(SHARED,))
    found = steps(model, wanted)
    assert [key for key in found if key.startswith("start/")] == ["start/device-vm/storage", "start/client/b"]
    assert model.domains["storage"].spec is not None and model.domains["storage"].spec.start is Start.APPLY


def test_who_starts_it_changes_while_it_runs() -> None:
    model = vmm()
    model.apply(topology(client("web", disk())))
    plan = model.apply(topology(asking("web")))
    assert {step.id: step.effect for step in plan.steps} == {
        "update/device-vm/web-dvm": Effect.LIVE,
        "update/client/web": Effect.LIVE,
    }
    assert all("start" in step.reason for step in plan.steps)
    assert steps(model, topology(asking("web"))) == []


def test_where_nothing_starts_device_vms_on_request_it_is_refused_with_the_way_out() -> None:
    plan = ModelVmm().plan(topology(asking("web")))
    assert plan.steps == ()
    (item,) = plan.unplaced
    assert "on request" in item.reasons[0] and "devicevm manager install" in item.reasons[0]


def by_itself(name: str, autostart: bool | None) -> Client:
    made = client(name, disk())
    return replace(made, vm=replace(made.vm, autostart=autostart))


def test_a_client_that_starts_with_the_host_is_started_by_apply_as_well() -> None:
    model, wanted = vmm(), topology(by_itself("web", True))
    assert "start/client/web" in steps(model, wanted)
    assert model.domains["web"].spec is not None and model.domains["web"].spec.autostart is True
    assert steps(model, wanted) == []


def test_whether_it_starts_with_the_host_changes_while_it_runs() -> None:
    model = vmm()
    model.apply(topology(by_itself("web", None)))
    for wanted in (True, False, True, None):
        plan = model.apply(topology(by_itself("web", wanted)))
        assert [(step.id, step.effect) for step in plan.steps] == [("update/client/web", Effect.LIVE)]
        assert "autostart" in plan.steps[0].reason and plan.steps[0].affects == ("web",)


def test_what_somebody_else_has_set_is_put_right_without_a_restart() -> None:
    model, wanted = vmm(), topology(by_itself("web", True))
    model.apply(wanted)
    model.domains["web"] = replace(model.domains["web"], drift=("autostart is off, declared on",))
    plan = model.plan(wanted)
    assert [(step.id, step.reason) for step in plan.steps] == [("define/client/web", "autostart is off, declared on")]
    assert plan.steps[0].effect is Effect.NONE


def test_where_nothing_brings_its_device_vms_up_before_it_starting_with_the_host_is_refused() -> None:
    (item,) = ModelVmm().plan(topology(by_itself("web", True))).unplaced
    assert "with the host" in item.reasons[0] and "devicevm manager install" in item.reasons[0]
    for harmless in (False, None):
        assert not ModelVmm().plan(topology(by_itself("web", harmless))).unplaced
