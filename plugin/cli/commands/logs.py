"""devicevm logs: what a domain has said."""

from __future__ import annotations

import click

from ...domain import DomainSpec, Role
from ...errors import DevicevmError
from ...guest.control import Control
from .. import output
from ..opening import find_domain, open_vmm, specification
from ..options import Vmm, command, compose, format_option, vmm_options

_SECONDS = 5.0


@command(
    "logs",
    ("What a device VM and its emulators said last", "devicevm logs web-dvm"),
    ("More of a client's console", "devicevm logs web --lines 500"),
)
@compose(
    click.argument("name"),
    click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=100, metavar="N", help="Lines of each log."),
    vmm_options,
    format_option,
)
def logs(*, name: str, lines: int, vmm: Vmm, form: str) -> int:
    """Show what a domain has said.

    NAME is a client or a device VM: the last lines of its console, and of the agent's log when it is a device VM
    that runs, and of the processes on the host beside it. What guests say is shown without control characters.
    """
    with open_vmm(vmm) as driver:
        domain = find_domain(driver, name)
        spec = specification(domain)
        console = driver.console_tail(spec, lines)
        parts = {one.id: driver.parts.tail(one.part, lines) for one in spec.emulators if one.part}
    agent: tuple[str, ...] = ()
    problem = ""
    if spec.firmware:
        output.warning(f"{name} runs firmware: it has no console and no agent, and what it says goes to its client")
    elif domain.active and domain.role is Role.DEVICE_VM and spec.has_agent:
        agent, problem = _agent_log(spec, lines)
    if form == "json":
        output.document({"name": name, "console": console, "agent": agent, "parts": parts})
    else:
        _show("console", console)
        if agent:
            _show("agent", agent)
        for device, said in parts.items():
            _show(f"host part of {device}", said)
    if problem:
        output.warning(f"the agent's log cannot be had: {problem}")
    return 0


def _agent_log(spec: DomainSpec, lines: int) -> tuple[tuple[str, ...], str]:
    try:
        with Control(spec.control, timeout=_SECONDS) as control:
            return control.log(lines), ""
    except DevicevmError as error:
        return (), error.message


def _show(heading: str, lines: tuple[str, ...]) -> None:
    output.line(f"==> {heading} <==", "bold")
    for text in lines or ("(nothing)",):
        output.line(text.expandtabs())
