"""What holds for every plan, on hosts and topologies that nobody thought of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from devicevm.apply.check import check_plan
from devicevm.domain import DomainSpec, ObservedDomain, Role
from devicevm.inventory.host import Holding, Host
from devicevm.manifest.topology import (
    Device,
    DeviceVM,
    FloatingDomains,
    HostPolicy,
    PlacementStrategy,
    ResourceRequest,
    Serves,
    ShareScope,
    Topology,
)
from devicevm.planner.book import held_by
from devicevm.planner.plan import Plan
from devicevm.planner.planner import Intent, make_plan
from devicevm.record import canonical_json, from_data, to_data
from hypothesis import given, settings
from hypothesis import strategies as st
from world import DISK, GIB, ME, MIB, RNG, SERIAL, ModelVmm, class_, client, core, disk, host, thread, topology

PAGES = 2 * MIB


def local(kind: str, count: int = 1, **options: Any) -> ResourceRequest:
    """Processors of a device VM's own, on one NUMA node with its memory."""
    return ResourceRequest(kind, count, True, {"numaNode": "one", **options})


ALONE = class_("alone", resources=(core(), thread(2, dedicated=True)))
PAIR = class_("pair", resources=(thread(2),))
ISOLATED = class_("isolated", resources=((local("thread", 2, smt="isolate"),), (local("thread", 2, smt="require"),)))
WHOLE = class_("whole", resources=((local("processor"), ResourceRequest("memory", options={"pageSize": PAGES})),))


def threads(count: int = 1, *, dedicated: bool = False, **options: Any) -> tuple[ResourceRequest, ...]:
    """One alternative: threads, with wishes."""
    return (ResourceRequest("thread", count, dedicated, options),)


BESIDE = class_("beside", resources=(threads(dedicated=True, near="sibling"), threads(near="node"), thread()))
APART = class_("apart", resources=((ResourceRequest("core", 1, True, {"emulator": "own"}),), threads(emulator="vcpus")))
FLOATING = class_("floating", resources=(threads(2, float=True), threads(dedicated=True, emulator="shared"), thread()))
CLASSES = (DISK, RNG, SERIAL, ALONE, PAIR, ISOLATED, WHOLE, BESIDE, APART, FLOATING)
CPUS: list[ResourceRequest | None] = [
    None,
    None,
    threads(dedicated=True)[0],
    threads(dedicated=True, emulator="own", numaNode="one")[0],
    threads(2, dedicated=True, smt="isolate")[0],
    threads(2, emulator="vcpus")[0],
    threads(float=True)[0],
]
KINDS = [class_.name for class_ in CLASSES]


@st.composite
def hosts(draw: st.DrawFn, name: str = "h1") -> Host:
    cores, threads, sockets = draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    cpus = draw(st.sets(st.integers(0, cores * threads - 1), max_size=2))
    held = tuple(Holding(f"other{cpu}", "u", True, 1, MIB, (cpu,), False) for cpu in sorted(cpus))
    held += tuple(
        Holding(f"{name}-{kind}", f"{name}-{kind}", kind != "idle", 1, MIB, owner="x" if kind == "theirs" else "")
        for kind in sorted(draw(st.sets(st.sampled_from(["idle", "roamer", "theirs"]))))
    )
    memory = draw(st.integers(1, 8)) * GIB
    one = host(name, cores=cores, threads=threads, sockets=sockets, memory=memory, holdings=held)
    return replace(one, nodes=tuple(replace(node, huge_pages={str(PAGES): 100}) for node in one.nodes))


