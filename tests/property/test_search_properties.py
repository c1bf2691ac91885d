"""What can be placed at all is placed: against every way of putting small components on small hosts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from devicevm.inventory.host import Holding, Host
from devicevm.manifest.topology import (
    Boot,
    Client,
    ClientVM,
    Device,
    DeviceClass,
    DeviceVM,
    HostPolicy,
    PlacementStrategy,
    Program,
    ResourceRequest,
    Serves,
    ShareScope,
    Topology,
)
from devicevm.planner.plan import Plan
from devicevm.planner.planner import make_plan
from devicevm.record import canonical_json
from hypothesis import given, settings
from hypothesis import strategies as st
from world import ME, MIB, class_, core, host, thread, topology

STEP = 32 * MIB
"""Device VMs are sized in such steps; clients here, too."""
ISOLATED = (ResourceRequest("thread", 1, True, {"smt": "isolate"}),)
SIBLINGS = (ResourceRequest("thread", 2, True, {"smt": "require"}),)
PROCESSOR = (ResourceRequest("processor", 1, True),)
ALTERNATIVES = [
    thread(),
    thread(2),
    thread(dedicated=True),
    thread(2, dedicated=True),
    core(),
    core(2),
    ISOLATED,
    SIBLINGS,
    PROCESSOR,
]
Parts = tuple[list[tuple[tuple[ResourceRequest, ...], ...]], int, int]
"""What each device VM of a client may run on, and the client's virtual CPUs and bytes."""


@dataclass(frozen=True)
class Small:
    """A case."""

    hosts: tuple[Host, ...]
    wanted: Topology
    parts: dict[str, Parts]


@st.composite
def cases(draw: st.DrawFn) -> Small:
    fleet, policies = [], []
    for number in range(draw(st.integers(1, 3))):
        cores, threads, sockets = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2]))
        taken = draw(st.sets(st.integers(0, cores * sockets - 1), max_size=1))
        held = tuple(Holding(f"o{cpu}", "u", True, 1, 0, (cpu,), False, True) for cpu in sorted(taken))
        name = f"h{number}"
        fleet.append(
            host(
                name,
                cores=cores,
                threads=threads,
                sockets=sockets,
                memory=draw(st.integers(2, 14)) * STEP,
                holdings=held,
            )
        )
        policies.append(HostPolicy(name, cpu_overcommit=draw(st.sampled_from([1.0, 2.0, 1.5]))))
    clients, classes, declared, parts = [], [], [], {}
    rules = st.sampled_from([{}, {}, {"app": "x"}, {"app": "y"}] if draw(st.booleans()) else [{}])
    for name in "abcde"[: draw(st.integers(1, 5))]:
        units = []
        for number in range(draw(st.integers(0, 2))):
            some = tuple(draw(st.lists(st.sampled_from(ALTERNATIVES), min_size=1, max_size=3)))
            classes.append(small_class(f"{name}{number}", some))
            units.append(some)
        vcpus, memory = draw(st.integers(1, 2)), draw(st.integers(1, 4)) * STEP
        devices = tuple(Device(f"d{number}", f"{name}{number}") for number in range(len(units)))
        vm, labels = ClientVM(vcpus, memory, Boot(guest_image="client")), {"app": draw(st.sampled_from("xy"))}
        clients.append(Client(name, vm, devices, labels, affinity=draw(rules), anti_affinity=draw(rules)))
        parts[name] = (units, vcpus, memory)
    if classes:
        # Each device in a device VM of its own, or two that ask for the same would share one.
        declared = [DeviceVM("own", Serves(), ShareScope.DEVICE)]
    strategy = draw(st.sampled_from(list(PlacementStrategy)))
    wanted = topology(
        *clients, classes=tuple(classes), hosts=tuple(policies), device_vms=tuple(declared), placement=strategy
    )
    return Small(tuple(fleet), wanted, parts)


def small_class(name: str, resources: tuple[tuple[ResourceRequest, ...], ...]) -> DeviceClass:
    made = class_(name, resources=resources, storage=None, program=Program(("nbdkit", "null"), ready="nbd"))
    return replace(made, memory=replace(made.memory, base=STEP, per_device=0))


