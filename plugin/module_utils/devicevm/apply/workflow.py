"""From a topology to a changed VMM: what every front end (command line, Ansible) calls."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ..domain import ObservedDomain
from ..errors import DevicevmError
from ..inventory.host import Host
from ..inventory.supports import GUESTS
from ..manifest.topology import Topology
from ..planner.code import files_named
from ..planner.plan import Plan
from ..planner.planner import Intent, make_plan
from ..planner.specify import state_digest
from ..vmm.driver import Driver
from ..vmm.hostfiles import look_at
from .actions import make_context
from .check import check_plan, check_version
from .executor import execute
from .outcome import Outcome
from .progress import Progress
from .references import refuse_missing

DEFAULT_TIMEOUT = 60.0
_NOTHING = Topology()


class StalePlan(DevicevmError):
    """The VMM has moved on since the plan was made."""


class Unplaceable(DevicevmError):
    """Something declared cannot be had; nothing was done."""


@dataclass(frozen=True)
class Options:
    """How to apply. `parallel` steps at once, `timeout` seconds for a device VM to become ready."""

    parallel: int = 8
    timeout: float = DEFAULT_TIMEOUT
    boots: int = 0
    """Guests that boot at once; 0 = as many as the host has cores, at least two."""
    allow_unplaced: bool = False


def survey(driver: Driver, topology: Topology = _NOTHING) -> tuple[tuple[Host, ...], tuple[ObservedDomain, ...]]:
    """What the host has, with the files that `topology` names as emulation code, and what of devicevm's is on it."""
    observed = driver.observe()
    host = driver.host()
    paths = files_named(topology) if GUESTS in host.vmm.supports else ()
    return (replace(host, files=look_at(paths)) if paths else host,), observed


def plan_on(driver: Driver, topology: Topology, intent: Intent) -> Plan:
    """The plan for one host, from what its VMM says now."""
    hosts, observed = survey(driver, topology)
    return make_plan(topology, hosts, observed, intent)


def refuse_unplaced(plan: Plan) -> None:
    """Raise Unplaceable with every reason when the plan leaves something out."""
    if plan.unplaced:
        lines = [
            f"{item.client}/{item.device}: {reason}" if item.device else f"{item.client}: {reason}"
            for item in plan.unplaced
            for reason in item.reasons
        ]
        raise Unplaceable(
            "cannot be placed:\n" + "\n".join(f"  {line}" for line in lines),
            hint="nothing was changed; make room, change the manifest, or apply the rest with --allow-unplaced",
        )


def refuse_stale(plan: Plan, driver: Driver) -> None:
    """Raise StalePlan when the VMM is not as it was when the plan was made, DevicevmError when no plan is like that."""
    hosts, observed = survey(driver)
    check_version(plan.api_version, plan.kind)
    if plan.made_from != state_digest(hosts, observed):
        raise StalePlan("stale plan: the VMM has changed since it was made", hint="make the plan anew and review it")
    check_plan(plan, observed)


def carry_out(plan: Plan, driver: Driver, host: Host, options: Options, progress: Progress) -> Outcome:
    """Apply a plan that was just made, or that `refuse_stale` has let pass."""
    if not options.allow_unplaced:
        refuse_unplaced(plan)
    if GUESTS in host.vmm.supports:
        refuse_missing(plan)
    boots = options.boots or max(2, len(host.cpus) or os.cpu_count() or 2)
    context = make_context(plan, driver, host.vmm.supports, options.timeout)
    return execute(context, max(1, options.parallel), boots, progress)
