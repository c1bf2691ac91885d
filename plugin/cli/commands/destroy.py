"""devicevm destroy: take away what was made."""

from __future__ import annotations

import click

from ...apply.workflow import Options, survey
from ...guest.store import ImageStore
from ...manifest.topology import DEFAULT_OWNER, Topology
from ...planner.plan import Plan
from ...planner.planner import Intent, make_plan, removal
from ...vmm.driver import Driver
from .. import output
from ..carrying import Manner, carry, confirm, nothing_to_do, report
from ..changes import summary
from ..imageuse import forget_versions
from ..manifests import read
from ..opening import locked_vmm, overlays_of, store_of
from ..options import (
    Vmm,
    carry_out_options,
    command,
    compose,
    format_option,
    lock_option,
    owner_name,
    vmm_options,
    yes_option,
)
from ..planview import describe, effect


@command(
    "destroy",
    ("What these manifests declare", "devicevm destroy web.yaml"),
    ("Everything of one owner's, whatever the manifests say now", "devicevm destroy --owner lab"),
    ("With the data of its disks, and without a question", "devicevm destroy --yes --delete-data web.yaml"),
)
@compose(
    click.argument("paths", nargs=-1, metavar="[PATH...]"),
    click.option(
        "--owner",
        callback=owner_name,
        default=None,
        envvar="DEVICEVM_OWNER",
        show_envvar=True,
        metavar="NAME",
        help=f"Whose; without PATH all of this owner's.  [default: {DEFAULT_OWNER} with PATH]",
    ),
    click.option(
        "--delete-data",
        is_flag=True,
        help="Delete the backing storage of what is removed, too, unless its store says to retain it.",
    ),
    yes_option,
    carry_out_options,
    lock_option,
    vmm_options,
    format_option,
)
def destroy(  # noqa: PLR0913 - one for each option
    *,
    paths: tuple[str, ...],
    owner: str | None,
    delete_data: bool,
    yes: bool,
    parallel: int,
    timeout: float,
    lock_timeout: float,
    vmm: Vmm,
    form: str,
) -> int:
    """Take away what was made.

    The clients that the manifests declare are stopped and removed, and the device VMs that then serve nobody.
    Data stays unless --delete-data says otherwise. Versions of images that newer ones have replaced go with the
    last domain that boots them.
    """
    source = click.get_current_context().get_parameter_source("owner")
    if not paths and (owner is None or source is not click.core.ParameterSource.COMMANDLINE):
        raise click.UsageError("say what to destroy: PATH..., or --owner NAME for all of an owner's")
    topology = read(paths) if paths else Topology()
    intent = Intent(owner=owner or DEFAULT_OWNER, prune=not paths, delete_data=delete_data)
    manner = Manner(yes, form, Options(parallel=parallel, timeout=timeout, allow_unplaced=True))
    with locked_vmm(vmm, lock_timeout) as driver:
        hosts, observed = survey(driver)
        left, intent = removal(topology, intent)
        made = make_plan(left, hosts, observed, intent)
        if not made.changes:
            return nothing_to_do(made, manner)
        _tell(made)
        confirm("Go on?", manner)
        outcome = carry(made, driver, hosts[0], manner)
        _forget_images(made, driver, vmm)
    return report(made, outcome, manner, "Destroyed")


def _tell(plan: Plan) -> None:
    for step in plan.steps:
        output.note(f"  {describe(step)}: {step.reason}{effect(step)}", "red")
    for warning in plan.warnings:
        output.warning(warning)
    output.note(summary(plan))


def _forget_images(plan: Plan, driver: Driver, vmm: Vmm) -> None:
    """Only versions that what was destroyed has booted: other VMMs on this host may need the rest."""
    folders = {spec.image for spec in plan.previous if spec.image}
    for image in forget_versions(ImageStore(store_of(vmm)), driver.observe(), overlays_of(vmm), folders):
        output.note(f"image {image.folder} removed: it is superseded, and nobody boots it any more")
