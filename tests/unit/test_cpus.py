"""Processors in detail: the shared pool, clients with processors of their own, nearness to them, the VMM's threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from devicevm.domain import CpuPlacement, DomainSpec
from devicevm.inventory.holdings import holding_from_element
from devicevm.manifest.topology import Client, DeviceVM, HostPolicy, ResourceRequest, Serves, ShareScope, Topology
from devicevm.planner.book import Book
from devicevm.planner.plan import Effect, Plan
from devicevm.planner.resources import Footing, Misfit, fit_one, fulfilled
from devicevm.vmm.libvirt.domain_xml import domain_xml
from world import GIB, MIB, ModelVmm, client, disk, host, topology


def ask(count: int = 1, *, dedicated: bool = False, kind: str = "thread", **options: Any) -> ResourceRequest:
    return ResourceRequest(kind, count, dedicated, options)


def book(pool: tuple[int, ...] = (), **policy: Any) -> Book:
    """CPU n of 8 is thread n // 4 of core n % 4; cores 0-1 are on socket and node 0, cores 2-3 on 1."""
    one = host(cores=2, threads=2, sockets=2)
    return Book(one, replace(HostPolicy("h1", shared_cpus=pool), **policy))


def given(request: ResourceRequest, there: Book, *beside: tuple[str, CpuPlacement]) -> CpuPlacement:
    answer = fit_one((request,), there, MIB, beside=beside or None)
    assert isinstance(answer, Footing), answer.reason
    return answer.placement


def refused(request: ResourceRequest, there: Book, *beside: tuple[str, CpuPlacement]) -> str:
    answer = fit_one((request,), there, MIB, beside=beside or None)
    assert isinstance(answer, Misfit)
    return answer.reason


def on(*cpus: int) -> CpuPlacement:
    return CpuPlacement(vcpus=tuple((cpu,) for cpu in cpus))


# The shared pool


def test_shared_threads_are_of_the_pool_and_dedicated_ones_never() -> None:
    there = book(pool=(2, 6))
    shared = given(ask(2), there)
    assert (shared.vcpus, shared.emulator) == (((2,), (6,)), (2, 6))
    assert given(ask(6, dedicated=True), there).vcpus == tuple((cpu,) for cpu in (0, 1, 3, 4, 5, 7))
    assert "7 threads asked, 6 free: 2,6 in the shared pool" in refused(ask(7, dedicated=True), there)
    assert "3 shared threads asked, 2 of 2 CPUs of the shared pool have room" in refused(ask(3), there)
    assert "4 cores asked, 3 free: 2,6 in the shared pool" in refused(ask(4, kind="core"), there)


def test_dedicated_threads_need_no_room_in_the_pool() -> None:
    there = book(pool=(0,), cpu_overcommit=1.0, headroom_vcpus=1)
    there.book("web", there.roaming(1), 1, MIB)
    assert there.vcpus == 0
    assert "0 of 1 CPUs of the shared pool have room" in refused(ask(), there)
    assert len(given(ask(7, dedicated=True), there).vcpus) == 7


def test_without_a_pool_dedicated_threads_leave_room_for_those_that_share() -> None:
    there = book(cpu_overcommit=2.0)
    there.book("floats", CpuPlacement(), 5, MIB)
    assert len(given(ask(5, dedicated=True), there).vcpus) == 5
    asked = "6 CPUs for itself asked, 2 would be left for the 5 virtual CPUs that share with an overcommit of 2"
    assert refused(ask(6, dedicated=True), there) == asked
    isolated = "6 CPUs for itself asked, 2 would be left"
    assert isolated in refused(ask(3, dedicated=True, smt="isolate"), there)
    # What is dedicated is in nobody's way but by the processors that it takes.
    there.book("alone", given(ask(5, dedicated=True), there), 5, MIB)
    assert there.vcpus == 1
    assert there.lacks(2, 0) == "2 virtual CPUs asked, 1 left: 5 booked on 3 CPUs with an overcommit of 2"


