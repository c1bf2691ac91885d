"""A fleet's device VMs placed one after the other, by devicevm and by OpenStack Nova's calls."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from devicevm.inventory.host import Host
from devicevm.manifest.topology import Boot, Client, ClientVM, Device, HostPolicy, ResourceRequest, Topology
from devicevm.planner.arrange import arrange
from devicevm.planner.component import components_of
from devicevm.planner.grouping import group
from devicevm.planner.placement import Placement
from devicevm.planner.planner import Intent, make_plan
from devicevm.planner.requests import wants_of

from .fleets import GIB, MIB, make_class, make_host
from .measuring import Comparison, Series
from .nova_objects import BOOKING, SEED, TARGET, nova, nova_answer, nova_host, nova_instance
from .stage import OWNER

FLEET_HOSTS, FLEET_VMS, FLEET_RUNS = 50, 500, 15


def fleet() -> list[Comparison]:
    """Microseconds a device VM when many are placed on many hosts, several times each, in turns."""
    draw = Random(SEED)  # noqa: S311
    hosts = tuple(make_host(f"host-{number:03}", 2, 8, 2, 64 * GIB) for number in range(FLEET_HOSTS))
    asked = [(draw.choice((1, 1, 2)), 32 * MIB * draw.choice((4, 8, 16))) for _ in range(FLEET_VMS)]
    topology = _fleet_topology(asked)
    placing, plans, theirs = [], [], []
    for _ in range(FLEET_RUNS):
        with _collector_at_rest():
            placing.append(_our_placing(topology, hosts) / FLEET_VMS * 1e6)
            theirs.append(_nova_fleet(hosts, asked) / FLEET_VMS * 1e6)
        begun = time.perf_counter()
        plan = make_plan(topology, hosts, (), Intent(OWNER))
        plans.append((time.perf_counter() - begun) / FLEET_VMS * 1e6)
        if plan.unplaced:
            raise AssertionError(f"the fleet has room for all: {plan.unplaced[0]}")
    where = f"one of {FLEET_VMS} device VMs on {FLEET_HOSTS} hosts"
    return [
        Comparison(f"{what}: {where}", "us", Series(tuple(mine)), Series(tuple(theirs)), BOOKING, TARGET)
        for what, mine in (("placing alone", placing), ("a whole plan", plans))
    ]


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Python's collector of circles kept from running, as `make_plan` does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _fleet_topology(asked: list[tuple[int, int]]) -> Topology:
    """A client with one device for each of these, CPUs and memory of its device VM."""
    classes = {one: make_class(f"c-{one[0]}-{one[1] // MIB}", _fleet_request(one[0]), one[1], 0) for one in set(asked)}
    clients = tuple(
        Client(
            f"client-{number:04}", ClientVM(0, 0, Boot(guest_image="client")), (Device("device", classes[one].name),)
        )
        for number, one in enumerate(asked)
    )
    return Topology(clients, classes=tuple(classes.values()))


def _our_placing(topology: Topology, hosts: tuple[Host, ...]) -> float:
    """Seconds of the arrangement alone, from the device VMs that there are to be to where each one is booked."""
    wants = wants_of(topology)
    classes = {one.name: one.resources for one in topology.classes}
    units = group(wants, (), {}, frozenset(), lambda name: True, True, classes)
    components = components_of(topology.clients, units)
    placement = Placement(hosts, {}, OWNER, {})
    by_client = {want.client.name: [want] for want in wants}
    begun = time.perf_counter()
    arranged = arrange(placement, components, by_client)
    taken = time.perf_counter() - begun
    if arranged.refused or len(arranged.placed) != len(components):
        raise AssertionError("the fleet has room for all")
    return taken


def _fleet_request(count: int) -> tuple[tuple[ResourceRequest, ...], ...]:
    return ((ResourceRequest("thread", count, True, {"numaNode": "one"}),),)


def _nova_fleet(hosts: tuple[Host, ...], asked: list[tuple[int, int]]) -> float:
    """Seconds of Nova's calls for each instance on the first host that has room, what is booked included."""
    places = [nova_host(host, HostPolicy(host.name)) for host in hosts]
    total = 0.0
    for count, memory in asked:
        instance = nova_instance(count, "prefer", memory, False)
        begun = time.perf_counter()
        for number, place in enumerate(places):
            if fitted := nova_answer(place, instance):
                places[number] = nova().hardware.numa_usage_from_instance_numa(place, fitted)
                break
        else:
            raise AssertionError("the fleet has room for all")
        total += time.perf_counter() - begun
    return total
