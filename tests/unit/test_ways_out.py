"""What runs where it may not be any more stays, and its user is told the ways out."""

from __future__ import annotations

from dataclasses import replace

from devicevm.manifest.topology import Client, Device, HostPolicy, Topology
from devicevm.planner.planner import Intent
from world import GIB, ModelVmm, client, disk, host, topology

FLEET = tuple(host(f"h{number}", cores=2, threads=1, memory=2 * GIB) for number in (1, 2))
MOVE = Intent("default", rebalance=True)
ENTROPY = Device("entropy", "rng")
PRICED = ": 'devicevm plan --rebalance' tells what that moves, and who feels it"


def reasons(first: Topology, second: Topology) -> tuple[str, ...]:
    """Why the one client has no place; following the advice to rebalance helps, if there is any."""
    vmm = ModelVmm(*FLEET)
    vmm.apply(first)
    plan = vmm.plan(second)
    assert plan.steps == ()
    told = plan.unplaced[0].reasons
    advised = any("--rebalance" in reason for reason in told)
    moved = vmm.apply(second, MOVE)
    assert advised == (moved.unplaced == ())
    return told


def web(**changes: object) -> Client:
    return client("web", ENTROPY, **changes)


def test_a_label_that_is_gone() -> None:
    chosen = web(host_labels={"rack": "a"})
    racks = (HostPolicy("h1", labels={"rack": "a"}), HostPolicy("h2", labels={"rack": "b"}))
    turned = (HostPolicy("h1", labels={"rack": "b"}), HostPolicy("h2", labels={"rack": "a"}))
    assert reasons(topology(chosen, hosts=racks), topology(chosen, hosts=turned)) == (
        "h1: its label rack is b, a is asked for",
        "web, web-dvm on h1 stays as it is; it may go on there if Host h1 has label rack=a",
        "--rebalance finds a place for it on h2" + PRICED,
    )


def test_a_label_that_no_host_has() -> None:
    chosen = web(host_labels={"rack": "a"})
    racks = (HostPolicy("h1", labels={"rack": "a"}),)
    assert reasons(topology(chosen, hosts=racks), topology(chosen)) == (
        "h1: its label rack is not set, a is asked for",
        "web, web-dvm on h1 stays as it is; it may go on there if Host h1 has label rack=a",
    )


def test_a_trust_domain_that_the_host_is_not_for_any_more() -> None:
    red = web(trust_domain="red")
    assert reasons(topology(red), topology(red, hosts=(HostPolicy("h1", trust_domains=("blue",)),))) == (
        "h1: it is not for trust domain red",
        "web, web-dvm on h1 stays as it is; it may go on there if Host h1 has red among its trustDomains",
        "--rebalance finds a place for it on h2" + PRICED,
    )


def test_another_host_that_is_asked_for() -> None:
    assert reasons(topology(web()), topology(web(host="h2"))) == (
        "h1: web is to be on h2",
        "web, web-dvm on h1 stays as it is; it may go on there if host says h1, not h2",
        "--rebalance finds a place for it on h2" + PRICED,
    )


def test_a_neighbour_that_it_may_not_have_any_more() -> None:
    pair = web(labels={"app": "web"}), client("app", ENTROPY, labels={"app": "web"})
    apart = [replace(one, anti_affinity={"app": "web"}) for one in pair]
    told = reasons(topology(*pair), topology(*apart))
    assert told == ("h1: app may not be where web is", "--rebalance finds a place for it on h1" + PRICED)


def test_content_that_cannot_move_is_not_advised_to() -> None:
    kept = client("web", disk(), trust_domain="red")
    told = reasons(topology(kept), topology(kept, hosts=(HostPolicy("h1", trust_domains=("blue",)),)))
    assert not any("--rebalance" in reason for reason in told)


def test_room_that_moving_would_make_is_told() -> None:
    vmm = ModelVmm(host(cores=2, threads=1))
    people = [client(name, ENTROPY, trust_domain="red") for name in "ab"]
    vmm.apply(topology(*people))
    wanted = topology(*people, client("c", ENTROPY, trust_domain="blue"))
    (item,) = vmm.plan(wanted).unplaced
    assert item.reasons[-1] == "--rebalance finds a place for it on h1" + PRICED
    assert vmm.apply(wanted, MOVE).unplaced == ()