def all_fit(small: Small, names: tuple[str, ...]) -> bool:
    """Whether these clients can be on the hosts together: every way is tried."""
    policies = {policy.name: policy for policy in small.wanted.hosts}
    people = [client for client in small.wanted.clients if client.name in names]
    for places in product(small.hosts, repeat=len(people)):
        if agree(people, places) and all(
            held(
                one,
                policies[one.name],
                [small.parts[client.name] for client, at in zip(people, places, strict=True) if at is one],
            )
            for one in set_of(places)
        ):
            return True
    return False


def agree(people: list[Client], places: tuple[Host, ...]) -> bool:
    """Whether everybody has somebody near whom it asks for, or is the only one of its kind, and nobody whom it does not
    want."""
    for one, here in zip(people, places, strict=True):
        others = [(other, place) for other, place in zip(people, places, strict=True) if other is not one]
        if any(place is here and has(one.anti_affinity, other) for other, place in others):
            return False
        wanted = [place for other, place in others if has(one.affinity, other)]
        if one.affinity and here not in wanted and (wanted or not has(one.affinity, one)):
            return False
    return True


def has(labels: dict[str, str], one: Client) -> bool:
    return bool(labels) and labels.items() <= one.labels.items()


def set_of(places: tuple[Host, ...]) -> list[Host]:
    return [one for number, one in enumerate(places) if one not in places[:number]]


def held(one: Host, policy: HostPolicy, parts: list[Parts]) -> bool:
    """Whether one host takes these, on any of their alternatives and any of its processors."""
    units = [unit for some, vcpus, memory in parts for unit in some]
    vcpus = sum(vcpus for some, vcpus, memory in parts)
    memory = sum(memory for some, vcpus, memory in parts) + len(units) * STEP
    return memory <= one.memory and any(
        laid(one, policy, [alternative[0] for alternative in choice], vcpus) for choice in product(*units)
    )


def laid(one: Host, policy: HostPolicy, requests: list[ResourceRequest], vcpus: int) -> bool:
    """The requests counted: what is alone takes whole cores or threads, the rest shares what is left."""
    per = len(one.cpus[0].siblings)
    taken = {cpu for holding in one.holdings for cpu in holding.cpus}
    by_socket = [
        [group for group in sorted({cpu.siblings for cpu in one.cpus if cpu.socket == socket})]
        for socket in sorted({cpu.socket for cpu in one.cpus})
    ]
    whole = sorted(sum(not taken & set(group) for group in groups) for groups in by_socket)
    sizes = [len(groups) for groups in by_socket]
    processors = sum(request.count for request in requests if request.kind == "processor")
    vacant_sockets = [size for size, free in zip(sizes, sorted(whole), strict=True) if free == size]
    if processors > len(vacant_sockets):
        return False
    cores = sum(whole) - processors * sizes[0]
    siblings = [request for request in requests if request.options.get("smt") == "require"]
    if siblings and per == 1:
        return False
    asked = sum(request.count for request in requests if request.kind == "core") + len(siblings)
    alone = sum(request.options.get("smt") == "isolate" for request in requests)
    cores -= asked + alone
    if cores < 0:
        return False
    threads = sum(
        request.count for request in requests if request.dedicated and request.kind == "thread" and not request.options
    )
    left = len(one.cpus) - len(taken) - processors * sizes[0] * per - (asked + alone) * per - threads
    shared = [request.count for request in requests if not request.dedicated]
    most = int(policy.cpu_overcommit)
    if left < max(shared, default=0) or sum(shared) > most * left or threads > 0 > left:
        return False
    return sum(shared) + vcpus <= policy.cpu_overcommit * left


def placed(plan: Plan, small: Small) -> set[str]:
    return {client.name for client in small.wanted.clients} - {item.client for item in plan.unplaced}


@given(cases())
@settings(max_examples=200, deadline=None)
def test_all_are_placed_when_there_is_a_way(small: Small) -> None:
    names = tuple(sorted(small.parts))
    plan = make_plan(small.wanted, small.hosts, (), ME)
    assert (placed(plan, small) == set(names)) == all_fit(small, names)
    assert all_fit(small, tuple(sorted(placed(plan, small))))


@given(cases())
@settings(max_examples=50, deadline=None)
def test_the_order_of_documents_and_hosts_does_not_matter(small: Small) -> None:
    turned = replace(small.wanted, hosts=small.wanted.hosts[::-1], classes=small.wanted.classes[::-1])
    plan = make_plan(small.wanted, small.hosts, (), ME)
    again = make_plan(turned, small.hosts, (), ME)
    assert canonical_json(again) == canonical_json(plan)
