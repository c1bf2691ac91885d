"""devicevm status: what there is, and how it is."""

from __future__ import annotations

import click

from ...health import check_health
from .. import output
from ..opening import open_vmm
from ..options import Vmm, command, compose, format_option, owner_name, vmm_options
from ..statusview import show_health


@command(
    "status",
    ("Everything of devicevm's on this host", "devicevm status"),
    ("One set of manifests", "devicevm status --owner lab"),
    (
        "Since when is which device as it is?",
        "devicevm status -o json | jq '.devices[] | [.client, .device, .state, .since]'",
    ),
    ("Which devices are not connected?", "devicevm status -o json | jq '.devices[] | select(.state != \"connected\")'"),
)
@compose(
    click.option(
        "--owner",
        callback=owner_name,
        default="",
        envvar="DEVICEVM_OWNER",
        show_envvar=True,
        metavar="NAME",
        help="Only what belongs to this owner; else everybody's.",
    ),
    vmm_options,
    format_option,
)
def status(*, owner: str, vmm: Vmm, form: str) -> int:
    """Show what there is and how it is.

    Device VMs, clients and devices, with their channels. A device is connected (its client uses it), reconnecting (its
    client runs and is not connected: the device VM is being restarted, or the client has not come back yet), ready
    (nobody uses it), starting, failed, stopped, part stopped (the process on the host between the two does not run),
    running (nobody uses it, and there is no agent to ask), or unknown (its device VM does not answer, or the
    VMM runs no guests).

    For how long it has been so stands beside it (-o json: since), where that is known: a device VM that runs
    remembers it, and the manager knows when one died. What a device VM says is its own word.
    """
    with open_vmm(vmm) as driver:
        host = driver.host()
        health = check_health(driver, host.vmm.supports, owner)
    if form == "json":
        output.document(health)
        return 0
    show_health(health, host.vmm.uri, owner)
    return 0