def fleets() -> st.SearchStrategy[tuple[Host, ...]]:
    """One to three hosts."""
    names = [["h1"], ["h1", "h2"], ["h1", "h2", "h3"]]
    return st.sampled_from(names).flatmap(lambda some: st.tuples(*(hosts(name) for name in some)))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    clients = []
    for name in draw(st.sets(st.sampled_from("abcdef"), max_size=5)):
        kinds = draw(st.lists(st.sampled_from(KINDS), max_size=4))
        devices = [
            Device(f"d{index}", kind) if kind in ("rng", "serial") else replace(disk(f"d{index}"), class_=kind)
            for index, kind in enumerate(kinds)
        ]
        label = {"tier": draw(st.sampled_from(["front", "back"]))}
        made = client(name, *devices, labels=label, trust_domain=draw(st.sampled_from(["default", "red"])))
        if cpus := draw(st.sampled_from(CPUS)):
            made = replace(made, vm=replace(made.vm, cpus=cpus, vcpus=cpus.count))
        clients.append(made)
    declared = ()
    if draw(st.booleans()):
        serves = Serves(
            classes=tuple(sorted(draw(st.sets(st.sampled_from(["disk", "rng", "alone"]))))),
            match_labels=draw(st.sampled_from([{}, {"tier": "front"}])),
        )
        scope = draw(st.sampled_from(list(ShareScope)))
        declared = (DeviceVM("shared", serves, scope, max_devices=draw(st.integers(1, 4))),)
    reserved = tuple(sorted(draw(st.sets(st.integers(0, 3), max_size=1))))
    policies = (
        HostPolicy(
            "h1",
            reserved_cpus=reserved,
            headroom_memory=draw(st.sampled_from([0, GIB // 2])),
            shared_cpus=tuple(sorted(draw(st.sampled_from([set(), {0, 1}, {1, 2, 5}])) - set(reserved))),
        ),
        HostPolicy("h2", maintenance=draw(st.booleans())),
        HostPolicy("h3", trust_domains=draw(st.sampled_from([(), ("red",)]))),
    )
    floating = draw(st.sampled_from(list(FloatingDomains)))
    policies = tuple(replace(policy, floating_domains=floating) for policy in policies)
    strategy = draw(st.sampled_from(list(PlacementStrategy)))
    return topology(*clients, classes=CLASSES, device_vms=declared, hosts=policies, placement=strategy)


def check_booking(vmm: ModelVmm, wanted: Topology) -> None:
    """Nothing is booked twice, what is reserved stays free, what is dedicated is alone; a channel is on one host."""
    specs = [domain.spec for domain in vmm.observe() if domain.spec]
    for one in vmm.hosts:
        check_host(one, [spec for spec in specs if spec.host == one.name], wanted)
    check_nearness(vmm, {spec.name: spec for spec in specs})
    places = {spec.name: spec.host for spec in specs}
    for spec in specs:
        for attachment in spec.attachments:
            assert places[attachment.device_vm] == spec.host


def check_nearness(vmm: ModelVmm, specs: dict[str, DomainSpec]) -> None:
    """What was asked to be near its clients, and was had so, is on their cores, or on their node."""
    cpus = {(one.name, cpu.id): cpu for one in vmm.hosts for cpu in one.cpus}
    for spec in specs.values():
        if not any(emulator.class_ == "beside" for emulator in spec.emulators):
            continue
        theirs = {
            (spec.host, cpu)
            for name in {emulator.client for emulator in spec.emulators}
            for pin in specs[name].placement.vcpus
            for cpu in pin
        }
        mine = {(spec.host, cpu) for pin in spec.placement.vcpus for cpu in pin}
        if spec.placement.dedicated:
            assert {cpus[key].core for key in mine} <= {cpus[key].core for key in theirs}
            assert not mine & theirs
        elif spec.placement.nodes:
            assert {cpus[key].node for key in mine} == {cpus[key].node for key in theirs}


def roams(spec: DomainSpec) -> bool:
    return spec.role is Role.CLIENT and spec.placement.floats


def check_floating(one: Host, specs: list[DomainSpec], policy: HostPolicy) -> None:
    """Where the policy lets domains be moved, nobody floats over what is dedicated, and else nobody is moved."""
    alone = {cpu for spec in specs if spec.placement.dedicated for cpu in held_by(spec.placement)}
    moving = policy.floating_domains is FloatingDomains.MOVE
    room = tuple(cpu.id for cpu in one.cpus if cpu.id not in alone) if alone and moving else ()
    assert not moving or len(alone) < len(one.cpus) or not any(h.floats and not h.owner for h in one.holdings)
    for held in one.holdings:
        theirs = held.owner or not held.floats
        assert held.moved_to == (() if theirs else room) and bool(held.moved_by) is bool(held.moved_to)
    for spec in specs:
        if room:
            assert spec.placement.vcpus and spec.placement.emulator
            pins = {cpu for pin in (*spec.placement.vcpus, spec.placement.emulator) for cpu in pin}
            assert spec.placement.dedicated or not pins & alone
        else:
            assert not spec.placement.floats


def check_host(one: Host, specs: list[DomainSpec], wanted: Topology) -> None:
    """The same of one host."""
    policy = next(policy for policy in wanted.hosts if policy.name == one.name)
    pinned: dict[int, list[tuple[str, bool]]] = {}
    for held in one.holdings:
        for cpu in held.cpus:
            pinned.setdefault(cpu, []).append((held.domain, held.dedicated))
    for spec in specs:
        for cpu in () if roams(spec) else held_by(spec.placement):
            assert cpu not in policy.reserved_cpus
            assert not policy.shared_cpus or (cpu in policy.shared_cpus) is not spec.placement.dedicated
            pinned.setdefault(cpu, []).append((spec.name, spec.placement.dedicated))
        nodes = {cpu.node for cpu in one.cpus for pin in spec.placement.vcpus if cpu.id in pin}
        assert not spec.placement.nodes or nodes == set(spec.placement.nodes)
        outside = set(spec.placement.emulator) - set(held_by(spec.placement))
        if not spec.placement.floats:
            assert outside <= set(policy.shared_cpus) - set(policy.reserved_cpus)
    for cpu, holders in pinned.items():
        if any(dedicated for _, dedicated in holders):
            assert len(holders) == 1, f"CPU {cpu} is dedicated, and held by {holders}"
    check_floating(one, specs, policy)
    usual = sum(spec.memory for spec in specs if not spec.page_size) + sum(held.memory for held in one.holdings)
    assert usual + sum(PAGES * node.huge_pages[str(PAGES)] for node in one.nodes) <= one.memory
    for node in one.nodes:
        there = [spec for spec in specs if spec.placement.nodes == (node.id,)]
        assert sum(spec.memory for spec in there) <= node.memory
        pages = sum(spec.memory // PAGES for spec in there if spec.page_size == PAGES)
        assert pages <= node.huge_pages[str(PAGES)]


def check_definitions(vmm: ModelVmm) -> None:
    """What does not run has no processor that somebody else has, if one of the two has it alone."""
    holders: dict[tuple[str, int], list[tuple[ObservedDomain, bool]]] = {}
    for domain in vmm.observe():
        for spec in {domain.spec, domain.active_spec} - {None}:
            assert spec is not None
            for cpu in () if roams(spec) else held_by(spec.placement):
                holders.setdefault((spec.host, cpu), []).append((domain, spec.placement.dedicated))
    for key, there in holders.items():
        for domain, dedicated in there:
            others = [(one.name, alone) for one, alone in there if one.name != domain.name]
            clash = others and (dedicated or any(alone for _, alone in others))
            assert domain.active or not clash, f"{key}: {domain.name} and {others}"


@given(fleets(), topologies())
@settings(max_examples=150, deadline=None)
def test_a_plan_gives_what_was_declared_and_a_second_one_nothing(fleet: tuple[Host, ...], wanted: Topology) -> None:
    vmm = ModelVmm(*fleet)
    plan = vmm.apply(wanted)
    check_booking(vmm, wanted)
    out = {item.client for item in plan.unplaced}
    for declared in wanted.clients:
        assert (declared.name in vmm.domains) == (declared.name not in out)
    served = {emulator.id for domain in vmm.observe() if domain.spec for emulator in domain.spec.emulators}
    wants = {f"{c.name}.{d.name}" for c in wanted.clients if c.name not in out for d in c.devices}
    assert served == wants
    again = vmm.plan(wanted)
    assert (again.steps, {item.client for item in again.unplaced}) == ((), out)


@given(fleets(), topologies(), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_what_one_client_cannot_have_is_nothing_to_the_others(
    fleet: tuple[Host, ...], wanted: Topology, number: int
) -> None:
    vmm = ModelVmm(*fleet)
    shared = (DeviceVM("shared", Serves(), ShareScope.HOST),)
    wanted = replace(wanted, classes=(*CLASSES, class_("greedy", resources=(core(99),))), device_vms=shared)
    out = {item.client for item in vmm.apply(wanted).unplaced}
    there = [one for one in wanted.clients if one.name not in out]
    if not there:
        return
    wishing = there[number % len(there)]
    more = replace(wishing, devices=(*wishing.devices, replace(disk("more"), class_="greedy")))
    plan = vmm.plan(replace(wanted, clients=tuple(more if one is wishing else one for one in there)))
    assert (plan.steps, {item.client for item in plan.unplaced}) == ((), {wishing.name})


@given(fleets(), topologies(), topologies())
@settings(max_examples=100, deadline=None)
def test_from_any_state_to_any_other_and_back_to_nothing(
    fleet: tuple[Host, ...], first: Topology, second: Topology
) -> None:
    vmm = ModelVmm(*fleet)
    first = replace(first, hosts=second.hosts)
    vmm.apply(first)
    prune = Intent("default", prune=True)
    observed = vmm.observe()
    plan = vmm.apply(second, prune)
    check_plan(plan, observed)
    check_booking(vmm, second)
    assert plan.unplaced or vmm.plan(second, prune).steps == ()
    vmm.apply(topology(classes=CLASSES, hosts=second.hosts), prune)
    assert vmm.domains == {}


@given(fleets(), topologies())
@settings(max_examples=60, deadline=None)
def test_the_same_input_gives_the_same_bytes_and_they_read_back(fleet: tuple[Host, ...], wanted: Topology) -> None:
    plan = make_plan(wanted, fleet, (), ME)
    again = make_plan(wanted, fleet, (), ME)
    assert canonical_json(plan) == canonical_json(again)
    assert from_data(Plan, to_data(plan)) == plan
    check_plan(plan)


@given(fleets(), topologies())
@settings(max_examples=60, deadline=None)
def test_adding_a_client_disturbs_nobody(fleet: tuple[Host, ...], wanted: Topology) -> None:
    vmm = ModelVmm(*fleet)
    vmm.apply(wanted)
    grown = replace(wanted, clients=tuple(sorted((*wanted.clients, client("zz", disk())), key=lambda c: c.name)))
    plan = vmm.plan(grown)
    assert all(step.affects == () for step in plan.steps)
    assert not any(step.action.value in ("stop", "undefine") for step in plan.steps)


def carry_out_some(vmm: ModelVmm, plan: Plan, steps: int) -> None:
    """Begin to carry out a plan, and stop after so many steps."""
    done: list[str] = []
    for step in plan.steps:
        if len(done) < steps and set(step.after) <= set(done):
            vmm.carry_out(replace(plan, steps=(replace(step, after=()),)))
            done.append(step.id)


@given(fleets(), topologies(), topologies(), st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_an_apply_that_stops_after_any_step_is_finished_by_the_next(
    fleet: tuple[Host, ...], first: Topology, second: Topology, steps: int
) -> None:
    vmm = ModelVmm(*fleet)
    first = replace(first, hosts=second.hosts)
    vmm.apply(first)
    prune = Intent("default", prune=True)
    carry_out_some(vmm, vmm.plan(second, prune), steps)
    last = vmm.apply(second, prune)
    # With something left out nothing is applied, unless asked; then what went in place of it may make room for it.
    if not last.unplaced:
        check_booking(vmm, second)
        assert vmm.plan(second, prune).steps == ()
    vmm.apply(topology(classes=CLASSES, hosts=second.hosts), prune)
    assert vmm.domains == {}


@st.composite
def crowds(draw: st.DrawFn) -> Topology:
    """Clients and device VMs that want processors of their own; the device VMs have one name, or another."""
    clients = []
    for name in sorted(draw(st.sets(st.sampled_from("abc"), min_size=1))):
        kinds = draw(st.lists(st.sampled_from(["alone", "apart", "pair"]), max_size=2))
        made = client(name, *(replace(disk(f"d{index}"), class_=kind) for index, kind in enumerate(kinds)))
        if draw(st.booleans()):
            made = replace(made, vm=replace(made.vm, cpus=threads(dedicated=True)[0]))
        clients.append(made)
    declared = DeviceVM(draw(st.sampled_from("xyz")), Serves(), draw(st.sampled_from(list(ShareScope))))
    return topology(*clients, classes=CLASSES, device_vms=(declared,))


@given(st.integers(2, 5), crowds(), crowds(), st.integers(1, 9), st.sets(st.sampled_from("abc"), min_size=1))
@settings(max_examples=150, deadline=None)
def test_what_is_left_out_after_an_interruption_takes_nobodys_processors(
    cores: int, first: Topology, second: Topology, steps: int, out: set[str]
) -> None:
    vmm = ModelVmm(host(cores=cores, threads=1))
    vmm.apply(first)
    carry_out_some(vmm, vmm.plan(second), steps)
    clients = tuple(replace(one, host="nowhere") if one.name in out else one for one in second.clients)
    left = replace(second, clients=clients)
    ran = {domain.name for domain in vmm.observe() if domain.active}
    plan = vmm.apply(left)
    check_definitions(vmm)
    gone = {item.client for item in plan.unplaced} & vmm.domains.keys()
    assert {name for name in gone if vmm.domains[name].active} == gone & ran
    assert not [step.id for step in vmm.plan(left).steps if step.name in gone]
