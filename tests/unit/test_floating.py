"""Domains that float over dedicated processors: told, or moved when the host's policy lets them be."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from devicevm.apply.check import check_plan
from devicevm.domain import CpuPlacement
from devicevm.errors import DevicevmError
from devicevm.inventory.holdings import holding_from_element
from devicevm.inventory.host import Holding, Host
from devicevm.inventory.moved import NAMESPACE, Moved, mark_of
from devicevm.manifest.topology import DeviceVM, FloatingDomains, HostPolicy, ResourceRequest, Serves, Topology
from devicevm.planner.plan import Effect, Phase
from world import MIB, ModelVmm, client, disk, host, topology

MOVE = HostPolicy("h1", floating_domains=FloatingDomains.MOVE)
ALONE = DeviceVM("storage", Serves(), resources=((ResourceRequest("core", 1, True),),))
OTHER = Holding("db", "u-db", True, 2, MIB)


def vmm(*holdings: Holding) -> ModelVmm:
    """CPU n of 4 is thread n // 2 of core n % 2."""
    return ModelVmm(host(cores=2, threads=2, holdings=holdings))


def wanted(policy: HostPolicy = MOVE, *, device_vms: tuple[DeviceVM, ...] = (ALONE,)) -> Topology:
    return topology(client("web", disk()), device_vms=device_vms, hosts=(policy,))


def moved_to(one: Host) -> dict[str, tuple[int, ...]]:
    return {held.domain: held.moved_to for held in one.holdings}


def placement(there: ModelVmm, name: str) -> CpuPlacement:
    spec = there.domains[name].spec
    assert spec
    return spec.placement


def test_they_are_told_and_left_alone_unless_they_may_be_moved() -> None:
    there = vmm(OTHER)
    plan = there.apply(wanted(HostPolicy("h1")))
    assert not any(step.repin for step in plan.steps)
    assert "these are not pinned and may run there too: db, web" in plan.warnings[0]


def test_they_are_moved_before_the_device_vm_starts_and_the_next_plan_does_nothing() -> None:
    there = vmm(OTHER, replace(OTHER, domain="idle", uuid="u-idle", active=False))
    plan = there.apply(wanted())
    step = plan.steps[0]
    assert (step.id, step.effect, step.phase) == ("repin/domain/db", Effect.LIVE, Phase.REQUEST)
    assert step.reason == "it floats, and CPU 0,2 is dedicated to storage: it keeps to CPU 1,3"
    assert plan.steps[1].effect is Effect.NONE
    start = next(step for step in plan.steps if step.id == "start/device-vm/storage")
    assert {"repin/domain/db", "repin/domain/idle"} <= set(start.after)
    assert moved_to(there.hosts[0]) == {"db": (1, 3), "idle": (1, 3)}
    assert placement(there, "web") == CpuPlacement(((1, 3),), (1, 3), floats=True)
    assert plan.warnings == ()
    assert there.plan(wanted()).steps == ()
    check_plan(plan, there.observe())


def test_it_is_undone_when_nothing_is_dedicated_any_more() -> None:
    there = vmm(OTHER)
    there.apply(wanted())
    plan = there.apply(wanted(device_vms=()))
    last = plan.steps[-1]
    assert (last.id, last.phase) == ("repin/domain/db", Phase.RELEASE)
    assert set(last.after) == {step.id for step in plan.steps if step.action.value not in ("start", "repin")}
    assert moved_to(there.hosts[0]) == {"db": ()} and placement(there, "web") == CpuPlacement()
    assert there.plan(wanted(device_vms=())).steps == ()


def test_it_is_undone_when_they_may_not_be_moved_any_more() -> None:
    there = vmm(OTHER)
    there.apply(wanted())
    plan = there.apply(wanted(HostPolicy("h1")))
    assert [step.id for step in plan.steps] == ["update/client/web", "repin/domain/db"]
    assert moved_to(there.hosts[0]) == {"db": ()} and placement(there, "web") == CpuPlacement()


def test_more_processors_for_one_are_fewer_for_the_other() -> None:
    there = vmm(OTHER)
    one = replace(ALONE, resources=((ResourceRequest("thread", 1, True),),))
    there.apply(wanted(device_vms=(one,)))
    assert moved_to(there.hosts[0]) == {"db": (1, 2, 3)}
    there.apply(wanted())
    assert moved_to(there.hosts[0]) == {"db": (1, 3)} and placement(there, "web").emulator == (1, 3)


def test_nobody_is_left_without_a_processor() -> None:
    two = replace(ALONE, resources=((ResourceRequest("core", 2, True),), (ResourceRequest("core", 1, True),)))
    pinned = client("web", disk())
    pinned = replace(pinned, vm=replace(pinned.vm, cpus=ResourceRequest("thread", 2, True), vcpus=2))
    every = replace(wanted(), clients=(pinned,))
    assert vmm().plan(every).unplaced == ()
    (unplaced,) = vmm(OTHER).plan(every).unplaced
    assert "2 CPUs for itself asked, 0 would be left for the 2 virtual CPUs that share" in unplaced.reasons[0]
    # Another alternative may leave room.
    assert vmm(OTHER).plan(wanted(device_vms=(two,))).unplaced == ()


def test_other_owners_domains_and_what_they_moved_are_left_alone() -> None:
    theirs = replace(OTHER, owner="them")
    by_them = replace(OTHER, domain="cache", uuid="u-cache", moved_by="them", moved_to=(0, 1, 2))
    plan = vmm(theirs, by_them).plan(wanted())
    assert not any(step.repin for step in plan.steps)
    assert "may run there too: cache, db" in plan.warnings[0]