def test_dedicated_threads_leave_the_headroom() -> None:
    there = book(cpu_overcommit=2.0, headroom_vcpus=6)
    assert len(given(ask(5, dedicated=True), there).vcpus) == 5
    assert refused(ask(6, dedicated=True), there).endswith("with an overcommit of 2, 6 kept as headroom")


def test_floating_threads_run_on_the_whole_pool_up_to_its_overcommit() -> None:
    there = book(pool=(0, 1, 2), cpu_overcommit=2.0)
    placement = given(ask(3, float=True), there)
    assert (placement.vcpus, placement.emulator) == (((0, 1, 2),) * 3, (0, 1, 2))
    there.book("a", placement, 3, MIB)
    assert [there.cpus[cpu].load for cpu in range(4)] == [1, 1, 1, 0]
    there.book("b", placement, 3, MIB)
    assert refused(ask(float=True), there) == "1 virtual CPUs asked, 0 left in the shared pool"
    assert refused(ask(4, float=True), there) == "4 floating threads asked, the shared pool has 3"
    assert given(ask(float=True, numaNode=1), book(pool=(0, 2))).vcpus == ((2,),)
    assert "the host declares no shared pool" in refused(ask(float=True), book())


def test_what_floats_is_known_again_while_the_pool_stays() -> None:
    spec = running(given(ask(2, float=True), book(pool=(0, 1))))
    assert fulfilled(((ask(2, float=True),),), spec, book(pool=(0, 1)))
    assert not fulfilled(((ask(2, float=True),),), spec, book(pool=(0, 1, 2)))
    assert not fulfilled(((ask(2),),), spec, book(pool=(0, 1)))


def running(placement: CpuPlacement) -> DomainSpec:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", disk())))
    spec = vmm.domains["web-dvm"].spec
    assert spec
    return replace(spec, placement=placement, vcpus=len(placement.vcpus))


def declared(*resources: ResourceRequest) -> DeviceVM:
    return DeviceVM("storage", Serves(), ShareScope.CLIENT, resources=tuple((one,) for one in resources))


def pinned(name: str, cpus: ResourceRequest) -> Client:
    made = client(name, disk())
    return replace(made, vm=replace(made.vm, cpus=cpus, vcpus=cpus.count))


def placement_of(vmm: ModelVmm, name: str) -> CpuPlacement:
    spec = vmm.domains[name].spec
    assert spec
    return spec.placement


def actions(plan: Plan) -> list[str]:
    return [step.id for step in plan.steps]


def test_a_pool_that_is_declared_later_moves_what_shares_while_it_runs() -> None:
    vmm = ModelVmm()
    wanted = topology(client("web", disk()))
    vmm.apply(wanted)
    pooled = replace(wanted, hosts=(HostPolicy("h1", shared_cpus=(2, 3)),))
    plan = vmm.apply(pooled)
    assert actions(plan) == ["update/device-vm/web-dvm", "update/client/web"]
    assert {step.effect for step in plan.steps} == {Effect.LIVE}
    assert plan.steps[1].reason == "it runs on CPU 2-3 instead of any"
    assert plan.allocations[0].reasons[0] == "it could not stay: CPU 0 is not in the shared pool"
    assert placement_of(vmm, "web") == CpuPlacement(vcpus=((2, 3),), emulator=(2, 3))
    assert placement_of(vmm, "web-dvm").vcpus in (((2,),), ((3,),))
    assert vmm.plan(pooled).steps == ()
    back = vmm.apply(wanted)
    assert actions(back) == ["update/device-vm/web-dvm", "update/client/web"]
    assert "as thread, the VMM's own threads on CPU 2-3, which is not what is asked" in back.allocations[0].reasons[0]
    assert placement_of(vmm, "web") == CpuPlacement()


