"""Whatever is declared, renamed and removed, by whomever: nobody writes what somebody else has, at any moment."""

from __future__ import annotations

from dataclasses import replace

from devicevm.domain import DomainSpec, Role
from devicevm.manifest.topology import Boot, Client, Device, DeviceVM, Serves, ShareScope, Store, Topology
from devicevm.planner.plan import Action, Plan
from devicevm.planner.planner import Intent
from hypothesis import given, settings
from hypothesis import strategies as st
from world import MIB, ModelVmm, class_, client, core, disk, host, topology

PATHS = ("/a", "/b", "/c")
GREEDY = class_("greedy", resources=((core(3)),))
Uses = list[tuple[str, str, str, bool]]
"""Host, path, client and whether it only reads it."""


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Clients whose stores no two of them have as no manifest may declare them, some of which may find no place."""
    free = list(PATHS)
    clients: list[Client] = []
    for name in draw(st.lists(st.sampled_from(["k", "l", "m", "n"]), unique=True, max_size=3)):
        boot = Boot(image=free.pop()) if free and draw(st.integers(0, 2)) == 0 else None
        devices: list[Device] = []
        for device in draw(st.lists(st.sampled_from(["d", "e"]), unique=True, max_size=2)):
            if free:
                path = free.pop(draw(st.integers(0, len(free) - 1)))
                base = free.pop() if free and draw(st.integers(0, 3)) == 0 else ""
                golden = Store("file", MIB, base, read_only=True) if base else None
                reads = draw(st.booleans()) and not base
                store = Store("file", MIB, path, read_only=reads)
                devices.append(replace(disk(device), memory=0, store=store, base=golden))
        if draw(st.integers(0, 4)) == 0:
            devices.append(replace(disk("more"), class_="greedy"))
        made = client(name, *devices, host=draw(st.sampled_from(["", "h1", "h2"])))
        clients.append(replace(made, vm=replace(made.vm, boot=boot)) if made.vm and boot else made)
    shared = draw(st.sampled_from([(), (DeviceVM("s", Serves(), ShareScope.HOST),)]))
    return topology(*clients, classes=(class_(), GREEDY), device_vms=shared)


def intents() -> st.SearchStrategy[Intent]:
    flags = st.booleans()
    return st.builds(Intent, st.sampled_from(["one", "two"]), prune=flags, delete_data=flags, rebalance=flags)


def uses(specs: list[DomainSpec]) -> Uses:
    stored = [
        (spec.host, store.path, f"{spec.owner}/{emulator.client}", store.read_only)
        for spec in specs
        for emulator in spec.emulators
        for store in (emulator.store, emulator.base)
        if store
    ]
    booted = [
        (spec.host, spec.boot.image, f"{spec.owner}/{spec.name}", True)
        for spec in specs
        if spec.role is Role.CLIENT and spec.boot.image
    ]
    return stored + booted


def clashes(found: Uses) -> list[str]:
    return [
        f"{path} on {where} is written by {who} and had by {other}"
        for where, path, who, reads in found
        for there, same, other, others in found
        if (where, path) == (there, same) and who != other and not reads
    ]


class Watched(ModelVmm):
    """A VMM on which is looked, after each step, who runs with which storage."""

    def _do(self, action: Action, name: str, plan: Plan) -> None:
        super()._do(action, name, plan)
        running = [one.active_spec for one in self.domains.values() if one.active and one.active_spec]
        assert clashes(uses(running)) == [], f"after {action.value} of {name}"


@given(st.lists(st.tuples(topologies(), intents()), min_size=2, max_size=4))
@settings(max_examples=150, deadline=None)
def test_storage_is_one_client_s_or_nobody_writes_it(turns: list[tuple[Topology, Intent]]) -> None:
    vmm = Watched(host("h1", cores=2), host("h2", cores=2))
    for wanted, intent in turns:
        # Two owners' clients of one name are two domains of one name, which this VMM cannot tell apart.
        theirs = {one.name for one in vmm.observe() if one.owner != intent.owner}
        mine = replace(wanted, clients=tuple(one for one in wanted.clients if one.name not in theirs))
        mine = replace(mine, device_vms=() if "s" in theirs else mine.device_vms)
        there = {
            f"{emulator.client}/{emulator.name}": one.spec.host
            for one in vmm.observe()
            if one.spec and one.owner == intent.owner
            for emulator in one.spec.emulators
        }
        plan = vmm.apply(mine, intent)
        found = uses([one.spec for one in vmm.observe() if one.spec])
        assert clashes(found) == []
        deleted = {
            (there[step.name], step.store.path) for step in plan.steps if step.action is Action.DELETE and step.store
        }
        assert not deleted & {(where, path) for where, path, who, reads in found}
