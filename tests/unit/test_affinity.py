"""Which clients are on one host, and which devices in one device VM."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devicevm.manifest.topology import Boot, Client, ClientVM, Device, DeviceVM, PlacementStrategy, Serves, ShareScope
from devicevm.planner.plan import Plan
from world import GIB, ModelVmm, client, disk, host, topology

FLEET = tuple(host(f"h{number}", cores=2, threads=1, memory=2 * GIB) for number in (1, 2, 3))
WEB, DB = {"app": "web"}, {"app": "db"}
BOTH = list(PlacementStrategy)


def made(name: str, app: str, memory: int = GIB // 8, **rules: object) -> Client:
    return client(name, disk(), labels={"app": app}, vm=ClientVM(1, memory, Boot(guest_image="client")), **rules)


def on(plan: Plan) -> dict[str, str]:
    """The host of every client."""
    return {spec.name: spec.host for spec in plan.domains if spec.attachments}


def groups(plan: Plan) -> list[tuple[str, ...]]:
    return sorted(allocation.serves for allocation in plan.allocations)


@pytest.mark.parametrize("placement", BOTH)
def test_clients_that_keep_apart_are_on_hosts_of_their_own(placement: PlacementStrategy) -> None:
    webs = [made(f"web-{number}", "web", anti_affinity=WEB) for number in (1, 2, 3)]
    wanted = topology(*webs, placement=placement)
    assert on(ModelVmm(*FLEET).plan(wanted)) == {"web-1": "h1", "web-2": "h2", "web-3": "h3"}


def test_one_more_than_there_are_hosts_is_told_by_whose_fault() -> None:
    webs = [made(f"web-{number}", "web", anti_affinity=WEB) for number in (1, 2, 3, 4)]
    (left,) = ModelVmm(*FLEET).plan(topology(*webs)).unplaced
    assert left.client == "web-4"
    assert left.reasons == tuple(f"h{number}: web-4 may not be where web-{number} is" for number in (1, 2, 3))


def test_the_other_side_keeps_away_as_well() -> None:
    """As in Kubernetes: who says nothing is kept from the host of one that wants nobody of its kind."""
    wanted = topology(made("a", "db", anti_affinity=WEB), made("b", "web"))
    assert on(ModelVmm(*FLEET).plan(wanted)) == {"a": "h1", "b": "h2"}


@pytest.mark.parametrize("placement", BOTH)
def test_a_client_goes_where_the_one_is_that_it_wants_near(placement: PlacementStrategy) -> None:
    wanted = topology(made("db", "db"), made("web", "web", affinity=DB), placement=placement)
    places = on(ModelVmm(*FLEET).plan(wanted))
    assert places["web"] == places["db"]


def test_the_host_has_room_for_both_though_another_would_take_one() -> None:
    small = host("h0", memory=GIB)
    wanted = topology(made("db", "db"), made("web", "web", GIB, affinity=DB))
    assert on(ModelVmm(small, *FLEET).plan(wanted)) == {"db": "h1", "web": "h1"}


def test_what_runs_is_followed_and_stays() -> None:
    vmm = ModelVmm(*FLEET)
    db = made("db", "db", host="h2")
    vmm.apply(topology(db))
    plan = vmm.apply(topology(db, made("web", "web", affinity=DB)))
    assert on(plan) == {"web": "h2"}
    assert all(not step.affects for step in plan.steps)


def test_at_least_one_of_several_is_enough() -> None:
    dbs = [made(f"db-{number}", "db", anti_affinity=DB) for number in (1, 2)]
    webs = [made(f"web-{number}", "web", GIB // 2 + GIB // 8, affinity=DB) for number in (1, 2, 3)]
    places = on(ModelVmm(*FLEET).plan(topology(*dbs, *webs)))
    assert {places["db-1"], places["db-2"]} == {"h1", "h2"}
    assert {places[web.name] for web in webs} == {"h1", "h2"}


def test_those_of_one_kind_that_want_each_other_are_together() -> None:
    webs = [made(f"web-{number}", "web", GIB // 4, affinity=WEB) for number in (1, 2, 3)]
    assert set(on(ModelVmm(*FLEET).plan(topology(*webs, placement=PlacementStrategy.SPREAD))).values()) == {"h1"}
    assert on(ModelVmm(*FLEET).plan(topology(webs[0]))) == {"web-1": "h1"}, "the first of its kind waits for nobody"


def test_two_that_want_each_other_are_together_or_told_together() -> None:
    one, other = made("a", "web", GIB, affinity=DB), made("b", "db", affinity=WEB)
    assert on(ModelVmm(*FLEET).plan(topology(one, other))) == {"a": "h1", "b": "h1"}
    large = replace(other, vm=replace(other.vm, memory=GIB))
    plan = ModelVmm(*FLEET).plan(topology(one, large))
    assert {item.client for item in plan.unplaced} == {"a", "b"}
    assert any("memory: 1GiB asked" in reason for item in plan.unplaced for reason in item.reasons)


def test_nobody_to_be_near_to_is_told() -> None:
    (item,) = ModelVmm(host()).plan(topology(made("web", "web", affinity=DB))).unplaced
    assert item.reasons == ("h1: web is to be where a client with app=db is, and there is no other such client",)


def test_who_cannot_follow_does_not_keep_the_other_out() -> None:
    plan = ModelVmm(*FLEET).plan(topology(made("db", "db"), made("web", "web", 4 * GIB, affinity=DB)))
    assert {item.client for item in plan.unplaced} == {"web"}
    assert on(plan) == {"db": "h1"}


def test_a_contradiction_is_told_with_names() -> None:
    one, other = made("a", "web", affinity=DB), made("b", "db", anti_affinity=WEB)
    items = ModelVmm(*FLEET).plan(topology(one, other)).unplaced
    assert {item.client for item in items} == {"a"}
    assert items[0].reasons == (
        "h1: a may not be where b is",
        "h2: a is to be where a client with app=db is (b), and none is here",
        "h3: a is to be where a client with app=db is (b), and none is here",
    )


def test_a_rule_that_comes_later_moves_nobody_and_is_told() -> None:
    vmm = ModelVmm(*FLEET)
    pair = made("a", "web"), made("b", "web")
    vmm.apply(topology(*pair))
    plan = vmm.plan(topology(*(replace(one, anti_affinity=WEB) for one in pair)))
    assert {item.client for item in plan.unplaced} >= {"b"}
    assert plan.steps == ()


def test_who_may_not_be_on_one_host_shares_no_device_vm() -> None:
    webs = [made(f"web-{number}", "web", anti_affinity=WEB) for number in (1, 2)]
    plan = ModelVmm(*FLEET).plan(topology(*webs, device_vms=(DeviceVM("storage", Serves()),)))
    assert groups(plan) == [("web-1/data",), ("web-2/data",)]
    assert on(plan) == {"web-1": "h1", "web-2": "h2"}


# Sharing of device VMs


def three(**share: object) -> list[tuple[str, ...]]:
    """Who shares, of three clients with two kinds of device each."""
    people = [
        client(name, disk(), Device("gps", "serial"), labels={"tier": tier})
        for name, tier in (("a", "front"), ("b", "front"), ("c", "back"))
    ]
    declared = DeviceVM("shared", Serves(), **share)  # type: ignore[arg-type]
    wanted = topology(*people, device_vms=(declared,))
    vmm = ModelVmm(host())
    plan = vmm.apply(wanted)
    assert vmm.plan(wanted).steps == ()
    return groups(plan)


def test_only_clients_with_the_same_label_share() -> None:
    assert three(same_labels=("tier",)) == [("a/data", "a/gps", "b/data", "b/gps"), ("c/data", "c/gps")]


def test_classes_that_are_not_together() -> None:
    assert three(classes_apart=("disk", "serial")) == [("a/data", "b/data", "c/data"), ("a/gps", "b/gps", "c/gps")]
    assert three(classes_apart=("disk", "rng")) == [("a/data", "a/gps", "b/data", "b/gps", "c/data", "c/gps")]


def test_clients_that_are_not_together() -> None:
    assert three(clients_apart={"tier": "front"}, scope=ShareScope.HOST) == [
        ("a/data", "a/gps", "c/data", "c/gps"),
        ("b/data", "b/gps"),
    ]


def test_a_newcomer_joins_no_device_vm_that_it_is_kept_from() -> None:
    vmm = ModelVmm(host())
    declared = DeviceVM("shared", Serves(), classes_apart=("disk", "serial"))
    vmm.apply(topology(client("a", disk()), device_vms=(declared,)))
    plan = vmm.apply(topology(client("a", disk()), client("b", Device("gps", "serial")), device_vms=(declared,)))
    assert groups(plan) == [("a/data",), ("b/gps",)]
    assert all(not step.affects for step in plan.steps)