def test_dedicated_processors_leave_a_pool_that_is_declared_later() -> None:
    vmm = ModelVmm()
    wanted = topology(client("web", disk()), device_vms=(declared(ask(dedicated=True)),))
    vmm.apply(wanted)
    assert placement_of(vmm, "storage-web").vcpus == ((0,),)
    plan = vmm.apply(replace(wanted, hosts=(HostPolicy("h1", shared_cpus=(0,)),)))
    assert plan.allocations[0].reasons[0] == "it could not stay: CPU 0 is now in the shared pool"
    assert placement_of(vmm, "storage-web").vcpus == ((4,),)


# Near the clients


def test_what_stays_holds_its_processors_though_the_pool_is_another_now() -> None:
    vmm = ModelVmm(host(cores=4, threads=1))
    old = client("old", disk())
    vmm.apply(topology(replace(old, vm=replace(old.vm, vcpus=2, cpus=ask(dedicated=True)))))
    before = sorted({cpu for pin in placement_of(vmm, "old").vcpus for cpu in pin})
    new = client("new")
    new = replace(new, vm=replace(new.vm, cpus=ask(dedicated=True)))
    sharer = client("sharer")
    sharer = replace(sharer, vm=replace(sharer.vm, cpus=ask()))
    plan = vmm.apply(topology(new, sharer, hosts=(HostPolicy("h1", shared_cpus=(before[0],)),)))
    assert [item.client for item in plan.unplaced] == ["sharer"]
    others = {cpu for pin in placement_of(vmm, "new").vcpus for cpu in pin}
    assert others.isdisjoint(before)


def test_near_is_the_node_or_the_core_of_the_clients() -> None:
    there = book()
    there.book("web", on(2), 1, MIB)
    web = ("web", on(2))
    assert given(ask(dedicated=True, near="sibling"), there, web).vcpus == ((6,),)
    assert given(ask(near="sibling"), there, web).vcpus == ((6,),)
    near = given(ask(kind="core", near="node"), there, web)
    assert (near.vcpus, near.nodes) == (((3,), (7,)), (1,))
    assert "1 free" in refused(ask(2, near="sibling"), there, web)
    assert "which may run on any CPU" in refused(ask(near="node"), there, ("web", CpuPlacement()))
    assert "NUMA node 0-1" in refused(ask(near="node"), there, web, ("db", on(0)))
    assert "NUMA node 1, which is not one" in refused(ask(near="node", numaNode=0), there, web)


@pytest.mark.parametrize("near", ["node", "sibling"])
def test_what_is_near_is_known_again_and_comes_after_its_client(near: str) -> None:
    vmm = ModelVmm(host(cores=2, threads=2, sockets=2))
    wanted = topology(
        pinned("web", ask(dedicated=True, numaNode=0)), device_vms=(declared(ask(dedicated=True, near=near)),)
    )
    vmm.apply(wanted)
    first = {"node": ((4,),), "sibling": ((4,),)}[near]
    assert (placement_of(vmm, "web").vcpus, placement_of(vmm, "storage-web").vcpus) == (((0,),), first)
    assert vmm.plan(wanted).steps == ()
    away = replace(wanted, clients=(pinned("web", ask(dedicated=True, numaNode=1)),))
    vmm.apply(away)
    assert (placement_of(vmm, "web").vcpus, placement_of(vmm, "storage-web").vcpus) == (((2,),), ((6,),))
    assert vmm.plan(away).steps == ()


# Clients with processors of their own


def test_a_client_gets_its_processors_before_its_device_vms_and_keeps_them() -> None:
    vmm = ModelVmm(host(cores=2, threads=2))
    wanted = topology(pinned("web", ask(2, dedicated=True, numaNode="one")), device_vms=(declared(ask(kind="core")),))
    plan = vmm.apply(wanted)
    assert placement_of(vmm, "web") == CpuPlacement(((0,), (2,)), (0, 2), (0,), True)
    assert placement_of(vmm, "storage-web").vcpus == ((1,), (3,))
    assert plan.warnings == ()
    grown = replace(wanted, clients=(*wanted.clients, pinned("zz", ask(dedicated=True))))
    assert [item.reasons for item in vmm.plan(grown).unplaced] == [
        ("h1: zz: 1 dedicated thread: 1 thread asked, 0 free: 0,2 held by web, 1,3 held by storage-web",)
    ]


