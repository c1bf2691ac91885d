"""devicevm status: what there is, and how it is."""

from __future__ import annotations

import click

from ...health import DeviceHealth, DomainHealth, check_health
from ...inventory.cpuset import format_cpuset
from ...planner.domain import Role
from ...quantity import format_bytes
from .. import output
from ..opening import open_vmm
from ..options import Vmm, command, compose, format_option, vmm_options


@command(
    "status",
    ("Everything of devicevm's on this host", "devicevm status"),
    ("One set of manifests", "devicevm status --owner lab"),
    ("Which devices are not connected?",
     "devicevm status -o json | jq '.devices[] | select(.state != \"connected\")'"),
)
@compose(
    click.option("--owner", default="", envvar="DEVICEVM_OWNER", show_envvar=True, metavar="NAME",
                 help="Only what belongs to this owner; else everybody's."),
    vmm_options,
    format_option,
)
def status(*, owner: str, vmm: Vmm, form: str) -> int:
    """Show device VMs, clients and devices, with their channels and how they are.

    A device is connected (its client uses it), ready (nobody does), starting, failed, stopped, or unknown (its device
    VM does not answer, or the VMM runs no guests). What a device VM says is its own word.
    """
    with open_vmm(vmm) as driver:
        host = driver.host()
        health = check_health(driver, host.vmm.supports, owner)
    if form == "json":
        output.document(health)
        return 0
    if not health.domains:
        output.line(f"Nothing of {f'owner {owner}' if owner else 'devicevm'}'s is on {host.vmm.uri}.")
        return 0
    for heading, role in (("Device VMs", Role.DEVICE_VM), ("Clients", Role.CLIENT)):
        _show_domains(heading, [domain for domain in health.domains if domain.role == role.value])
    _show_devices(list(health.devices))
    return 0


def _show_domains(heading: str, domains: list[DomainHealth]) -> None:
    if not domains:
        return
    output.line(heading, "bold")
    rows = [
        (domain.name, domain.owner, domain.state, format_cpuset(domain.cpus) or "any", format_bytes(domain.memory),
         "; ".join(domain.drift) or "none")
        for domain in domains
    ]
    output.table(("name", "owner", "state", "cpus", "memory", "drift"), rows)
    output.line()


def _show_devices(devices: list[DeviceHealth]) -> None:
    if not devices:
        return
    output.line("Devices", "bold")
    rows = [
        (f"{item.client}/{item.device}", item.class_, item.device_vm, item.state, str(item.restarts),
         f"{item.channel} {item.address}", item.detail)
        for item in devices
    ]
    if not any(item.detail for item in devices):
        rows = [row[:-1] for row in rows]  # type: ignore[misc]
    headings = ("device", "class", "device vm", "state", "restarts", "channel", "detail")
    output.table(headings[: len(rows[0])], rows)
