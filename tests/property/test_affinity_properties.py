"""What clients say about their neighbours holds in every plan, whatever else is declared."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from devicevm.inventory.host import Host
from devicevm.manifest.topology import Client, DeviceVM, PlacementStrategy, Serves, ShareScope, Topology
from devicevm.planner.planner import make_plan
from devicevm.record import canonical_json
from hypothesis import given, settings
from hypothesis import strategies as st
from world import GIB, ME, ModelVmm, client, disk, host, topology

APPS = ("web", "db", "log")


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Host, ...]:
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    return tuple(host(f"h{number}", cores=2, threads=1, memory=size * GIB) for number, size in enumerate(sizes))


def rules() -> st.SearchStrategy[dict[str, str]]:
    return st.sampled_from([{}, {}, *({"app": app} for app in APPS)])


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    people: list[Client] = []
    for name in sorted(draw(st.sets(st.sampled_from("abcdefg"), max_size=7))):
        one = client(name, disk(), labels={"app": draw(st.sampled_from(APPS))})
        memory = draw(st.sampled_from([GIB // 8, GIB // 2]))
        rule = {"affinity": draw(rules()), "anti_affinity": draw(rules())}
        people.append(replace(one, vm=replace(one.vm, memory=memory), **rule))
    apart = draw(rules())
    share = DeviceVM("s", Serves(match_labels={"app": "web"}), draw(st.sampled_from(list(ShareScope))))
    declared = draw(st.sampled_from([(), (replace(share, clients_apart=apart),)]))
    return topology(*people, device_vms=declared, placement=draw(st.sampled_from(list(PlacementStrategy))))


def matches(labels: dict[str, str], one: Client) -> bool:
    return all(one.labels.get(key) == value for key, value in labels.items())


def check(vmm: ModelVmm, wanted: Topology, left_out: frozenset[str] = frozenset()) -> None:
    there = {one.name: one for one in wanted.clients if one.name in vmm.domains and one.name not in left_out}
    places = {name: domain.spec.host for name, domain in vmm.domains.items() if domain.spec}
    for one in there.values():
        others = [other for other in wanted.clients if other.name in places and other is not one]
        beside = [other for other in others if places[other.name] == places[one.name]]
        if one.anti_affinity:
            assert not [other.name for other in beside if matches(one.anti_affinity, other)]
        if one.affinity and any(matches(one.affinity, other) for other in others):
            assert any(matches(one.affinity, other) for other in beside)
        elif one.affinity:
            assert matches(one.affinity, one), "nobody is there that it wants near, and it is none of them itself"
    for device_vm in wanted.device_vms:
        for domain in vmm.observe():
            served = {emulator.client for emulator in domain.spec.emulators} if domain.spec else set()
            for one, other in combinations(sorted(served & there.keys()), 2):
                apart = device_vm.clients_apart
                assert not apart or not (matches(apart, there[one]) and matches(apart, there[other]))


@given(fleets(), topologies())
@settings(max_examples=200, deadline=None)
def test_rules_are_never_violated_and_a_second_plan_is_empty(fleet: tuple[Host, ...], wanted: Topology) -> None:
    vmm = ModelVmm(*fleet)
    plan = vmm.apply(wanted)
    check(vmm, wanted)
    out = {item.client for item in plan.unplaced}
    assert {one.name for one in wanted.clients} == out | {one.name for one in wanted.clients if one.name in vmm.domains}
    assert plan.unplaced or vmm.plan(wanted).steps == ()


@given(fleets(), topologies())
@settings(max_examples=60, deadline=None)
def test_the_order_of_labels_does_not_matter(fleet: tuple[Host, ...], wanted: Topology) -> None:
    turned = replace(
        wanted,
        clients=tuple(replace(one, labels={"zone": "x", **one.labels}) for one in wanted.clients),
    )
    again = replace(
        wanted,
        clients=tuple(replace(one, labels={**one.labels, "zone": "x"}) for one in wanted.clients),
    )
    assert canonical_json(make_plan(turned, fleet, (), ME)) == canonical_json(make_plan(again, fleet, (), ME))


@given(fleets(), topologies(), topologies())
@settings(max_examples=150, deadline=None)
def test_rules_hold_for_what_comes_to_what_runs(fleet: tuple[Host, ...], first: Topology, second: Topology) -> None:
    vmm = ModelVmm(*fleet)
    vmm.apply(first)
    before = {name: domain.spec.host for name, domain in vmm.domains.items() if domain.spec}
    plan = vmm.apply(second)
    after = {name: domain.spec.host for name, domain in vmm.domains.items() if domain.spec}
    assert {name: place for name, place in after.items() if name in before}.items() <= before.items()
    check(vmm, second, frozenset(item.client for item in plan.unplaced))
    assert plan.unplaced or vmm.plan(second).steps == ()
