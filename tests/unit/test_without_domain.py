"""Clients whose device VMs are there and whose domain is not: undefined by somebody, or never made."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devicevm.manifest.topology import Store, Topology
from devicevm.planner.plan import Action, Plan
from devicevm.planner.planner import Intent, removal
from world import ME, MIB, ModelVmm, class_, client, core, disk, host, thread, topology

DELETE = Intent("default", delete_data=True)
PRUNE = Intent("default", prune=True, delete_data=True)


def stored(name: str, path: str, **store: str) -> Topology:
    """A client with one disk on a file."""
    device = replace(disk(), memory=0, store=Store("file", MIB, path, **store))  # type: ignore[arg-type]
    return topology(client(name, device))


WEB, OTHER = stored("web", "/web.img"), stored("other", "/other.img")
BOTH = topology(*WEB.clients, *OTHER.clients)


def undefined() -> ModelVmm:
    """Somebody has undefined web by hand."""
    vmm = ModelVmm()
    vmm.apply(BOTH)
    del vmm.domains["web"]
    return vmm


def unreadable() -> ModelVmm:
    """Somebody has spoilt what web's domain says of itself."""
    vmm = ModelVmm()
    vmm.apply(BOTH)
    vmm.domains["web"] = replace(vmm.domains["web"], spec=None, active_spec=None, broken="no specification")
    return vmm


def interrupted() -> ModelVmm:
    """An apply ended before web's domain was defined."""
    vmm = ModelVmm()
    vmm.apply(OTHER)
    plan = vmm.plan(BOTH)
    ids = [step.id for step in plan.steps]
    vmm.carry_out(replace(plan, steps=plan.steps[: ids.index("define/client/web")]))
    assert sorted(vmm.domains) == ["other", "other-dvm", "web-dvm"]
    return vmm


def touched(plan: Plan) -> set[str]:
    return {step.name for step in plan.steps}


CASES = pytest.mark.parametrize(
    "vmm", [undefined(), unreadable(), interrupted()], ids=["gone", "broken", "interrupted"]
)


@CASES
def test_what_serves_it_and_its_data_stay_when_others_are_applied_or_destroyed(vmm: ModelVmm) -> None:
    assert vmm.plan(OTHER).steps == ()
    for intent in (ME, DELETE):
        left, removing = removal(OTHER, intent)
        plan = vmm.plan(left, removing)
        assert touched(plan) <= {"other", "other-dvm", "other/data"}
        deleted = [step.name for step in plan.steps if step.action is Action.DELETE]
        assert deleted == (["other/data"] if intent.delete_data else [])


@CASES
def test_its_storage_is_in_use(vmm: ModelVmm) -> None:
    plan = vmm.plan(topology(*OTHER.clients, *stored("shop", "/web.img").clients))
    assert [(one.client, one.reasons) for one in plan.unplaced] == [
        ("shop", ("its storage /web.img is in use by web/data, which is not declared here: --prune removes it",))
    ]


@CASES
@pytest.mark.parametrize("prune", [True, False])
def test_it_goes_when_it_is_to_go(vmm: ModelVmm, prune: bool) -> None:
    plan = vmm.plan(OTHER, PRUNE) if prune else vmm.plan(*removal(WEB, DELETE))
    ids = [step.id for step in plan.steps]
    assert [one for one in ids if "web-dvm" in one] == ["stop/device-vm/web-dvm", "undefine/device-vm/web-dvm"]
    assert ids[-1] == "delete/store/web/data"
    assert not touched(plan) & {"other", "other-dvm", "other/data"}


def test_it_comes_back_when_it_is_declared() -> None:
    for vmm in (undefined(), interrupted()):
        vmm.apply(BOTH)
        assert {name for name, one in vmm.domains.items() if one.active} == {"web", "web-dvm", "other", "other-dvm"}
        assert vmm.plan(BOTH).steps == ()


def test_what_serves_it_and_its_data_stay_when_it_has_no_place() -> None:
    greedy = class_("greedy", resources=(core(99),))
    (web,) = WEB.clients
    more = replace(web, devices=(*web.devices, replace(disk("more"), class_="greedy")))
    plan = undefined().plan(topology(more, *OTHER.clients, classes=(class_(), greedy)), PRUNE)
    assert {one.client for one in plan.unplaced} == {"web"}
    assert plan.steps == ()


@pytest.mark.parametrize(("made", "declared"), [("delete", "retain"), ("retain", "delete")])
def test_what_is_retained_now_or_was_when_it_was_made_is_not_deleted(made: str, declared: str) -> None:
    vmm = ModelVmm()
    vmm.apply(stored("web", "/web.img", reclaim=made))
    plan = vmm.plan(*removal(stored("web", "/web.img", reclaim=declared), DELETE))
    assert [step.id for step in plan.steps][-1] == "undefine/device-vm/web-dvm"
    assert not [step for step in plan.steps if step.action is Action.DELETE]


def test_nobody_of_another_trust_domain_comes_on_the_cores_of_what_serves_it() -> None:
    own = class_("own", resources=(thread(dedicated=True),))
    fixed = replace(disk(), class_="own")
    vmm = ModelVmm(host(cores=2))
    vmm.apply(topology(client("web", fixed, trust_domain="red"), classes=(own,)))
    there = vmm.domains["web-dvm"].spec
    del vmm.domains["web"]
    plan = vmm.plan(topology(client("shop", fixed, trust_domain="blue"), classes=(own,)))
    (made,) = [spec for spec in plan.domains if spec.name == "shop-dvm"]
    core_of = {cpu.id: cpu.core for cpu in vmm.hosts[0].cpus}
    cores = [{core_of[cpu] for pin in spec.placement.vcpus for cpu in pin} for spec in (there, made) if spec]
    assert len(cores) == 2
    assert cores[0].isdisjoint(cores[1])
