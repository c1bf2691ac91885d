"""devicevm manager: device VMs come up with their clients, whoever starts those."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import click

from ...manager.installation import install as make_managed
from ...manager.installation import is_current, unit_text
from ...manager.installation import uninstall as make_unmanaged
from ...manager.keeper import Times
from ...manager.server import open_manager
from ...vmm.lock import lock
from ...vmm.places import places_of
from ...vmm.registry import SYSTEM
from .. import output
from ..options import CONTEXT, Seconds, command, compose, connect_option, lock_option


@click.group("manager", context_settings=CONTEXT)
def manager() -> None:
    """Device VMs that come up with their clients (docs/manager.md)."""


@command(
    "install",
    ("Once for each host, as root", "devicevm manager install"),
    ("And have systemd run it", "devicevm manager install && devicevm manager unit > devicevm-manager.service"),
)
@compose(connect_option, lock_option)
def install(*, connect: str | None, lock_timeout: float) -> int:
    """Give device VMs to the manager, and install libvirt's hook.

    From then on device VMs are no longer on the VMM itself, so none may be there. The hook asks the manager for a
    client's device VMs before libvirt starts the client. Clients of others start as before. A second time it changes
    nothing.
    """
    uri = _clients_vmm(connect)
    with lock(uri, lock_timeout):
        _tell(make_managed(places_of(uri)))
    return 0


@command(
    "uninstall",
    ("Once the device VMs are gone and the manager has ended, as root", "devicevm manager uninstall"),
    (
        "Everything of one owner first",
        "devicevm destroy --owner lab && systemctl stop devicevm-manager && devicevm manager uninstall",
    ),
)
@compose(connect_option, lock_option)
def uninstall(*, connect: str | None, lock_timeout: float) -> int:
    """Undo what install did. Refused while the manager runs or has device VMs."""
    uri = _clients_vmm(connect)
    with lock(uri, lock_timeout):
        _tell(make_unmanaged(places_of(uri)))
    return 0


@command(
    "run",
    ("In the foreground, as systemd does", "devicevm manager run"),
    ("Device VMs that stay for a minute after their last client", "devicevm manager run --grace 60"),
    ("Notice one that hangs within ten seconds", "devicevm manager run --silence 10"),
    ("Four of them may boot at once, and each may take two minutes", "devicevm manager run --boots 4 --timeout 120"),
)
@compose(
    click.option(
        "--grace",
        type=Seconds(0),
        default=Times.grace,
        metavar="SECONDS",
        help="How long a device VM outlives its last client.",
    ),
    click.option(
        "--timeout",
        type=Seconds(1),
        default=Times.ready,
        metavar="SECONDS",
        help="How long a device VM may take to become ready.",
    ),
    click.option(
        "--silence",
        type=Seconds(0),
        default=Times.silence,
        metavar="SECONDS",
        help="How long a device VM that runs may leave a question unanswered before it is restarted; 0: for ever.",
    ),
    click.option(
        "--boots",
        type=click.IntRange(0, 1024),
        default=0,
        metavar="N",
        help="Device VMs that boot at once; 0: as many as the host has processors.",
    ),
    connect_option,
)
def run(*, grace: float, timeout: float, silence: float, boots: int, connect: str | None) -> int:
    """Run the manager, until it is told to end.

    Device VMs go on without it, and the next one takes them over; clients that are started meanwhile fail, and say
    why. Device VMs that die are restarted, and so are those that hang.
    """
    places = places_of(_clients_vmm(connect))
    if not is_current(places):
        output.warning("libvirt's hook is not there, or another version's: devicevm manager install")
    times = Times(ready=timeout, grace=grace, silence=silence)
    made = open_manager(places, boots=boots, times=times, tell=output.note)
    with suppress(KeyboardInterrupt):
        made.run(_listening)
    return 0


@command(
    "unit",
    ("Have systemd run it", "devicevm manager unit > /etc/systemd/system/devicevm-manager.service"),
    ("Look at it", "devicevm manager unit"),
)
@compose(connect_option)
def unit(*, connect: str | None) -> int:
    """Print a systemd unit that runs the manager of this installation of devicevm."""
    output.line(unit_text(_clients_vmm(connect)).rstrip("\n"))
    return 0


def _clients_vmm(connect: str | None) -> str:
    """The VMM that the manager is for. Not the one that answers: the manager may be there before it."""
    return connect or os.environ.get("LIBVIRT_DEFAULT_URI", "") or SYSTEM


def _tell(done: list[str]) -> None:
    for line in done or ["Nothing to do."]:
        output.line(line)


def _listening() -> None:
    """Tell systemd, where it waits to be told (sd_notify(3)), and whoever looks."""
    output.note("The manager listens.")
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifying, suppress(OSError):
            notifying.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            notifying.send(b"READY=1")


for one in (install, uninstall, run, unit):
    manager.add_command(one)
