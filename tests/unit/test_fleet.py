"""Which of many hosts is taken, and why not the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from devicevm.domain import DomainSpec
from devicevm.inventory.host import Holding, Host
from devicevm.manifest.topology import (
    Boot,
    Client,
    ClientVM,
    DeviceVM,
    HostPolicy,
    PlacementStrategy,
    ResourceRequest,
    Serves,
    Start,
    Topology,
)
from devicevm.planner.plan import Plan
from world import GIB, ME, MIB, ModelVmm, class_, client, disk, host, topology

FLEET = tuple(host(f"h{number}", cores=2, threads=1, memory=2 * GIB) for number in (1, 2, 3))

GUEST = Boot(guest_image="client")


def on(plan: Plan) -> dict[str, str]:
    """The host of every domain."""
    return {spec.name: spec.host for spec in plan.domains}


def plan_of(wanted: Topology, hosts: tuple[Host, ...] = FLEET) -> Plan:
    return ModelVmm(*hosts).plan(wanted)


def clients(count: int) -> list[Client]:
    return [client(f"c{number}", disk()) for number in range(count)]


def test_pack_fills_the_first_host_and_leaves_the_last_empty() -> None:
    plan = plan_of(topology(*clients(4)))
    assert Counter(on(plan).values()) == {"h1": 8}


def test_spread_takes_the_host_with_the_most_left() -> None:
    plan = plan_of(replace(topology(*clients(6)), placement=PlacementStrategy.SPREAD))
    assert Counter(on(plan).values()) == {"h1": 4, "h2": 4, "h3": 4}
    assert on(plan)["c0"] == on(plan)["c0-dvm"]


def test_what_does_not_fit_one_host_goes_to_the_next() -> None:
    wide = [replace(client(f"c{number}", disk()), vm=ClientVM(1, GIB, GUEST)) for number in range(4)]
    plan = plan_of(topology(*wide))
    assert Counter(on(plan).values()) == {"h1": 2, "h2": 2, "h3": 2}
    (left,) = {item.client for item in plan.unplaced}
    assert left == "c3"
    assert [reason.split(":")[0] for reason in plan.unplaced[0].reasons] == ["h1", "h2", "h3"]
    assert "memory: 1GiB asked" in plan.unplaced[0].reasons[0]


def test_selectors_match_the_labels_of_hosts() -> None:
    policies = (HostPolicy("h1"), HostPolicy("h2", labels={"rack": "b"}), HostPolicy("h3", labels={"rack": "c"}))
    chosen = replace(client("c", disk()), host_labels={"rack": "c"})
    assert on(plan_of(topology(chosen, hosts=policies))) == {"c": "h3", "c-dvm": "h3"}
    nowhere = replace(chosen, host_labels={"rack": "x"})
    assert plan_of(topology(nowhere, hosts=policies)).unplaced[0].reasons == (
        "h1: its label rack is not set, x is asked for",
        "h2: its label rack is b, x is asked for",
        "h3: its label rack is c, x is asked for",
    )
    declared = DeviceVM("storage", Serves(), host_labels={"rack": "b"})
    assert set(on(plan_of(topology(client("c", disk()), device_vms=(declared,), hosts=policies))).values()) == {"h2"}


def test_trust_domains_have_hosts_of_their_own() -> None:
    policies = (HostPolicy("h1", trust_domains=("red",)), HostPolicy("h2", trust_domains=("default", "red")))
    plan = plan_of(topology(client("a", disk()), client("r", disk(), trust_domain="red"), hosts=policies), FLEET[:2])
    assert on(plan) == {"a": "h2", "a-dvm": "h2", "r": "h1", "r-dvm": "h1"}
    plan = plan_of(topology(client("b", disk(), trust_domain="blue"), hosts=policies), FLEET[:2])
    assert plan.unplaced[0].reasons[0] == "h1: it is not for trust domain blue"


def test_nothing_new_comes_to_a_host_in_maintenance_and_nothing_leaves_it() -> None:
    vmm = ModelVmm(*FLEET)
    vmm.apply(topology(client("a", disk())))
    resting = (HostPolicy("h1", maintenance=True),)
    plan = vmm.apply(topology(client("a", disk()), client("b", disk()), hosts=resting))
    assert {domain.name: domain.spec.host for domain in vmm.observe() if domain.spec} == {
        "a": "h1",
        "a-dvm": "h1",
        "b": "h2",
        "b-dvm": "h2",
    }
    assert all(step.name.startswith("b") for step in plan.steps)
    only = ModelVmm(FLEET[0]).plan(topology(client("b", disk()), hosts=resting))
    assert only.unplaced[0].reasons == ("h1: it is in maintenance",)


def test_a_host_that_is_not_there_is_told() -> None:
    plan = plan_of(topology(replace(client("a", disk()), host="h9")))
    assert plan.unplaced[0].reasons == ("h9: there is no such host",)


def test_one_for_each_host_where_those_that_share_are_on_several() -> None:
    shared = DeviceVM("storage", Serves())
    pair = (replace(client("a", disk()), host="h1"), replace(client("b", disk()), host="h2"))
    vmm = ModelVmm(*FLEET)
    plan = vmm.apply(topology(*pair, device_vms=(shared,)))
    assert plan.unplaced == ()
    assert on(plan) == {"a": "h1", "storage": "h1", "b": "h2", "storage-2": "h2"}
    # Who comes later is with those on its host.
    third = replace(client("c", disk()), host="h2")
    more = vmm.plan(topology(*pair, third, device_vms=(shared,)))
    assert {step.id for step in more.steps if step.kind == "device-vm"} == {"update/device-vm/storage-2"}


def test_those_that_no_host_takes_together_are_parted() -> None:
    shared = DeviceVM("storage", Serves())
    big = [replace(one, vm=ClientVM(1, 800 * MIB, GUEST)) for one in clients(4)]
    vmm = ModelVmm(*FLEET[:2])
    wanted = topology(*big, device_vms=(shared,))
    plan = vmm.apply(wanted)
    assert plan.unplaced == ()
    assert Counter(on(plan).values()) == {"h1": 3, "h2": 3}
    assert vmm.plan(wanted).steps == ()


SHARED = DeviceVM("storage", Serves())


@pytest.mark.parametrize(
    "newcomer",
    [
        replace(client("b", disk()), vm=ClientVM(1, 100 * GIB, GUEST)),
        client("b", disk(), host_labels={"rack": "1"}),
        replace(client("b", disk()), vm=ClientVM(1, 128 * MIB, GUEST, start=Start.REQUEST)),
    ],
    ids=["memory", "labels", "on request"],
)
def test_a_newcomer_that_has_no_place_takes_nobody_along(newcomer: Client) -> None:
    a = client("a", disk())
    vmm = ModelVmm(FLEET[0])
    first = vmm.plan(topology(a, newcomer, device_vms=(SHARED,)))
    assert {item.client for item in first.unplaced} == {"b"}
    assert on(first) == {"a": "h1", "storage": "h1"}
    vmm.apply(topology(a, device_vms=(SHARED,)))
    assert vmm.plan(topology(a, newcomer, device_vms=(SHARED,))).steps == ()
    changed = vmm.plan(topology(replace(a, devices=(disk(), disk("more"))), newcomer, device_vms=(SHARED,)))
    assert {item.client for item in changed.unplaced} == {"b"}
    assert "update/device-vm/storage" in {step.id for step in changed.steps}


def test_whoever_is_near_its_clients_is_not_joined_by_others() -> None:
    near = ResourceRequest("thread", 1, True, {"near": "sibling"})
    shared = replace(SHARED, resources=((near,), (ResourceRequest("thread"),)))
    a = client("a", disk())
    a = replace(a, vm=replace(a.vm, cpus=ResourceRequest("thread", 1, True)))
    vmm = ModelVmm(host(cores=4, threads=2))
    vmm.apply(topology(a, device_vms=(shared,)))
    plan = vmm.plan(topology(a, client("b", disk()), device_vms=(shared,)))
    assert {step.name for step in plan.steps} == {"b", "storage-2"}
    # But by its own client's.
    more = replace(a, devices=(disk(), disk("more")))
    assert "update/device-vm/storage" in {step.id for step in vmm.plan(topology(more, device_vms=(shared,))).steps}


def test_adding_a_client_moves_nothing() -> None:
    for strategy in PlacementStrategy:
        vmm = ModelVmm(*FLEET)
        vmm.apply(replace(topology(*clients(3)), placement=strategy))
        before = dict(vmm.domains)
        plan = vmm.apply(replace(topology(*clients(4)), placement=strategy))
        assert {step.name for step in plan.steps} == {"c3", "c3-dvm"}
        assert {name: vmm.domains[name] for name in before} == before
        assert vmm.plan(replace(topology(*clients(4)), placement=strategy), ME).steps == ()


def test_what_fits_nowhere_is_told_with_host_and_node_and_the_one_wish_that_it_takes() -> None:
    """On h1 there is room beside others; on h3 each node has a core too few, and so has the whole of it."""
    shared = Holding("web", "u1", True, 2, GIB, (0, 1), False)
    alone = Holding("db", "u2", True, 1, GIB, (0,), False, dedicated=True)
    fleet = (
        host("h1", cores=2, threads=1, holdings=(shared,)),
        host("h3", cores=1, threads=1, sockets=2, holdings=(alone,)),
    )

    def asked(*requests: ResourceRequest) -> tuple[str, ...]:
        wanted = topology(
            client("a", replace(disk(), class_="picky")), classes=(class_("picky", resources=(requests,)),)
        )
        (item,) = ModelVmm(*fleet).plan(wanted).unplaced
        return item.reasons

    assert asked(ResourceRequest("core", 2, True, {"numaNode": "one"})) == (
        "h1: a-dvm: 2 cores on one NUMA node: NUMA node 0: 2 cores asked, 0 free",
        "h3: a-dvm: 2 cores on one NUMA node: NUMA node 0: 2 cores asked, 0 free; NUMA node 1: 2 cores asked, 1 free",
        "nearest for a-dvm: 1 instead of 2 of core would fit on h3",
    )
    fleet = fleet[:1]
    assert asked(ResourceRequest("thread", 2, True)) == (
        "h1: a-dvm: 2 dedicated threads: 2 threads asked, 0 free: 0-1 shared by web",
        "nearest for a-dvm: giving up dedicated of thread would fit on h1",
    )


def test_clients_that_are_not_declared_are_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def compared(count: int) -> int:
        vmm = ModelVmm(host(cores=8, memory=64 * GIB))
        vmm.apply(topology(*clients(count)))
        times = 0
        equal = DomainSpec.__eq__

        def counted(one: DomainSpec, other: object) -> bool:
            nonlocal times
            times += 1
            return equal(one, other)

        with monkeypatch.context() as patch:
            patch.setattr(DomainSpec, "__eq__", counted)
            assert vmm.plan(topology(client("new", disk()))).changes == 4
        return times

    assert compared(40) <= 5 * compared(10)
