"""devicevm apply: make it so."""

from __future__ import annotations

import click

from ...apply.workflow import Options, refuse_stale, refuse_unplaced, survey
from ...errors import DevicevmError
from ...inventory.host import Host
from ...planner.plan import Plan
from ...planner.planner import Intent, make_plan
from ...vmm.driver import Driver
from .. import output
from ..carrying import Manner, ask_about, carry, nothing_to_do, report
from ..changes import summary
from ..documents import read_plan
from ..manifests import read
from ..opening import locked_vmm
from ..options import (
    Vmm,
    carry_out_options,
    command,
    compose,
    format_option,
    lock_option,
    owner_option,
    paths_argument,
    prune_option,
    rebalance_option,
    upgrade_option,
    vmm_options,
    yes_option,
)
from ..rebalanceview import show_rebalance


@command(
    "apply",
    ("Make what is declared so, and remove what of it is no longer declared", "devicevm apply --prune manifests/"),
    ("Apply exactly the plan that was reviewed", "devicevm apply plan.json"),
    ("From a pipeline, with a result that other programs read", "kustomize build lab | devicevm apply --yes -o json -"),
    ("A set of manifests of its own, beside others on the same host", "devicevm apply --owner lab lab.yaml"),
)
@compose(
    paths_argument,
    prune_option,
    rebalance_option,
    upgrade_option,
    click.option("--allow-unplaced", is_flag=True, help="Apply the rest when something cannot be placed."),
    yes_option,
    carry_out_options,
    lock_option,
    owner_option,
    vmm_options,
    format_option,
)
def apply(  # noqa: PLR0913 - one for each option
    *,
    paths: tuple[str, ...],
    prune: bool,
    rebalance: bool,
    upgrade: bool,
    allow_unplaced: bool,
    yes: bool,
    parallel: int,
    timeout: float,
    lock_timeout: float,
    owner: str,
    vmm: Vmm,
    form: str,
) -> int:
    """Make what is declared so.

    PATH is a manifest, a folder of them, `-` for standard input, or one plan that `devicevm plan --out` wrote.
    What is as declared stays as it is. A saved plan is refused when the VMM has changed since it was made. On a
    terminal, steps that restart or remove something running are asked about first. When a step fails, what was
    made only for it is undone. Ctrl-C begins nothing more; the next apply goes on from there.
    """
    manner = Manner(yes, form, Options(parallel=parallel, timeout=timeout, allow_unplaced=allow_unplaced))
    saved = read_plan(paths)
    asked = {"--prune": prune, "--rebalance": rebalance, "--upgrade": upgrade}
    if saved and any(asked.values()):
        option = next(name for name, given in asked.items() if given)
        raise click.UsageError(f"{option} belongs to the making of a plan: give it to `devicevm plan`")
    if saved:
        with locked_vmm(vmm, lock_timeout) as driver:
            return _apply(saved, driver, _still_good(saved, driver), manner)
    topology = read(paths)
    with locked_vmm(vmm, lock_timeout) as driver:
        hosts, observed = survey(driver, topology)
        intent = Intent(owner=owner, prune=prune, rebalance=rebalance, upgrade=upgrade)
        made = make_plan(topology, hosts, observed, intent)
        return _apply(made, driver, hosts[0], manner)


def _still_good(plan: Plan, driver: Driver) -> Host:
    refuse_stale(plan, driver)
    host = driver.host()
    elsewhere = sorted({spec.host for spec in plan.domains} - {host.name})
    if elsewhere:
        raise DevicevmError(
            f"the plan is for {', '.join(elsewhere)}, and this host is {host.name}",
            hint="a plan over several hosts is for review: apply the manifests on each host",
        )
    return host


def _apply(plan: Plan, driver: Driver, host: Host, manner: Manner) -> int:
    if not manner.options.allow_unplaced:
        refuse_unplaced(plan)
    for warning in plan.warnings:
        output.warning(warning)
    show_rebalance(plan, output.note)
    if not plan.changes:
        return nothing_to_do(plan, manner)
    output.note(f"{host.name}: {summary(plan)}")
    ask_about(plan, manner)
    return report(plan, carry(plan, driver, host, manner), manner, "Applied")
