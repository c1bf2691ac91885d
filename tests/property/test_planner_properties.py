"""What holds for every plan, on hosts and topologies that nobody thought of."""

from __future__ import annotations

from dataclasses import replace

from devicevm.apply.check import check_plan
from devicevm.inventory.host import Holding, Host
from devicevm.manifest.topology import Device, DeviceVM, HostPolicy, Serves, ShareScope, Topology
from devicevm.planner.plan import Plan
from devicevm.planner.planner import Intent, make_plan
from devicevm.record import canonical_json, from_data, to_data
from hypothesis import given, settings
from hypothesis import strategies as st
from world import DISK, GIB, ME, MIB, RNG, SERIAL, ModelVmm, class_, client, core, disk, host, thread, topology

ALONE = class_("alone", resources=(core(), thread(2, dedicated=True)))
PAIR = class_("pair", resources=(thread(2),))
CLASSES = (DISK, RNG, SERIAL, ALONE, PAIR)


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    cores, threads = draw(st.integers(1, 6)), draw(st.integers(1, 2))
    cpus = draw(st.sets(st.integers(0, cores * threads - 1), max_size=2))
    held = tuple(Holding(f"other{cpu}", "u", True, 1, MIB, (cpu,), False) for cpu in sorted(cpus))
    return host(cores=cores, threads=threads, memory=draw(st.integers(1, 8)) * GIB, holdings=held)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    clients = []
    for name in draw(st.sets(st.sampled_from("abcdef"), max_size=5)):
        kinds = draw(st.lists(st.sampled_from(["disk", "rng", "serial", "alone", "pair"]), max_size=4))
        devices = [
            replace(disk(f"d{index}"), class_=kind) if kind in ("disk", "alone", "pair") else Device(f"d{index}", kind)
            for index, kind in enumerate(kinds)
        ]
        label = {"tier": draw(st.sampled_from(["front", "back"]))}
        clients.append(client(name, *devices, labels=label, trust_domain=draw(st.sampled_from(["default", "red"]))))
    declared = ()
    if draw(st.booleans()):
        serves = Serves(
            classes=tuple(sorted(draw(st.sets(st.sampled_from(["disk", "rng", "alone"]))))),
            match_labels=draw(st.sampled_from([{}, {"tier": "front"}])),
        )
        scope = draw(st.sampled_from(list(ShareScope)))
        declared = (DeviceVM("shared", serves, scope, max_devices=draw(st.integers(1, 4))),)
    reserved = tuple(sorted(draw(st.sets(st.integers(0, 3), max_size=1))))
    return topology(*clients, classes=CLASSES, device_vms=declared, hosts=(HostPolicy("h1", reserved_cpus=reserved),))


def check_booking(plan: Plan, vmm: ModelVmm, wanted: Topology) -> None:
    """Nothing is booked twice, what is reserved stays free, and what is dedicated is alone."""
    one = vmm.hosts[0]
    reserved = set(wanted.hosts[0].reserved_cpus)
    pinned: dict[int, list[tuple[str, bool]]] = {}
    for held in one.holdings:
        for cpu in held.cpus:
            pinned.setdefault(cpu, []).append((held.domain, held.dedicated))
    for domain in vmm.observe():
        assert domain.spec is not None
        for cpu in {cpu for pin in domain.spec.placement.vcpus for cpu in pin}:
            assert cpu not in reserved
            pinned.setdefault(cpu, []).append((domain.name, domain.spec.placement.dedicated))
    for cpu, holders in pinned.items():
        if any(dedicated for _, dedicated in holders):
            assert len(holders) == 1, f"CPU {cpu} is dedicated, and held by {holders}"
    used = sum(domain.spec.memory for domain in vmm.observe() if domain.spec) + sum(h.memory for h in one.holdings)
    assert used <= one.memory


@given(hosts(), topologies())
@settings(max_examples=150, deadline=None)
def test_a_plan_gives_what_was_declared_and_a_second_one_nothing(one: Host, wanted: Topology) -> None:
    vmm = ModelVmm(one)
    plan = vmm.apply(wanted)
    check_booking(plan, vmm, wanted)
    out = {item.client for item in plan.unplaced}
    for declared in wanted.clients:
        assert (declared.name in vmm.domains) == (declared.name not in out)
    served = {emulator.id for domain in vmm.observe() if domain.spec for emulator in domain.spec.emulators}
    wants = {f"{c.name}.{d.name}" for c in wanted.clients if c.name not in out for d in c.devices}
    assert served == wants
    assert plan.unplaced or vmm.plan(wanted).steps == ()


@given(hosts(), topologies(), topologies())
@settings(max_examples=100, deadline=None)
def test_from_any_state_to_any_other_and_back_to_nothing(one: Host, first: Topology, second: Topology) -> None:
    vmm = ModelVmm(one)
    first = replace(first, hosts=second.hosts)
    vmm.apply(first)
    prune = Intent("default", prune=True)
    observed = vmm.observe()
    plan = vmm.apply(second, prune)
    check_plan(plan, observed)
    check_booking(plan, vmm, second)
    assert plan.unplaced or vmm.plan(second, prune).steps == ()
    vmm.apply(topology(classes=CLASSES, hosts=second.hosts), prune)
    assert vmm.domains == {}


@given(hosts(), topologies())
@settings(max_examples=60, deadline=None)
def test_the_same_input_gives_the_same_bytes_and_they_read_back(one: Host, wanted: Topology) -> None:
    plan = make_plan(wanted, (one,), (), ME)
    again = make_plan(wanted, (one,), (), ME)
    assert canonical_json(plan) == canonical_json(again)
    assert from_data(Plan, to_data(plan)) == plan
    check_plan(plan)


@given(hosts(), topologies())
@settings(max_examples=60, deadline=None)
def test_adding_a_client_disturbs_nobody(one: Host, wanted: Topology) -> None:
    vmm = ModelVmm(one)
    vmm.apply(wanted)
    grown = replace(wanted, clients=tuple(sorted((*wanted.clients, client("zz", disk())), key=lambda c: c.name)))
    plan = vmm.plan(grown)
    assert all(step.affects == () for step in plan.steps)
    assert not any(step.action.value in ("stop", "undefine") for step in plan.steps)


@given(hosts(), topologies(), topologies(), st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_an_apply_that_stops_after_any_step_is_finished_by_the_next(
    one: Host, first: Topology, second: Topology, steps: int
) -> None:
    vmm = ModelVmm(one)
    first = replace(first, hosts=second.hosts)
    vmm.apply(first)
    prune = Intent("default", prune=True)
    plan = vmm.plan(second, prune)
    done: list[str] = []
    for step in plan.steps:
        if len(done) < steps and set(step.after) <= set(done):
            vmm.carry_out(replace(plan, steps=(replace(step, after=()),)))
            done.append(step.id)
    last = vmm.apply(second, prune)
    check_booking(plan, vmm, second)
    # With something left out nothing is applied, unless asked; what went in place of it may make room for it.
    assert last.unplaced or vmm.plan(second, prune).steps == ()
    vmm.apply(topology(classes=CLASSES, hosts=second.hosts), prune)
    assert vmm.domains == {}
