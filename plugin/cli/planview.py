"""A plan as people read it: the phases in their order, each step with what it does, why, and who feels it."""

from __future__ import annotations

from ..inventory.cpuset import format_cpuset
from ..planner.felt import words
from ..planner.plan import Action, Allocation, Effect, Phase, Plan, Step, Subject, Unplaced, Until
from ..quantity import format_bytes
from . import output
from .changes import Kind, kinds_of, summary
from .rebalanceview import show_rebalance

_PHASES = {
    Phase.REQUEST: "Request, from the VMM",
    Phase.CONFIGURE: "Configure, to run the emulation code",
    Phase.CONNECT: "Connect, the clients",
    Phase.RELEASE: "Release, what nobody needs",
}
_SUBJECTS = {
    Subject.DEVICE_VM: "device VM",
    Subject.CLIENT: "client",
    Subject.STORE: "storage",
    Subject.PART: "host part",
    Subject.DOMAIN: "domain",
}
_EFFECTS = {
    Effect.NONE: "",
    Effect.LIVE: "while it runs",
    Effect.RECONNECT: "reconnects",
    Effect.RESTART: "restarts",
    Effect.REPLACE: "replaces",
    Effect.REMOVE: "takes away from",
}
_STYLES = {Kind.ADD: "green", Kind.CHANGE: "yellow", Kind.REMOVE: "red"}
_CREATES = "make sure of"


def show_plan(plan: Plan) -> None:
    """The whole plan on standard output."""
    if plan.allocations:
        _heading("Determine, which resources run the emulation code")
    for allocation in plan.allocations:
        _show_allocation(allocation)
    show_steps(plan)
    if plan.unplaced:
        _heading("Not placed")
    _show_unplaced(plan.unplaced)
    for warning in plan.warnings:
        output.warning(warning)
    show_rebalance(plan, output.line)
    output.line(summary(plan), "bold")


def show_steps(plan: Plan) -> None:
    """The steps, phase by phase, on standard output."""
    kinds = kinds_of(plan)
    for phase, heading in _PHASES.items():
        steps = [step for step in plan.steps if step.phase is phase]
        if steps:
            _heading(heading)
        for step in steps:
            kind = kinds[step.id]
            output.line(f"  {kind.value} {describe(step)}: {step.reason}{effect(step)}", _STYLES[kind])
    if plan.steps:
        output.line()


def describe(step: Step) -> str:
    """`start device VM web-dvm`."""
    action = _CREATES if step.action is Action.CREATE else step.action.value
    return f"{action} {_SUBJECTS[step.kind]} {step.name}"


def effect(step: Step) -> str:
    """` [restarts web; web is away until it has booted]`; empty when nobody feels the step."""
    brief = _effect(step)
    told = "".join(f"; {words(felt)}" for felt in step.felt if felt.until is not Until.NEVER)
    return f"{brief[:-1]}{told}]" if brief and told else brief


def _effect(step: Step) -> str:
    verb = _EFFECTS[step.effect]
    if not verb:
        return ""
    if step.effect is Effect.REMOVE and step.kind is Subject.STORE:
        return " [the data is lost]"
    others = [name for name in step.affects if name != step.name or step.kind is not Subject.CLIENT]
    if step.effect is Effect.REMOVE and step.kind is Subject.CLIENT:
        return " [it stops running]" if step.action is Action.STOP else " [it is gone]"
    whom = ", ".join(others) or ("it" if step.effect in (Effect.RESTART, Effect.REPLACE, Effect.REMOVE) else "")
    return f" [{verb} {whom}]" if whom else f" [{verb}]"


def describe_resource(allocation: Allocation) -> str:
    """`core, CPUs 2,6, alone, memory 128MiB, channel stream`; what is no processor comes first."""
    cpus = f"CPUs {format_cpuset(allocation.cpus)}" if allocation.cpus else "any CPU"
    parts = [f"firmware {allocation.firmware}"] if allocation.firmware else []
    parts += [f"block {', '.join(allocation.blocks)}"] if allocation.blocks else []
    parts += [allocation.unit, cpus, "alone" if allocation.dedicated else "shared"]
    if allocation.nodes:
        parts.append(f"NUMA nodes {format_cpuset(allocation.nodes)}")
    return ", ".join([*parts, f"memory {format_bytes(allocation.memory)}", f"channel {allocation.channel}"])


def _show_allocation(allocation: Allocation) -> None:
    output.line(f"  {allocation.device_vm} on {allocation.host}: {describe_resource(allocation)}")
    output.line(f"      serves {', '.join(allocation.serves)}")
    for endpoint in allocation.endpoints:
        output.line(f"      endpoint of {endpoint.device}: {endpoint.address}")
    for reason in allocation.reasons:
        output.line(f"      {reason}", "dim")


def _show_unplaced(items: tuple[Unplaced, ...]) -> None:
    """What shares its reasons is told together: a client's devices stand and fall with each other."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for item in items:
        groups.setdefault(item.reasons, []).append(f"{item.client}/{item.device}" if item.device else item.client)
    for reasons, names in groups.items():
        output.line(f"  {', '.join(names)}", "red")
        for reason in reasons:
            output.line(f"      {reason}")


def _heading(text: str) -> None:
    output.line(text, "bold")
