"""devicevm endpoint: what any domain needs in its XML to have a device."""

from __future__ import annotations

import click

from ...apply.workflow import survey
from ...errors import DevicevmError
from ...frontend.registry import frontend_named
from ...manifest.topology import Consumer, Topology
from ...planner.planner import Intent, make_plan
from ...planner.requests import Home, Want, attachment_of, wants_of
from ...vmm.libvirt.element import to_text
from .. import output
from ..manifests import read
from ..opening import open_vmm
from ..options import Vmm, command, compose, format_option, owner_option, vmm_options
from .explain import find_device


@command(
    "endpoint",
    ("What a domain needs in its XML", "devicevm endpoint lab.yaml lab/data"),
    (
        "Give it to one that runs, as its second disk",
        "devicevm endpoint lab.yaml lab/data --number 1 | virsh attach-device DOMAIN /dev/stdin",
    ),
)
@compose(
    click.argument("paths", nargs=-1, required=True, metavar="PATH... CLIENT/DEVICE"),
    click.option(
        "--number",
        type=click.IntRange(0, 999),
        default=0,
        metavar="N",
        show_default=True,
        help="Which of its kind it is to be in that domain, counted from 0: 1 makes a disk vdb.",
    ),
    owner_option,
    vmm_options,
    format_option,
)
def endpoint(*, paths: tuple[str, ...], number: int, owner: str, vmm: Vmm, form: str) -> int:
    """Show the XML by which any domain can have a device.

    The last argument names a device of a client with `vmm: {}`, as CLIENT/DEVICE. Nothing is changed: to attach
    what is shown is yours to do. Exit status 1 when the device cannot be placed.
    """
    *manifests, name = paths
    if not manifests or name.count("/") != 1:
        raise click.UsageError(
            "give the manifests first and then one device, as in: devicevm endpoint lab.yaml lab/data"
        )
    topology = read(manifests)
    want = _want(topology, name)
    with open_vmm(vmm) as driver:
        hosts, observed = survey(driver, topology)
    plan = make_plan(topology, hosts, observed, Intent(owner=owner))
    home = next((allocation for allocation in plan.allocations if name in allocation.serves), None)
    if home is None:
        reasons = [reason for item in plan.unplaced if item.client == want.client.name for reason in item.reasons]
        raise DevicevmError(f"{name} cannot be placed: {'; '.join(reasons)}", hint="devicevm plan tells more")
    runtime = next(host.vmm.runtime_dir for host in hosts if host.name == home.host)
    attachment = attachment_of(want, owner, Home(home.device_vm), runtime)
    frontend = frontend_named(attachment.frontend)
    elements = [to_text(item, pretty=True) for item in frontend.elements(attachment, frontend.first + number)]
    if form == "json":
        output.document({"device": name, "address": attachment.channel.address, "xml": elements})
        return 0
    for text in elements:
        output.line(text.strip())
    return 0


def _want(topology: Topology, name: str) -> Want:
    """The device CLIENT/DEVICE, of a client that is the VMM."""
    find_device(topology, name)
    want = next(want for want in wants_of(topology) if f"{want.client.name}/{want.device.name}" == name)
    if want.client.consumer is not Consumer.VMM:
        raise DevicevmError(
            f"{name} is for its client alone, which is {want.client.consumer.value}",
            hint="a client with vmm: {} has devices for any domain",
        )
    return want
