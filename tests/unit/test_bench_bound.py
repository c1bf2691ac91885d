"""The model that says how many clients fit at most (bench/bound.py), against cases whose answer is known."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

pytest.importorskip("ortools", reason="OR-Tools is not installed: pip install 'devicevm[bench]'")

from devicevm.domain import CpuPlacement, DomainSpec, Role
from devicevm.manifest.topology import Boot, Client, ClientVM, Device, HostPolicy
from devicevm.planner.planner import Intent, make_plan

from bench.bound import Demand, Room, demand_of, examine, excess, first_fit, fits, most_that_fit, place, room_of
from bench.fleets import CLASSES, GIB, MIB, SCARCE, make_fleet, make_host

ROOM = Room(cores=4, threads_per_core=2, memory=4 * GIB, overcommit=2.0)


@pytest.mark.parametrize(
    ("demands", "rooms", "most"),
    [
        pytest.param([Demand(GIB, 0)] * 5, [ROOM], 4, id="memory"),
        pytest.param([Demand(3 * GIB, 0), Demand(3 * GIB, 0), Demand(GIB, 0)], [ROOM, ROOM], 3, id="two hosts"),
        pytest.param([Demand(3 * GIB, 0)] * 3, [ROOM, ROOM], 2, id="none is split over hosts"),
        pytest.param([Demand(0, 0, cores=1)] * 5, [ROOM], 4, id="cores"),
        pytest.param([Demand(0, 0, threads=3)] * 3, [ROOM], 2, id="threads"),
        pytest.param([Demand(0, 0, threads=1)] * 3 + [Demand(0, 0, cores=3)], [ROOM], 3, id="threads break cores"),
        pytest.param([Demand(0, 0, cores=3), Demand(0, 0, threads=2)], [ROOM], 2, id="threads beside cores"),
        pytest.param([Demand(0, 0, shared=1, widest=1)] * 17, [ROOM], 16, id="shared CPUs by overcommit"),
        pytest.param(
            [Demand(0, 0, cores=4), Demand(0, 0, shared=1, widest=1)], [ROOM], 1, id="a shared one needs a CPU"
        ),
        pytest.param([Demand(0, 0, threads=7), Demand(0, 0, shared=2, widest=2)], [ROOM], 1, id="different CPUs"),
        pytest.param([Demand(0, 4)] * 5, [ROOM], 4, id="floating by overcommit"),
        pytest.param([Demand(0, 4)] * 3 + [Demand(0, 0, cores=2)], [ROOM], 3, id="what is alone is not shared"),
        pytest.param([Demand(0, 1)] * 7, [Room(1, 4, 0, 1.5)], 6, id="fractions of overcommit"),
        pytest.param([Demand(0, 0, shared=1, widest=1)] * 5, [Room(1, 4, 0, 1.5)], 4, id="a vCPU is pinned whole"),
    ],
)
def test_most_that_fit(demands: list[Demand], rooms: list[Room], most: int) -> None:
    assert most_that_fit(demands, rooms) == most


def test_first_fit_is_not_the_optimum() -> None:
    large, small = Demand(3 * GIB, 0), Demand(2 * GIB, 0)
    assert first_fit([large, small, small], [ROOM]) == 1
    assert first_fit([small, small, large], [ROOM]) == most_that_fit([large, small, small], [ROOM]) == 2


@pytest.mark.parametrize("seed", range(20))
def test_what_fits_one_host_is_what_the_solver_says(seed: int) -> None:
    draw = Random(seed)  # noqa: S311
    room = Room(draw.choice((1, 2, 4)), draw.choice((1, 2)), 4 * GIB, draw.choice((1.0, 1.5, 2.0)))
    demands = [
        Demand(
            GIB * draw.randint(0, 2), *(draw.choice((0, 0, 1)) for _ in range(3)), shared=2, widest=draw.randint(1, 2)
        )
        for _ in range(draw.randint(1, 3))
    ]
    assert fits(demands, room) is (most_that_fit(demands, [room]) == len(demands))


def _lies_on(cpus: list[list[str]], room: Room, asked: list[tuple[str, int]]) -> bool:
    """Whether device VMs can be laid on the CPUs of a host one by one: every way is tried."""
    if not asked:
        return True
    (kind, count), rest = asked[0], asked[1:]
    per = room.threads_per_core
    if kind == "core":
        choices = [
            [core * per + thread for thread in range(per)]
            for core in range(room.cores)
            if not any(cpus[core * per + thread] for thread in range(per))
        ]
    elif kind == "thread":
        choices = [[number] for number, held in enumerate(cpus) if not held]
    else:
        free = [n for n, held in enumerate(cpus) if "alone" not in held and len(held) + 1 <= room.overcommit]
        choices = [list(pair) for pair in product(free, repeat=count) if len(set(pair)) == count]
    for chosen in choices:
        for number in chosen:
            cpus[number].append("shared" if kind == "shared" else "alone")
        found = _lies_on(cpus, room, rest)
        for number in chosen:
            cpus[number].pop()
        if found:
            return True
    return False


@pytest.mark.parametrize("seed", range(12))
def test_cpus_need_no_numbers(seed: int) -> None:
    """The model counts CPUs; laying every device VM on CPUs that are named comes to the same."""
    draw = Random(seed)  # noqa: S311
    room = Room(draw.choice((1, 2)), 2, GIB, draw.choice((1.0, 2.0)))
    kinds = [("core", 1), ("thread", 1), ("shared", 1), ("shared", 2)]
    picked = [draw.choice(kinds) for _ in range(5)]
    best = max(
        sum(subset)
        for subset in product((0, 1), repeat=len(picked))
        if _lies_on(
            [[] for _ in range(room.cores * 2)], room, [one for one, on in zip(picked, subset, strict=True) if on]
        )
    )
    demands = [
        Demand(
            0,
            0,
            cores=count if kind == "core" else 0,
            threads=count if kind == "thread" else 0,
            shared=count if kind == "shared" else 0,
            widest=count if kind == "shared" else 0,
        )
        for kind, count in picked
    ]
    assert most_that_fit(demands, [room]) == best


def test_demand_is_what_the_planner_books() -> None:
    """Memory and processors of the plan's domains are those that the model counts."""
    fleet = make_fleet(3, hosts=30, clients=20, shape=SCARCE)
    classes = {one.name: one for one in fleet.topology.classes}
    plan = make_plan(fleet.topology, fleet.hosts, (), Intent("default"))
    placed = [spec.name for spec in plan.domains if spec.role is Role.CLIENT]
    assert len(placed) > 10
    hosts = {host.name: host for host in fleet.hosts}
    for client in fleet.topology.clients:
        if client.name not in placed:
            continue
        demand = demand_of(client, classes)
        served = {spec.name: spec for spec in plan.domains if any(e.client == client.name for e in spec.emulators)}
        own = next(spec for spec in plan.domains if spec.name == client.name)
        assert demand.memory == own.memory + sum(spec.memory for spec in served.values())
        per_core = len(hosts[own.host].cpus[0].siblings)
        alone = sum(spec.vcpus for spec in served.values() if spec.placement.dedicated)
        assert alone == demand.cores * per_core + demand.threads
        assert demand.shared == sum(spec.vcpus for spec in served.values()) - alone


