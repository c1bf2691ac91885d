"""devicevm inventory: the host as the planner sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ...inventory.host import Host
from ...inventory.offline import host_from_documents
from .. import output
from ..documents import read_text
from ..hostview import show_host
from ..opening import open_vmm
from ..options import Vmm, command, compose, format_option, vmm_options


@command(
    "inventory",
    ("What this host has, and who holds what of it", "devicevm inventory"),
    ("Record it, to plan elsewhere", "devicevm inventory -o json > lab1.json"),
    (
        "A host from what libvirt once said of it",
        "devicevm inventory --from-capabilities caps.xml --domain-capabilities q35.xml --name lab2 -o json",
    ),
)
@compose(
    click.option(
        "--from-capabilities",
        "capabilities",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Offline: the output of `virsh capabilities`.",
    ),
    click.option(
        "--domain-capabilities",
        "domain_capabilities",
        type=click.Path(path_type=Path),
        metavar="FILE",
        multiple=True,
        help="Offline: the output of `virsh domcapabilities`; may be given more than once.",
    ),
    click.option(
        "--node-devices",
        "node_devices",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Offline: a folder of `virsh nodedev-dumpxml` outputs.",
    ),
    click.option("--name", default="", help="The host's name; else its own, or offline the file's."),
    vmm_options,
    format_option,
)
def inventory(
    *,
    capabilities: Path | None,
    domain_capabilities: tuple[Path, ...],
    node_devices: Path | None,
    name: str,
    vmm: Vmm,
    form: str,
) -> int:
    """Show what the host has and who holds it.

    Processors, memory, devices, images and the accelerator, as the planner sees them. With -o json it is the
    document that `devicevm plan --inventory` takes.
    """
    if capabilities:
        host = _recorded(capabilities, domain_capabilities, node_devices, name or capabilities.stem)
    elif domain_capabilities or node_devices:
        raise click.UsageError("--domain-capabilities and --node-devices go with --from-capabilities")
    else:
        with open_vmm(vmm) as driver:
            host = driver.host()
        host = replace(host, name=name) if name else host
    if form == "json":
        output.document(host)
    else:
        show_host(host)
    return 0


def _recorded(capabilities: Path, domain_capabilities: tuple[Path, ...], node_devices: Path | None, name: str) -> Host:
    folder = sorted(node_devices.glob("*.xml")) if node_devices else []
    return host_from_documents(
        read_text(capabilities),
        name=name,
        domain_capabilities=[read_text(path) for path in domain_capabilities],
        node_devices=[read_text(path) for path in folder],
    )
