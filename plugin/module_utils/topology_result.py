# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan, and what became of it, as the result of a task. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .devicevm.apply.outcome import Outcome
from .devicevm.domain import DomainSpec, ObservedDomain
from .devicevm.planner.felt import words
from .devicevm.planner.plan import Action, Effect, Plan, Step, Subject
from .devicevm.record import to_data

_NO_SPEC = (Subject.STORE, Subject.DOMAIN)
_PLAIN = re.compile(r"[\w./][\w./:-]*", re.ASCII)


def planned(plan: Plan) -> dict[str, Any]:
    """What is returned of a plan whether it is carried out or not."""
    count = len(plan.steps)
    return {
        "changed": bool(plan.steps),
        "msg": f"{count} step{'s' if count != 1 else ''} to do" if count else "all is as declared",
        "plan": {"apiVersion": plan.api_version, "kind": plan.kind, **to_data(plan)},
        "steps": [to_data(step) for step in plan.steps],
        "allocations": to_data(plan.allocations),
        "unplaced": to_data(plan.unplaced),
    }


def carried_out(plan: Plan, outcome: Outcome, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What is returned besides once the plan was carried out; `seconds` says how long steps took, by id."""
    became = {
        **dict.fromkeys(outcome.done, "done"),
        **dict.fromkeys(outcome.failed, "failed"),
        **dict.fromkeys(outcome.skipped, "skipped"),
        **dict.fromkeys(outcome.undone, "undone"),
    }
    steps = [
        {**to_data(step), "result": became[step.id]}
        | ({"seconds": round(seconds[step.id], 2)} if step.id in seconds else {})
        for step in plan.steps
    ]
    return {
        "changed": bool(set(outcome.done) - set(outcome.undone) or outcome.undo_errors),
        "msg": f"{len(outcome.done)} of {len(plan.steps)} steps done",
        "steps": steps,
        "done": outcome.done,
        "failed_steps": outcome.failed,
        "skipped_steps": outcome.skipped,
        "undone": outcome.undone,
    }


def failure(plan: Plan, outcome: Outcome) -> str:
    """Which steps failed and why, what was undone, and what is left."""
    lines = [f"{len(outcome.failed)} of {len(plan.steps)} steps failed"]
    lines += [f"{key}: {error}" for key, error in outcome.errors.items()]
    for title, keys in (
        ("not begun because of that", outcome.skipped),
        ("undone", outcome.undone),
        ("done and kept", [key for key in outcome.done if key not in outcome.undone]),
    ):
        if keys:
            lines.append(f"{title}: {', '.join(keys)}")
    lines += [f"{key} could not be undone: {error}" for key, error in outcome.undo_errors.items()]
    return "\n".join([*lines, "hint: run the task again once the cause is gone, it goes on from there"])


def difference(plan: Plan, observed: Iterable[ObservedDomain]) -> dict[str, Any]:
    """Ansible's diff: every domain that a step is about, before and after, and the steps with their reasons.

    Backing storage that a step makes sure of is among the steps only: whether it is there is seen when it is done.
    """
    before, after = _before(plan, observed), _after(plan, observed)
    return {
        "before_header": f"owner {plan.owner}",
        "after_header": f"owner {plan.owner}",
        "before": _text(before),
        "after": _text(after),
        "prepared": "".join(f"{line}\n" for line in _told(plan)),
    }


def _before(plan: Plan, observed: Iterable[ObservedDomain]) -> dict[str, Any]:
    touched = {step.name: step.kind for step in plan.steps if step.kind not in _NO_SPEC}
    states: dict[str, Any] = {}
    for domain in observed:
        if domain.owner == plan.owner and domain.name in touched:
            state = _state(domain.active, domain.active_spec or domain.spec)
            drift = domain.drift or ((domain.broken,) if domain.broken else ())
            states[_title(touched[domain.name], domain.name)] = state | ({"drift": list(drift)} if drift else {})
    for step in plan.steps:
        if step.action is Action.DELETE:
            states[_title(step.kind, step.name)] = to_data(step.store)
    return states


def _after(plan: Plan, observed: Iterable[ObservedDomain]) -> dict[str, Any]:
    active = {domain.name for domain in observed if domain.active and domain.owner == plan.owner}
    specs = {spec.name: spec for spec in plan.domains}
    acts: dict[tuple[Subject, str], set[Action]] = {}
    for step in plan.steps:
        acts.setdefault((step.kind, step.name), set()).add(step.action)
    states: dict[str, Any] = {}
    for (kind, name), actions in acts.items():
        if kind not in _NO_SPEC and Action.UNDEFINE not in actions and actions != {Action.DETACH}:
            runs = Action.START in actions or (name in active and Action.STOP not in actions)
            states[_title(kind, name)] = _state(runs, specs[name])
    return states


def _state(active: bool, spec: DomainSpec | None) -> dict[str, Any]:
    return {"state": "running" if active else "stopped", **(to_data(spec) if spec else {})}


def _title(kind: Subject, name: str) -> str:
    return f"{kind.value} {name}"


def _told(plan: Plan) -> list[str]:
    lines = [f"{step.phase.value}: {step.id}: {step.reason}{_felt(step)}" for step in plan.steps]
    for item in plan.unplaced:
        what = f"{item.client}/{item.device}" if item.device else item.client
        lines += [f"not placed: {what}: {reason}" for reason in item.reasons]
    return lines


def _felt(step: Step) -> str:
    if step.effect is Effect.NONE:
        return ""
    whom = f" {', '.join(step.affects)}" if step.affects else ""
    told = "".join(f"; {words(felt)}" for felt in step.felt)
    return f" [{step.effect.value}{whom}{told}]"


def _text(value: Mapping[str, Any], indent: str = "") -> str:
    """Data as a diff shows it best, in the manner of YAML: one line for each value, lists of plain values on one."""
    lines = []
    for key in sorted(value):
        item = value[key]
        if isinstance(item, dict) and item:
            lines.append(f"{indent}{key}:\n{_text(item, indent + '  ')}")
        elif isinstance(item, list) and any(isinstance(one, dict) for one in item):
            lines.append(f"{indent}{key}:\n")
            lines += [f"{indent}  - {_text(one, indent + '    ').lstrip()}" for one in item]
        else:
            lines.append(f"{indent}{key}: {_short(item)}\n")
    return "".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value)
