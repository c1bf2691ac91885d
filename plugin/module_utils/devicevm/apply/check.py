"""Is a plan that comes from a file one that can be carried out? Pure.

A saved plan is anybody's to edit: what the planner never writes is refused here, before anything is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .. import API_VERSION
from ..domain import DomainSpec, ObservedDomain, Role
from ..errors import DevicevmError
from ..manifest.topology import Consumer
from ..planner.plan import Action, Plan, Step, Subject
from .actions import POSSIBLE

_SHOWN = 20
_ROLE = {Subject.CLIENT: Role.CLIENT, Subject.DEVICE_VM: Role.DEVICE_VM}
# What a step reads of the plan to do its work: the domain as it is to be, and as it was.
_NEEDS_SPEC = {
    (Action.DEFINE, Subject.CLIENT),
    (Action.DEFINE, Subject.DEVICE_VM),
    (Action.START, Subject.DEVICE_VM),
    (Action.UPDATE, Subject.DEVICE_VM),
    (Action.UPDATE, Subject.CLIENT),
    (Action.ATTACH, Subject.CLIENT),
    (Action.RESUME, Subject.CLIENT),
}


def check_version(api_version: object, kind: object) -> None:
    """DevicevmError for a document that is no plan, or one of another version than this program writes."""
    if kind != "Plan":
        raise DevicevmError(f"kind is {kind!r}, not 'Plan'", hint="devicevm plan --out writes a plan")
    if api_version != API_VERSION:
        raise DevicevmError(
            f"the plan's apiVersion is {api_version!r}, and this devicevm knows {API_VERSION!r}",
            hint="apply it with the version of devicevm that made it, or make it anew with this one",
        )


def check_plan(plan: Plan, observed: tuple[ObservedDomain, ...] = ()) -> None:
    """DevicevmError that lists everything wrong with a plan; `observed` is what the VMM has of devicevm's."""
    check_version(plan.api_version, plan.kind)
    wrong = [*_domains(plan), *_steps(plan, observed), *_order(plan.steps)]
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise DevicevmError(
            "the plan cannot be carried out:\n" + "\n".join(f"  {line}" for line in wrong[:_SHOWN] + more),
            hint="nothing was changed; make the plan anew with: devicevm plan --out",
        )


def _domains(plan: Plan) -> Iterator[str]:
    for what, specs in (("domains", plan.domains), ("previous", plan.previous)):
        for name, count in Counter(spec.name for spec in specs).items():
            if count > 1:
                yield f"{what}: {name} is there {count} times"
        for spec in specs:
            if spec.owner != plan.owner:
                yield f"{what}: {spec.name} is owner {spec.owner!r}'s, and the plan is {plan.owner!r}'s"


def _steps(plan: Plan, observed: tuple[ObservedDomain, ...]) -> Iterator[str]:
    wanted = {spec.name: spec for spec in plan.domains}
    before = {spec.name: spec for spec in plan.previous}
    # What is in existing domains goes by its clients' names, which are an owner's own affair.
    mine = {domain.name: domain for domain in observed if domain.owner == plan.owner}
    made = {domain.name: domain for domain in observed if domain.consumer is Consumer.VM}
    seen = {**mine, **made}
    for step in plan.steps:
        if (step.action, step.kind) not in POSSIBLE:
            yield f"{step.id}: there is no step {step.action.value} for a {step.kind.value}"
        elif step.kind is Subject.STORE:
            if step.store is None:
                yield f"{step.id}: it does not say which store"
        elif step.kind is Subject.PART:
            if step.part is None:
                yield f"{step.id}: it does not say which process"
        elif step.kind is Subject.DOMAIN:
            if step.repin is None:
                yield f"{step.id}: it does not say where {step.name} is to run"
            elif step.name in made or (step.name in wanted and wanted[step.name].consumer is Consumer.VM):
                yield f"{step.id}: {step.name} is devicevm's own"
        else:
            yield from _domain_step(plan, step, wanted, before, seen)


def _domain_step(
    plan: Plan,
    step: Step,
    wanted: dict[str, DomainSpec],
    before: dict[str, DomainSpec],
    seen: dict[str, ObservedDomain],
) -> Iterator[str]:
    known = [found for found in (wanted.get(step.name), before.get(step.name), seen.get(step.name)) if found]
    if not known:
        yield f"{step.id}: nothing is known of a domain {step.name!r}"
        return
    # A name may pass from a client to a device VM in one plan, so one of them has to be what the step says.
    if all(found.role is not _ROLE[step.kind] for found in known):
        yield f"{step.id}: {step.name} is no {step.kind.value}"
    if step.name in seen and seen[step.name].owner != plan.owner:
        yield f"{step.id}: {step.name} is owner {seen[step.name].owner!r}'s, and the plan is {plan.owner!r}'s"
    if (step.action, step.kind) in _NEEDS_SPEC and step.name not in wanted:
        yield f"{step.id}: the plan does not say what {step.name} is to be"
    if step.action in (Action.UPDATE, Action.DETACH) and step.name not in before:
        yield f"{step.id}: the plan does not say what {step.name} was"


def _order(steps: tuple[Step, ...]) -> Iterator[str]:
    for key, count in Counter(step.id for step in steps).items():
        if count > 1:
            yield f"{key}: {count} steps have this id"
    after = {step.id: {*step.after, *step.behind} for step in steps}
    for step in steps:
        unknown = sorted(after[step.id] - after.keys())
        if unknown:
            yield f"{step.id}: it is to come after {', '.join(unknown)}, and there is no such step"
    waiting = {key: keys & after.keys() for key, keys in after.items()}
    while free := [key for key, keys in waiting.items() if not keys]:
        for key in free:
            del waiting[key]
        for keys in waiting.values():
            keys.difference_update(free)
    if waiting:
        yield f"these steps wait for each other, or for some that do: {', '.join(sorted(waiting))}"
