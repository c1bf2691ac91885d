"""What is twice as large takes twice the work, counted in lines of Python that are run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from devicevm.manifest.topology import Client, Device, Store, Topology
from devicevm.planner.planner import Intent
from devicevm.planner.taken import taken
from devicevm.planner.view import View
from world import GIB, ME, MIB, ModelVmm, class_, client, core, disk, host, topology

FEW = 40


def lines(function: Callable[[], object]) -> int:
    """How many lines are run."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def fleet(wanted: Topology) -> ModelVmm:
    vmm = ModelVmm(host(cores=64, memory=512 * GIB))
    vmm.apply(wanted)
    return vmm


def on(path: str, base: str = "") -> Device:
    """A disk on a file, which may be a copy of another."""
    golden = Store("file", MIB, base, read_only=True) if base else None
    return replace(disk(), memory=0, store=Store("file", MIB, path), base=golden)


def clients(number: int, device: Callable[[int], Device]) -> list[Client]:
    return [client(f"c{one:04}", device(one)) for one in range(number)]


def upgrade(number: int) -> Callable[[], object]:
    """Every device VM boots another build, and every client is restarted."""
    wanted = topology(*clients(number, lambda one: disk()))
    vmm = fleet(wanted)
    images = tuple(replace(image, digest="1" * 12) for image in vmm.hosts[0].images)
    vmm.hosts = (replace(vmm.hosts[0], images=images),)
    return lambda: vmm.plan(wanted, Intent("default", upgrade=True))


def golden(number: int) -> Callable[[], object]:
    """Everybody has a copy of the same file."""
    wanted = topology(*clients(number, lambda one: on(f"/d/{one}", "/golden")))
    vmm = fleet(wanted)
    return lambda: taken(wanted, View(vmm.inventory(), vmm.observe(), ME), frozenset())


def shifted(number: int) -> Callable[[], object]:
    """Everybody takes over the store of the next, and the last cannot give its own away."""
    vmm = fleet(topology(*clients(number, lambda one: on(f"/d/{one}"))))
    wanted = clients(number, lambda one: on(f"/d/{min(one + 1, number - 1)}"))
    wanted[-1] = replace(wanted[-1], devices=(*wanted[-1].devices, replace(disk("more"), class_="greedy")))
    declared = topology(*wanted, classes=(class_(), class_("greedy", resources=(core(99),))))
    return lambda: vmm.plan(declared)


@pytest.mark.parametrize("made", [upgrade, golden, shifted])
def test_twice_as_many_clients_take_twice_the_work(made: Callable[[int], Callable[[], object]]) -> None:
    few, many = lines(made(FEW)), lines(made(2 * FEW))
    assert few > FEW
    assert many < 2.2 * few