def test_wishes_of_a_client_that_change_nothing_but_pins_restart_nobody() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", disk())))
    plan = vmm.apply(topology(pinned("web", ask(dedicated=True))))
    assert actions(plan) == ["update/client/web"]
    assert placement_of(vmm, "web").dedicated
    plan = vmm.apply(topology(pinned("web", ask(dedicated=True, numaNode="one"))))
    assert actions(plan) == ["stop/client/web", "define/client/web", "start/client/web"]


# The VMM's own threads


@pytest.mark.parametrize(
    ("request_", "emulator", "told"),
    [
        (ask(dedicated=True), (4,), ""),
        (ask(dedicated=True, emulator="vcpus"), (4,), ""),
        (ask(dedicated=True, emulator="shared"), (0,), "shared"),
        (ask(dedicated=True, emulator="own"), (1,), "own"),
        (ask(dedicated=True, emulator="own", smt="isolate"), (4,), "own"),
        (ask(kind="core", emulator="own"), (4,), "own"),
        (ask(), (0,), ""),
        (ask(emulator="vcpus"), (0,), "vcpus"),
    ],
)
def test_where_the_vmms_own_threads_run(request_: ResourceRequest, emulator: tuple[int, ...], told: str) -> None:
    there = book(pool=(0,))
    placement = given(request_, there)
    assert (placement.emulator, placement.emulator_on) == (emulator, told)
    spec = running(placement)
    assert fulfilled(((request_,),), spec, there)
    other = replace(request_, options={**request_.options, "emulator": "shared" if told != "shared" else "own"})
    assert not fulfilled(((other,),), spec, there)


def test_an_own_cpu_is_had_alone_and_the_pool_is_not() -> None:
    there = book(pool=(0,))
    placement = given(ask(dedicated=True, emulator="own"), there)
    there.book("d", placement, 1, MIB)
    assert [cpu.id for cpu in there.cpus.values() if cpu.dedicated_to] == [1, 4]
    other = given(ask(dedicated=True, emulator="shared"), there)
    there.book("e", other, 1, MIB)
    assert not there.cpus[0].dedicated_to
    assert "0 free beside CPU 0-7" in refused(ask(4, kind="core", emulator="own"), book())
    assert "no place for the VMM's own threads" in refused(ask(dedicated=True, emulator="shared"), book())


@pytest.mark.parametrize(
    ("placement", "cpus"),
    [
        (CpuPlacement(((2,),), (0, 1), (), True, emulator_on="shared"), (2,)),
        (CpuPlacement(((2,),), (3,), (), True, emulator_on="own"), (2, 3)),
        (CpuPlacement(((2,),), (0, 1)), (2,)),
        (CpuPlacement(((2,),), (2,), (), True, idle=(6,)), (2, 6)),
    ],
)
def test_others_see_the_cpus_that_are_held_and_no_more(placement: CpuPlacement, cpus: tuple[int, ...]) -> None:
    tree = domain_xml(running(placement), "/var/lib/devicevm")
    assert holding_from_element(tree, True, frozenset(range(8))).cpus == cpus


def test_pools_do_not_change_what_is_without_them() -> None:
    wanted: Topology = topology(client("web", disk()))
    plain, policy = ModelVmm(host(memory=GIB)), ModelVmm(host(memory=GIB))
    plain.apply(wanted)
    policy.apply(replace(wanted, hosts=(HostPolicy("h1"),)))
    assert plain.domains == policy.domains
