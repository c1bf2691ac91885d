"""Clients that a device VM was away from, and that do not come back by themselves."""

from __future__ import annotations

from collections.abc import Iterable

from ..domain import Emulator
from ..manifest.topology import Consumer
from ..vmm.driver import Driver


def rejoin_clients(driver: Driver, owner: str, emulators: Iterable[Emulator]) -> None:
    """Let the clients of these emulators of an owner's, whose device VM answers again, go on."""
    disks = [emulator for emulator in emulators if emulator.protocol == "nbd"]
    domains: dict[str, str] = {}
    if any(emulator.consumer is Consumer.EXISTING for emulator in disks):
        seen = [one for one in driver.observe() if one.owner == owner and one.spec]
        domains = {one.name: one.spec.domain for one in seen if one.spec and one.consumer is Consumer.EXISTING}
    addresses: dict[str, list[str]] = {}
    for emulator in disks:
        # Who has an endpoint, or the host's own devices, is not known by a name.
        by_consumer = {Consumer.VM: emulator.client, Consumer.EXISTING: domains.get(emulator.client, "")}
        if name := by_consumer.get(emulator.consumer):
            addresses.setdefault(name, []).append(emulator.channel.address)
    for name in sorted(addresses):
        driver.rejoin(name, tuple(addresses[name]))
