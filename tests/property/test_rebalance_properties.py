"""Moving what runs gains what it says, loses nothing, and is over when it was done once."""

from __future__ import annotations

from dataclasses import replace

from devicevm.apply.check import check_plan
from devicevm.domain import ObservedDomain
from devicevm.inventory.host import Host
from devicevm.manifest.topology import Store, Topology
from devicevm.planner.planner import Intent
from hypothesis import given, settings
from hypothesis import strategies as st
from test_planner_properties import check_booking, fleets, topologies
from world import MIB, ModelVmm

MOVE = Intent("default", rebalance=True)


def with_stores(wanted: Topology) -> Topology:
    """The same with disks that outlive their device VM."""
    clients = tuple(
        replace(
            one,
            devices=tuple(
                replace(device, memory=0, store=Store("file", MIB, f"/srv/{one.name}-{device.name}"))
                if device.memory
                else device
                for device in one.devices
            ),
        )
        for one in wanted.clients
    )
    return replace(wanted, clients=clients)


def content(domains: tuple[ObservedDomain, ...]) -> dict[str, str]:
    """In which device VM the content without a store is, and on which processors that runs."""
    return {
        emulator.id: f"{domain.name} {domain.spec.host} {domain.spec.placement.vcpus}"
        for domain in domains
        if domain.spec
        for emulator in domain.spec.emulators
        if emulator.size and not emulator.store
    }


@given(fleets(), topologies(), topologies(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_what_is_gained_is_kept(fleet: tuple[Host, ...], first: Topology, second: Topology, stored: bool) -> None:
    if stored:
        first, second = with_stores(first), with_stores(second)
    vmm = ModelVmm(*fleet)
    vmm.apply(replace(first, hosts=tuple(replace(one, maintenance=False) for one in second.hosts)))
    before, still = vmm.observe(), vmm.plan(second)
    plan = vmm.apply(second, MOVE)
    check_plan(plan, before)
    check_booking(vmm, second)
    assert {item.client for item in plan.unplaced} <= {item.client for item in still.unplaced}
    assert plan.rebalance is not None
    if not plan.rebalance.gains:
        assert replace(plan, rebalance=None) == still
    again = vmm.plan(second, MOVE)
    assert again.rebalance is not None
    assert again.rebalance.gains == again.rebalance.moves == ()
    assert plan.unplaced or again.steps == ()


@given(fleets(), topologies(), topologies())
@settings(max_examples=50, deadline=None)
def test_no_content_is_lost_for_it(fleet: tuple[Host, ...], first: Topology, second: Topology) -> None:
    """What would go anyhow, because it is asked for otherwise and there is room, goes with it as well as without."""
    moved, still = ModelVmm(*fleet), ModelVmm(*fleet)
    for vmm in (moved, still):
        vmm.apply(first)
    before = content(moved.observe())
    moved.apply(second, MOVE)
    out = {item.client for item in still.apply(second).unplaced}
    before = {key: where for key, where in before.items() if key.split(".")[0] not in out}
    after, without = content(moved.observe()), content(still.observe())
    assert all(after.get(key) == where for key, where in before.items() if without.get(key) == where)