def test_the_planner_is_not_better_than_the_optimum() -> None:
    for seed in range(6):
        outcome = examine(seed)
        assert not outcome.broken
        assert outcome.placed <= outcome.optimum


def test_room_and_demand() -> None:
    host = make_host("h", sockets=2, cores=4, threads=2, memory=8 * GIB)
    assert room_of(host, HostPolicy("h", cpu_overcommit=3.0)) == Room(8, 2, 8 * GIB, 3.0)
    classes = {one.name: one for one in CLASSES}
    devices = tuple(Device(f"d{n}", name) for n, name in enumerate(("shared", "shared", "thread-two", "whole-core")))
    client = Client("c", ClientVM(2, GIB, Boot()), devices)
    # 96 + 2 * 8 is 112: rounded up to 128; 128 + 32 is 160; 192 + 64 is 256.
    assert demand_of(client, classes) == Demand(GIB + (128 + 160 + 256) * MIB, 2, 1, 2, 1, 1)


def test_excess_is_seen() -> None:
    host = make_host("h", sockets=1, cores=2, threads=1, memory=GIB)
    policy = HostPolicy("h", cpu_overcommit=2.0)

    def domain(vcpus: int, memory: int, *cpus: int, dedicated: bool = False) -> DomainSpec:
        placement = CpuPlacement(tuple((cpu,) for cpu in cpus), dedicated=dedicated)
        return DomainSpec("d", "", Role.DEVICE_VM, "o", "h", vcpus, memory, "tcg", "x86_64", "pc", Boot(), placement)

    assert excess(host, policy, [domain(1, GIB, 0), domain(3, 0)]) == []
    assert excess(host, policy, [domain(1, 2 * GIB, 0)]) == ["memory"]
    assert excess(host, policy, [domain(1, 0, 0)] * 3) == ["a shared CPU's vCPUs"]
    assert excess(host, policy, [domain(5, 0)]) == ["vCPUs on the shared CPUs together"]
    alone = "a CPU that somebody has to himself is another's, too"
    assert alone in excess(host, policy, [domain(1, 0, 0), domain(1, 0, 0, dedicated=True)])


def test_a_roomy_fleet_is_placed_whole() -> None:
    fleet = make_fleet(1, hosts=10, clients=20)
    assert place(fleet) == (20, ())
