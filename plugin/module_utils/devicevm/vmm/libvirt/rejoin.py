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
from typing import TYPE_CHECKING, Any

from ...guest.channel_socket import has_peer
from ..driver import VmmError
from .connection import binding
from .element import parse

if TYPE_CHECKING:
    import libvirt

PATIENCE = 10.0
"""Seconds for the disks of a device VM that has answered to answer their client."""
_PAUSE = 0.05
# A guest that goes on has asked again by then for what had failed.
_SETTLED = 0.2


def is_stalled(domain: libvirt.virDomain) -> bool:
    """Whether its VMM has paused a domain because a disk of its failed."""
    libvirt = binding()
    return bool(domain.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR])


def connect_disks(domain: libvirt.virDomain, addresses: tuple[str, ...]) -> None:
    """Have QEMU connect again to the disks behind these sockets; VmmError when one does not answer in time."""
    away = tuple(address for address in addresses if not has_peer(address))
    end = time.monotonic() + PATIENCE
    for disk in _disks(domain, away):
        answered, failed = _reads(domain, disk)
        _begin_read(domain, disk)
        while (now := _reads(domain, disk))[0] == answered:
            if time.monotonic() > end:
                raise VmmError(
                    f"{domain.name()}: a disk does not answer, though its device VM does",
                    hint="see 'devicevm status' and the device VM's log, and apply again",
                )
            time.sleep(_PAUSE)
            # Only after a failed one: those that nobody answers would be more and more.
            if now[1] != failed:
                failed = now[1]
                _begin_read(domain, disk)


def try_again(domain: libvirt.virDomain) -> bool:
    """Let a domain run that was paused because of a disk; whether it was. VmmError when it stops at once again."""
    if not is_stalled(domain):
        return False
    domain.resume()
    time.sleep(_SETTLED)
    if is_stalled(domain):
        raise VmmError(f"{domain.name()} stays paused: {_why(domain)}", hint="see to that, and apply again")
    return True


def go_on(domain: libvirt.virDomain) -> None:
    """Let a domain run that was paused because of its disks; VmmError when it stops again and again.

    One with a disk that is still away stays as it is: it would stop at once, and who brings that disk back comes here.
    """
    end = time.monotonic() + PATIENCE
    while is_stalled(domain) and all(map(has_peer, _waited_for(domain))):
        if time.monotonic() > end:
            raise VmmError(
                f"{domain.name()} stays paused: {_why(domain)}", hint="see 'devicevm status', and apply again"
            )
        domain.resume()
        time.sleep(_SETTLED)


def _why(domain: libvirt.virDomain) -> str:
    """Which disks have failed, and how, as far as the VMM says."""
    libvirt = binding()
    errors = domain.diskErrors()
    if full := sorted(disk for disk, code in errors.items() if code == libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE):
        return f"no room is left for {', '.join(full)}"
    # What is emulated has its room elsewhere, and QEMU is told of an error only.
    return f"{', '.join(sorted(errors)) or 'one of its disks'} does not answer, or has no room"


def _waited_for(domain: libvirt.virDomain) -> list[str]:
    """The sockets of the disks for which a domain is paused when they do not answer."""
    tree = parse(domain.XMLDesc(0), f"the live XML of domain {domain.name()}")
    disks = tree.iterfind("devices/disk/driver[@error_policy='stop']/../source[@protocol='nbd']/host[@socket]")
    return [host.get("socket", "") for host in disks]


def _disks(domain: libvirt.virDomain, addresses: tuple[str, ...]) -> list[str]:
    """QEMU's names (`qdev`) of the disks behind these sockets."""
    if not addresses:
        return []
    found = {disk["inserted"]["file"]: disk["qdev"] for disk in _ask(domain, "query-block") if disk.get("inserted")}
    urls = [f"nbd+unix://?socket={address}" for address in addresses]
    return [found[url] for url in urls if url in found]


def _begin_read(domain: libvirt.virDomain, disk: str) -> None:
    _ask(domain, "human-monitor-command", **{"command-line": f'qemu-io -d {disk} "aio_read -q 0 512"'})


def _reads(domain: libvirt.virDomain, disk: str) -> tuple[int, int]:
    """How many of a disk's reads were answered, and how many failed."""
    every = {one.get("qdev"): one["stats"] for one in _ask(domain, "query-blockstats")}
    return every[disk]["rd_operations"], every[disk]["failed_rd_operations"]


def _ask(domain: libvirt.virDomain, command: str, **arguments: str) -> Any:
    import libvirt_qemu

    question = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuMonitorCommand(domain, question, 0))["return"]
