"""Bringing a client's disks back after their device VM was away.

QEMU's NBD client notices a broken connection at once, and what the guest had asked for fails; the disk's error policy
keeps that, and pauses the guest. It connects anew when it is next asked for something, in a thread of its own, and has
no answer for whoever asked first (block/nbd.c, nbd_client_connecting_wait). In a guest that goes on, or that was idle,
that one would be the guest, which would be paused again, with nobody there to see. So QEMU is asked from here until the
host's kernel sees it connected, since it tells nobody that a read has failed; the guest goes on then.

libvirt 9.5 and later has words for a better way, `<reconnect delay>`: QEMU then lets the guest wait.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from ...guest.channel_socket import has_peer
from ..driver import VmmError
from .connection import binding
from .element import parse

if TYPE_CHECKING:
    import libvirt

PATIENCE = 10.0
"""Seconds for the disks of a device VM that has answered to answer their client."""
_PAUSE = 0.05
# Reads after it has connected: the first of them greets the emulator.
_GREETING = 2
# A guest that goes on has asked again by then for what had failed.
_SETTLED = 0.2


def is_stalled(domain: libvirt.virDomain) -> bool:
    """Whether its VMM has paused a domain because a disk of its did not answer."""
    libvirt = binding()
    return bool(domain.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR])


def connect_disks(domain: libvirt.virDomain, addresses: tuple[str, ...]) -> None:
    """Have QEMU connect again to the disks behind these sockets; VmmError when it does not in time."""
    away = tuple(address for address in addresses if not has_peer(address))
    end = time.monotonic() + PATIENCE
    for address, node in _nodes(domain, away):
        # Whether a read has failed QEMU tells nobody; that it is connected, the host's kernel knows.
        while not has_peer(address):
            if time.monotonic() > end:
                raise VmmError(
                    f"{domain.name()}: a disk is not connected again, though its device VM answers",
                    hint="apply again; see 'devicevm status'",
                )
            _read(domain, node)
            time.sleep(_PAUSE)
        for _number in range(_GREETING):
            _read(domain, node)


def go_on(domain: libvirt.virDomain) -> None:
    """Let a domain run that was paused because of its disks; VmmError when it stops again and again.

    One with a disk that is still away stays as it is: it would stop at once, and who brings that disk back comes here.
    """
    end = time.monotonic() + PATIENCE
    while is_stalled(domain) and all(map(has_peer, _waited_for(domain))):
        if time.monotonic() > end:
            raise VmmError(
                f"{domain.name()} stays paused: one of its disks does not answer",
                hint="see 'devicevm status', and apply again",
            )
        domain.resume()
        time.sleep(_SETTLED)


def _waited_for(domain: libvirt.virDomain) -> list[str]:
    """The sockets of the disks for which a domain is paused when they do not answer."""
    tree = parse(domain.XMLDesc(0), f"the live XML of domain {domain.name()}")
    disks = tree.iterfind("devices/disk/driver[@error_policy='stop']/../source[@protocol='nbd']/host[@socket]")
    return [host.get("socket", "") for host in disks]


def _nodes(domain: libvirt.virDomain, addresses: tuple[str, ...]) -> list[tuple[str, str]]:
    """QEMU's names of the disks behind these sockets, after the sockets."""
    if not addresses:
        return []
    answer = json.loads(
        _monitor(domain, json.dumps({"execute": "query-named-block-nodes", "arguments": {"flat": True}}))
    )
    nodes = {node["file"]: node["node-name"] for node in answer["return"] if node["drv"] == "nbd"}
    found = [(address, nodes.get(f"nbd+unix://?socket={address}", "")) for address in addresses]
    return [(address, node) for address, node in found if node]


def _read(domain: libvirt.virDomain, node: str) -> None:
    import libvirt_qemu

    _monitor(domain, f'qemu-io {node} "read -q 0 512"', libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)


def _monitor(domain: libvirt.virDomain, command: str, flags: int = 0) -> str:
    import libvirt_qemu

    return str(libvirt_qemu.qemuMonitorCommand(domain, command, flags))
