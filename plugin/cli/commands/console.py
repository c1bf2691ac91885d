"""devicevm console: type into a domain's console."""

from __future__ import annotations

import os
import shutil
import sys

import click

from ...errors import DevicevmError
from .. import output
from ..opening import find_domain, open_vmm
from ..options import Vmm, command, compose, vmm_options


@command(
    "console",
    ("A client's first serial port", "devicevm console web"),
    ("On another VMM", "devicevm console --connect qemu:///session web"),
)
@compose(click.argument("name"), vmm_options)
def console(*, name: str, vmm: Vmm) -> int:
    """Type into a domain's console.

    NAME is a client or a device VM; Ctrl-] leaves its console. It is virsh that does it: with --connect given,
    `virsh console NAME` is the same.
    """
    with open_vmm(vmm) as driver:
        domain = find_domain(driver, name)
        uri = driver.host().vmm.uri
    if not domain.active:
        raise DevicevmError(f"{name} does not run", hint=f"what it said last: devicevm logs {name}")
    if domain.spec and domain.spec.firmware:
        raise DevicevmError(f"{name} runs firmware: it has no console, its serial ports are its devices")
    virsh = shutil.which("virsh")
    if virsh is None:
        raise DevicevmError("virsh is not installed", hint="apt-get install libvirt-clients")
    if not terminal():
        raise DevicevmError("a console needs a terminal", hint=f"what it said: devicevm logs {name}")
    output.note(f"console of {name}; Ctrl-] leaves it")
    sys.stderr.flush()
    os.execv(virsh, ["virsh", "--connect", uri, "console", name])  # noqa: S606 - no shell is the point


def terminal() -> bool:
    """Whether this process has a terminal to give."""
    return sys.stdin.isatty()
