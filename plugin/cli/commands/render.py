"""devicevm render: what would be requested, in the VMM's own words."""

from __future__ import annotations

import click

from ...apply.workflow import survey
from ...domain import DomainSpec, ObservedDomain
from ...errors import DevicevmError
from ...manifest.topology import Topology
from ...planner.plan import Plan
from ...planner.planner import Intent, make_plan
from .. import output
from ..manifests import read
from ..opening import open_vmm
from ..options import Vmm, command, compose, format_option, owner_option, paths_argument, vmm_options


@command(
    "render",
    ("The XML of every domain that is declared", "devicevm render web.yaml"),
    ("Check one against libvirt's schema", "devicevm render web.yaml --domain web | virt-xml-validate - domain"),
)
@compose(
    paths_argument,
    click.option("--domain", "only", default="", metavar="NAME", help="Only this domain."),
    owner_option,
    vmm_options,
    format_option,
)
def render(*, paths: tuple[str, ...], only: str, owner: str, vmm: Vmm, form: str) -> int:
    """Show the domain XML that would be requested.

    Nothing is changed. Domains that are as declared already are shown too. Of an existing domain only the devices
    are shown that it is given. A comment names each domain; with --domain there is none.
    """
    topology = read(paths)
    with open_vmm(vmm) as driver:
        hosts, observed = survey(driver, topology)
        plan = make_plan(topology, hosts, observed, Intent(owner=owner))
        specs = wanted_domains(plan, observed, topology, owner)
        if only and only not in specs:
            raise DevicevmError(
                f"no domain {only} would be there", hint=f"there would be: {', '.join(specs) or 'none'}"
            )
        rendered = {name: driver.render(spec) for name, spec in specs.items() if only in ("", name)}
    for item in plan.unplaced:
        output.warning(f"{'/'.join(filter(None, (item.client, item.device)))} is not placed: {'; '.join(item.reasons)}")
    if form == "json":
        output.document([{"name": name, "role": specs[name].role, "xml": xml} for name, xml in rendered.items()])
        return 0
    for name, xml in rendered.items():
        if not only:
            output.line(f"<!-- {specs[name].role.value} {name} -->")
        output.line(xml.strip())
    return 0


def wanted_domains(
    plan: Plan, observed: tuple[ObservedDomain, ...], topology: Topology, owner: str
) -> dict[str, DomainSpec]:
    """The domains of what is declared, as they will be: from the plan, or as they are where it changes nothing."""
    now = {domain.name: domain.spec for domain in observed if domain.owner == owner and domain.spec}
    specs = now | {spec.name: spec for spec in plan.domains}
    clients = [specs[client.name] for client in topology.clients if client.name in specs]
    names = {allocation.device_vm for allocation in plan.allocations}
    names.update(attachment.device_vm for client in clients for attachment in client.attachments)
    wanted = [specs[name] for name in sorted(names) if name in specs] + clients
    return {spec.name: spec for spec in wanted}
