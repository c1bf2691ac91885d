"""Can the code that an alternative brings along emulate these devices?"""

from __future__ import annotations

from ..domain import DomainSpec
from ..errors import DevicevmError
from ..manifest.template import expand, template_values
from .code import Code
from .grouping import Unit
from .requests import Want


def why_not_run(code: Code, unit: Unit) -> str:
    """Why code cannot be what emulates a unit's devices; empty when it can."""
    for want in unit.wants:
        if not (code.firmware or code.command or want.class_.program.command):
            return f"class {want.class_.name} has no program that would run on it"
        if reason := _lacks_value(code, want):
            return f"{want.client.name}/{want.device.name}: {reason}"
        if (code.firmware or code.design) and (want.device.store or want.device.memory):
            what = "firmware has no storage" if code.firmware else "its one backing disk is the design"
            return f"{want.client.name}/{want.device.name} has content, and {what}"
    if unit.kept and unit.observed and not _goes_on(unit.observed, code):
        kept = unit.kept[0]
        return f"{kept.client}/{kept.name} is not declared here, and goes on as it is"
    return ""


def _lacks_value(code: Code, want: Want) -> str:
    """Why a command cannot be filled in for a device: a declared device VM may serve classes that it does not know."""
    if not code.command:
        return ""
    backed = bool(code.design or want.device.store or want.device.memory)
    try:
        expand(code.command, template_values(want.device, "0" if backed else ""))
    except DevicevmError as error:
        return error.message
    return ""


def _goes_on(spec: DomainSpec, code: Code) -> bool:
    """Whether emulators of which nothing is declared could go on under that code, whose program is not theirs."""
    return spec.firmware == code.firmware and (not code.image or spec.image.rpartition("-")[0] in ("", code.image))