def test_what_an_owner_has_moved_that_is_gone_is_put_back_by_the_next() -> None:
    there = vmm(replace(OTHER, moved_by="them", moved_to=(0, 1, 2)))
    there.apply(wanted())
    assert [(held.moved_by, held.moved_to) for held in there.hosts[0].holdings] == [("default", (1, 3))]
    there.apply(wanted(device_vms=()))
    assert [(held.moved_by, held.moved_to) for held in there.hosts[0].holdings] == [("", ())]


def test_shared_device_vms_keep_their_own_threads_off_as_well() -> None:
    there = ModelVmm(host(cores=4, threads=1))
    two = topology(client("a", disk()), client("b", disk()), hosts=(MOVE,))
    serves_a = replace(ALONE, serves=Serves(clients=("a",)))
    there.apply(replace(two, device_vms=(serves_a,)))
    assert placement(there, "b-dvm") == CpuPlacement(((1,),), (1, 2, 3), floats=True)
    assert there.plan(replace(two, device_vms=(serves_a,))).steps == ()
    grown = replace(two, device_vms=(replace(serves_a, resources=((ResourceRequest("core", 2, True),),)),))
    there.apply(grown)
    assert there.plan(grown).steps == ()


def test_a_step_for_a_domain_of_devicevms_own_is_refused() -> None:
    there = vmm(OTHER)
    plan = there.plan(wanted())
    there.apply(wanted())
    ours = replace(plan.steps[0], name="web")
    with pytest.raises(DevicevmError, match="web is devicevm's own"):
        check_plan(replace(plan, steps=(ours, *plan.steps[1:])), there.observe())
    with pytest.raises(DevicevmError, match="does not say where db is to run"):
        check_plan(replace(plan, steps=(replace(plan.steps[0], repin=None), *plan.steps[1:])))


# What a domain that was moved holds

CPUS = frozenset(range(4))


def moved_domain(tune: str, moved: Moved, vcpus: int = 2, other: str = "") -> Holding:
    root = ET.fromstring(
        f"<domain><name>db</name><uuid>u</uuid><memory>1024</memory><vcpu>{vcpus}</vcpu>{other}"
        f"<metadata/><cputune>{tune}</cputune></domain>"
    )
    mark = mark_of(moved)
    mark.tag = f"{{{NAMESPACE}}}moved"
    metadata = root.find("metadata")
    assert metadata is not None
    metadata.append(mark)
    return holding_from_element(root, True, CPUS)


BOTH = Moved("me", (1, 3), (), (0, 1), True)
PINS = "<vcpupin vcpu='0' cpuset='{}'/><vcpupin vcpu='1' cpuset='{}'/><emulatorpin cpuset='{}'/>"


@pytest.mark.parametrize(
    ("tune", "moved", "cpus", "floats", "where"),
    [
        (PINS.format("1,3", "1,3", "1,3"), BOTH, (), True, (1, 3)),
        # Interrupted: not all of it is there yet.
        (PINS.format("1,3", "0-3", "1,3"), BOTH, (), True, ()),
        (PINS.format("1,3", "1-3", "1,3"), replace(BOTH, was=(1, 2, 3)), (), True, ()),
        # Somebody has pinned a thread since: that is theirs.
        (PINS.format("1,3", "2", "1,3"), BOTH, (2,), True, (1, 3)),
        (PINS.format("0", "2", "3"), BOTH, (0, 2, 3), False, (1, 3)),
        # What had a pin before was never touched.
        (PINS.format("1,3", "2", "2"), replace(BOTH, vcpus=(0,), emulator=False), (2,), True, (1, 3)),
    ],
)
def test_what_was_moved_is_known_to_float(
    tune: str, moved: Moved, cpus: tuple[int, ...], floats: bool, where: tuple[int, ...]
) -> None:
    held = moved_domain(tune, moved)
    assert (held.cpus, held.floats, held.moved_by, held.moved_to) == (cpus, floats, "me", where)


@pytest.mark.parametrize(
    ("other", "pinned", "where"),
    [
        ("<iothreads>2</iothreads>", (1, 2), (1, 3)),
        ("<iothreads>2</iothreads>", (1,), ()),
        ("<iothreads>2</iothreads><iothreadids><iothread id='4'/></iothreadids>", (1, 4), (1, 3)),
        ("<iothreads>2</iothreads><iothreadids><iothread id='4'/></iothreadids>", (1, 2), ()),
        ("<iothreads>many</iothreads>", (), (1, 3)),
    ],
)
def test_io_threads_float_as_well(other: str, pinned: tuple[int, ...], where: tuple[int, ...]) -> None:
    tune = PINS.format("1,3", "1,3", "1,3") + "".join(f"<iothreadpin iothread='{n}' cpuset='1,3'/>" for n in pinned)
    held = moved_domain(tune, replace(BOTH, iothreads=pinned), other=other)
    assert (held.cpus, held.floats, held.moved_to) == ((), True, where)


def test_a_mark_that_makes_no_sense_is_none() -> None:
    for broken in (Moved("me", ()), Moved("me", (1,))):
        mark = mark_of(broken)
        mark.tag = f"{{{NAMESPACE}}}moved"
        if broken.cpus:
            mark.set("vcpus", "all of them")
        root = ET.fromstring("<domain><name>db</name><vcpu>1</vcpu><metadata/></domain>")
        metadata = root.find("metadata")
        assert metadata is not None
        metadata.append(mark)
        assert holding_from_element(root, True, CPUS).moved_by == ""
