"""Clients that a device VM was away from, and that do not come back by themselves."""

from __future__ import annotations

from collections.abc import Iterable

from ..domain import Emulator
from ..vmm.driver import Driver


def rejoin_clients(driver: Driver, emulators: Iterable[Emulator]) -> None:
    """Let the clients of these emulators, whose device VM answers again, go on."""
    disks = [emulator for emulator in emulators if emulator.protocol == "nbd"]
    for name in sorted({emulator.client for emulator in disks}):
        driver.rejoin(name, tuple(emulator.channel.address for emulator in disks if emulator.client == name))
