"""devicevm explain: why this resource, and why not the others?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ...errors import DevicevmError
from ...manifest.topology import Device, Topology
from ...planner.grouping import group_of
from ...planner.plan import Allocation, Plan
from ...planner.planner import Intent
from ...planner.requests import wants_of
from ...planner.resources import describe
from .. import output
from ..manifests import read
from ..options import Vmm, command, compose, format_option, inventory_option, owner_option, vmm_options
from ..planning import look
from ..planview import describe_resource


@command(
    "explain",
    ("Why does web's disk run where it runs?", "devicevm explain web.yaml web/data"),
    ("Would it fit on another host?", "devicevm explain web.yaml web/data --inventory other-host.json"),
)
@compose(
    click.argument("paths", nargs=-1, required=True, metavar="PATH... CLIENT/DEVICE"),
    inventory_option,
    owner_option,
    vmm_options,
    format_option,
)
def explain(*, paths: tuple[str, ...], inventories: tuple[Path, ...], owner: str, vmm: Vmm, form: str) -> int:
    """Tell why a device is where it is.

    Which resource runs its emulation code, why, and why not a better one. The last argument names the device as
    CLIENT/DEVICE. Exit status 1 when the device cannot be placed.
    """
    *manifests, name = paths
    if not manifests or name.count("/") != 1:
        raise click.UsageError(
            "give the manifests first and then one device, as in: devicevm explain web.yaml web/data"
        )
    topology = read(manifests)
    device = find_device(topology, name)
    intent = Intent(owner=owner)
    ground = look(vmm, topology, inventories)
    # What runs stays where it is, and that is all the reason there is: a plan from nothing tells the others.
    anew = _placing(ground.plan_anew(topology, intent), name)
    now = anew if inventories else _placing(ground.plan(topology, intent), name)
    if form == "json":
        output.document(_document(name, device, now, anew))
    elif now.allocation:
        _show(name, device, now.allocation, topology)
        for reason in now.reasons:
            output.line(f"  why: {reason}")
        for reason in anew.reasons if anew.reasons != now.reasons else ():
            output.line(f"  if it were placed anew: {reason}")
    else:
        output.line(f"{name} ({device.class_}) cannot be placed", "bold red")
        for reason in now.reasons:
            output.line(f"  {reason}")
    return 0 if now.allocation else 1


@dataclass(frozen=True)
class Placing:
    """What a plan says of one device: its allocation, or none, and the reasons."""

    allocation: Allocation | None
    reasons: tuple[str, ...]


def _placing(plan: Plan, name: str) -> Placing:
    allocation = next((item for item in plan.allocations if name in item.serves), None)
    if allocation:
        return Placing(allocation, allocation.reasons)
    client, _, device = name.partition("/")
    mine = [item for item in plan.unplaced if item.client == client and item.device in (device, "")]
    return Placing(None, tuple(reason for item in mine for reason in item.reasons))


def find_device(topology: Topology, name: str) -> Device:
    """The device CLIENT/DEVICE of what is declared; DevicevmError that names those there are."""
    devices = {f"{client.name}/{device.name}": device for client in topology.clients for device in client.devices}
    if name not in devices:
        raise DevicevmError(f"no device {name} is declared", hint=f"declared are: {', '.join(devices) or 'none'}")
    return devices[name]


def _document(name: str, device: Device, now: Placing, anew: Placing) -> dict[str, Any]:
    found: dict[str, Any] = {"device": name, "class": device.class_, "placed": now.allocation is not None}
    if now.allocation:
        found["allocation"] = now.allocation
    found["reasons"] = now.reasons
    if anew.reasons != now.reasons:
        found["reasonsIfPlacedAnew"] = anew.reasons
    return found


def _show(name: str, device: Device, allocation: Allocation, topology: Topology) -> None:
    output.line(f"{name} ({device.class_}) is emulated by device VM {allocation.device_vm} on host {allocation.host}")
    output.line(f"  resource: {describe_resource(allocation)}")
    for endpoint in allocation.endpoints:
        if endpoint.device == name:
            output.line(f"  endpoint: {endpoint.address} (its XML: devicevm endpoint)")
    others = [served for served in allocation.serves if served != name]
    if others:
        output.line(f"  it also serves: {', '.join(others)}")
    want = next((item for item in wants_of(topology) if item.id == name.replace("/", ".", 1)), None)
    declared = group_of(want, topology.device_vms).declared if want else None
    who, wanted = "its class asks", want.class_.resources if want else ()
    if declared and declared.resources:
        who, wanted = f"DeviceVM {declared.name} asks", declared.resources
    if wanted:
        output.line(f"  {who} for, best first: {'; '.join(map(describe, wanted))}")
