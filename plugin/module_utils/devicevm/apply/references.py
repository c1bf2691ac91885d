"""Files that a plan only refers to, and that must be there before anything is started: keys, and what is copied."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..domain import DomainSpec, Emulator
from ..errors import DevicevmError
from ..planner.plan import Action, Plan, Subject
from ..vmm.secrets import read_secret

_STARTS = frozenset((Action.START, Action.UPDATE))


def refuse_missing(plan: Plan) -> None:
    """Raise DevicevmError with all that is wrong with the files that the plan's device VMs need to start or change."""
    names = {step.name for step in plan.steps if step.kind is Subject.DEVICE_VM and step.action in _STARTS}
    wrong = [line for spec in plan.domains if spec.name in names for line in _wrong(spec)]
    if wrong:
        raise DevicevmError(
            "files that devices need cannot be used:\n" + "\n".join(f"  {line}" for line in wrong),
            hint="nothing was changed; make them, or change the manifest",
        )


def _wrong(spec: DomainSpec) -> Iterator[str]:
    for emulator in spec.emulators:
        for reason in _reasons(emulator):
            yield f"{emulator.client}/{emulator.name}: {reason}"


def _reasons(emulator: Emulator) -> Iterator[str]:
    if emulator.base and not os.path.isfile(emulator.base.path):
        yield f"its base {emulator.base.path} is not there, or no plain file"
    for secret in emulator.secrets:
        try:
            read_secret(secret.path)
        except DevicevmError as error:
            yield f"{error.message} ({error.hint})" if error.hint else error.message
