"""Moving what runs: only where that is better, as little as it takes, and with its price told."""

from __future__ import annotations

from dataclasses import replace

from devicevm.inventory.host import Holding
from devicevm.manifest.topology import (
    Boot,
    Client,
    ClientVM,
    Device,
    DeviceVM,
    HostPolicy,
    PlacementStrategy,
    Serves,
    Store,
    Topology,
)
from devicevm.planner.plan import Effect, Plan, Rebalance
from devicevm.planner.planner import Intent
from devicevm.planner.rebalance import TRIALS, fewest
from world import GIB, MIB, ModelVmm, class_, client, core, disk, host, thread, topology

MOVE = Intent("default", rebalance=True)
ENTROPY = Device("entropy", "rng")
FLEET = tuple(host(f"h{number}", cores=2, threads=1, memory=2 * GIB) for number in (1, 2, 3))
BEST = class_("best", resources=(core(), thread()))
CLASSES = (*topology().classes, BEST)


def made(name: str, *devices: Device, memory: int = 128 * MIB, **changes: object) -> Client:
    return client(name, *(devices or (ENTROPY,)), vm=ClientVM(1, memory, Boot(guest_image="client")), **changes)


def stored(name: str = "data", class_name: str = "disk") -> Device:
    return replace(disk(name), class_=class_name, memory=0, store=Store("file", MIB, f"/srv/{name}"))


def gained(plan: Plan) -> Rebalance:
    assert plan.rebalance is not None
    return plan.rebalance


def places(vmm: ModelVmm) -> dict[str, str]:
    return {name: domain.spec.host for name, domain in vmm.domains.items() if domain.spec}


def rebalanced(vmm: ModelVmm, wanted: Topology) -> Plan:
    """The plan, carried out; a second one moves nothing."""
    plan = vmm.apply(wanted, MOVE)
    again = vmm.plan(wanted, MOVE)
    assert again.steps == ()
    assert gained(again).gains == gained(again).moves == ()
    return plan


def test_without_it_nothing_is_told_and_nothing_moves() -> None:
    vmm = ModelVmm(*FLEET)
    vmm.apply(topology(made("a"), made("b", host="h2")))
    plan = vmm.plan(topology(made("a"), made("b")))
    assert (plan.steps, plan.rebalance) == ((), None)


def test_packing_frees_a_host() -> None:
    vmm = ModelVmm(*FLEET)
    vmm.apply(topology(made("a"), made("b", host="h2")))
    plan = rebalanced(vmm, topology(made("a"), made("b")))
    assert set(places(vmm).values()) == {"h1"}
    told = gained(plan)
    assert told.gains == ("hosts in use: 2 -> 1",)
    assert told.moves == ("b-dvm: h2, CPU 0 -> h1, CPU 1", "b: h2 -> h1")
    assert (told.clients, told.without) == (("b",), {})
    assert told.steps["replace"] == 1
    (stop,) = [step for step in plan.steps if step.id == "stop/client/b"]
    assert (stop.effect, stop.affects) == (Effect.REPLACE, ("b",))


def test_spreading_evens_out() -> None:
    vmm = ModelVmm(*FLEET)
    people = [made(f"c{number}", memory=256 * MIB, host="h1") for number in range(3)]
    vmm.apply(topology(*people))
    free = topology(*(replace(one, host="") for one in people), placement=PlacementStrategy.SPREAD)
    plan = rebalanced(vmm, free)
    assert {places(vmm)[one.name] for one in people} == {"h1", "h2", "h3"}
    assert len([move for move in gained(plan).moves if "-dvm" not in move]) == 2, "one of them may stay"


def test_room_is_made_for_who_has_none() -> None:
    """Two small ones on two hosts leave no host whole."""
    vmm = ModelVmm(*FLEET[:2])
    small = [made("a", memory=256 * MIB), made("b", memory=256 * MIB, host="h2")]
    vmm.apply(topology(*small))
    large = made("large", memory=2 * GIB - 256 * MIB)
    wanted = topology(*(replace(one, host="") for one in small), large)
    assert {item.client for item in vmm.plan(wanted).unplaced} == {"large"}
    plan = rebalanced(vmm, wanted)
    assert plan.unplaced == ()
    assert gained(plan).gains[0] == "clients that cannot be placed: 1 -> 0"


WHOLE = class_("whole", resources=(core(),))
SHARED = class_("shared", resources=(thread(),))


def test_threads_that_can_be_shared_are_put_together_for_a_whole_core() -> None:
    """Storage keeps them on their host, and one by one they would be where they are: it takes a search."""
    vmm = ModelVmm(host(cores=2, threads=1))
    old = [made(name, stored(name, "shared")) for name in "ab"]
    vmm.apply(topology(*old, classes=(SHARED, WHOLE)))
    wanted = topology(*old, made("new", replace(disk(), class_="whole")), classes=(SHARED, WHOLE))
    assert {item.client for item in vmm.plan(wanted).unplaced} == {"new"}
    plan = rebalanced(vmm, wanted)
    assert plan.unplaced == ()
    assert len(gained(plan).moves) == 1
    assert gained(plan).clients == () and gained(plan).steps["live"] == 1


