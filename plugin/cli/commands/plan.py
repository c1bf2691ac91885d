"""devicevm plan: what would be done, where, why, and who feels it."""

from __future__ import annotations

from pathlib import Path

import click

from ...planner.plan import Plan
from ...planner.planner import Intent
from .. import output
from ..documents import plan_document, write_document
from ..manifests import read
from ..options import (
    Vmm,
    command,
    compose,
    format_option,
    inventory_option,
    owner_option,
    paths_argument,
    prune_option,
    rebalance_option,
    upgrade_option,
    vmm_options,
)
from ..planning import make
from ..planview import show_plan

PENDING = 2


@command(
    "plan",
    ("What would be done on this host", "devicevm plan web.yaml"),
    ("Keep the plan, have it reviewed, and apply just that", "devicevm plan web.yaml --out plan.json"),
    ("In a pipeline: 2 means that changes are pending", "devicevm plan --detailed-exitcode manifests/"),
    ("For hosts that cannot be reached from here", "devicevm plan web.yaml --inventory a.json --inventory b.json"),
)
@compose(
    paths_argument,
    inventory_option,
    click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write the plan to this file, for `devicevm apply FILE`.",
    ),
    prune_option,
    rebalance_option,
    upgrade_option,
    click.option(
        "--detailed-exitcode", is_flag=True, help="Exit with 2 when there are changes, 0 when there are none."
    ),
    owner_option,
    vmm_options,
    format_option,
)
def plan(  # noqa: PLR0913 - one for each option
    *,
    paths: tuple[str, ...],
    inventories: tuple[Path, ...],
    out: Path | None,
    prune: bool,
    rebalance: bool,
    upgrade: bool,
    detailed_exitcode: bool,
    owner: str,
    vmm: Vmm,
    form: str,
) -> int:
    """Show what would be done, and why.

    Nothing is changed. First come the resources that were determined for each device VM, then what is requested
    from the VMM, how device VMs are configured, which clients are connected and what is released. A device that
    cannot be placed is shown with every reason, and is no error here: `apply` refuses such a plan.
    """
    made = make(read(paths), Intent(owner=owner, prune=prune, rebalance=rebalance, upgrade=upgrade), vmm, inventories)
    if out:
        write_document(out, plan_document(made))
        output.note(f"plan written to {out}; apply it with: devicevm apply {out}")
    if form == "json":
        output.document(plan_document(made))
    else:
        show_plan(made)
    return PENDING if detailed_exitcode and _pending(made) else 0


def _pending(made: Plan) -> bool:
    """What is declared and cannot be had is not there, so it is pending too."""
    return bool(made.changes or made.unplaced)