def test_who_runs_counts_more_than_all_who_are_new() -> None:
    """Without one of those that run there would be room for two more: but they run."""
    vmm = ModelVmm(host(cores=2, threads=1, memory=2 * GIB))
    old = [made(name, stored(name, "shared"), memory=560 * MIB) for name in "yz"]
    vmm.apply(topology(*old, classes=(SHARED, WHOLE)))
    new = [made(name, memory=256 * MIB) for name in "abc"]
    wanted = topology(*old, *new, made("new", replace(disk(), class_="whole")), classes=(*CLASSES, SHARED, WHOLE))
    assert "new" in {item.client for item in vmm.plan(wanted).unplaced}
    plan = rebalanced(vmm, wanted)
    assert {item.client for item in plan.unplaced} == {"b", "c"}
    assert "new" in places(vmm)


def test_a_better_alternative_is_taken_when_it_is_free_again() -> None:
    held = Holding("db", "u", True, 1, GIB, (0, 1), False)
    vmm = ModelVmm(host(cores=2, threads=1, holdings=(held,)))
    wanted = topology(made("a", stored(class_name="best")), classes=CLASSES)
    vmm.apply(wanted)
    vmm.hosts = (host(cores=2, threads=1),)
    assert vmm.plan(wanted).steps == ()
    plan = rebalanced(vmm, wanted)
    assert gained(plan).gains == ("better alternatives not had: 1 -> 0",)
    assert gained(plan).clients == (), "other pins are had while it runs"
    assert [step.effect for step in plan.steps] == [Effect.LIVE]
    assert plan.allocations[0].unit == "core"


def test_content_that_would_be_lost_stays_and_is_told() -> None:
    held = Holding("db", "u", True, 1, GIB, (0, 1), False)
    vmm = ModelVmm(host(cores=2, threads=1, holdings=(held,)))
    wanted = topology(made("a", replace(disk(), class_="best")), classes=CLASSES)
    vmm.apply(wanted)
    vmm.hosts = (host(cores=2, threads=1),)
    plan = vmm.plan(wanted, MOVE)
    assert plan.steps == ()
    assert gained(plan).held == ("a-dvm stays: a/data has no store, and what is on it would be lost",)


def test_storage_stays_on_its_host() -> None:
    vmm = ModelVmm(*FLEET)
    vmm.apply(topology(made("a"), made("b", stored(), host="h2")))
    assert rebalanced(vmm, topology(made("b", stored()), made("a"))).steps != ()
    assert set(places(vmm).values()) == {"h2"}, "a goes where b must be"


def test_a_host_in_maintenance_is_left() -> None:
    vmm = ModelVmm(*FLEET)
    vmm.apply(topology(made("a")))
    wanted = topology(made("a"), hosts=(HostPolicy("h1", maintenance=True),))
    assert vmm.plan(wanted).steps == ()
    plan = rebalanced(vmm, wanted)
    assert gained(plan).gains == ("clients on hosts in maintenance: 1 -> 0",)
    assert set(places(vmm).values()) == {"h2"}


def test_trust_domains_are_parted() -> None:
    vmm = ModelVmm(host(cores=2, threads=1))
    people = made("a", trust_domain="red"), made("b", trust_domain="red"), made("c", trust_domain="blue")
    vmm.apply(topology(*people, hosts=(HostPolicy("h1", share_across_trust_domains=True),)))
    plan = rebalanced(vmm, topology(*people))
    assert gained(plan).gains == ("pairs that share a core across trust domains: 1 -> 0",)
    assert len(gained(plan).moves) == 1
    assert plan.warnings == ()


def test_who_runs_is_not_left_out_for_another() -> None:
    vmm = ModelVmm(host(cores=1, threads=1, memory=GIB))
    vmm.apply(topology(made("z", memory=512 * MIB)))
    plan = vmm.plan(topology(made("z", memory=512 * MIB), made("a", memory=512 * MIB)), MOVE)
    assert {item.client for item in plan.unplaced} == {"a"}
    assert plan.steps == ()


def test_clients_that_are_not_declared_stay() -> None:
    vmm = ModelVmm(*FLEET)
    shared = DeviceVM("s", Serves())
    vmm.apply(topology(made("a", host="h2"), made("b"), device_vms=(shared,)))
    plan = vmm.plan(topology(made("b"), device_vms=(shared,)), MOVE)
    assert plan.steps == ()
    assert gained(plan).held == ("s stays: it serves a, which is not declared or stays as it is",)


def test_as_few_as_are_enough() -> None:
    names = [f"{number:02}" for number in range(20)]
    tried: list[frozenset[str]] = []

    def enough(some: frozenset[str]) -> bool:
        tried.append(some)
        return {"03", "17"} <= some

    assert fewest(names, [], enough) == {"03", "17"}
    assert len(tried) <= TRIALS
    assert fewest([], [], enough) == frozenset()
    assert fewest(["a", "b"], ["c"], lambda some: bool(some & {"c"})) == {"c"}
