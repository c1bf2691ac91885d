"""Clients that a device VM was away from, and that do not come back by themselves."""

from __future__ import annotations

from collections.abc import Iterable

from ..domain import Emulator
from ..errors import DevicevmError, all_of
from ..manifest.topology import Consumer
from ..planner.naming import domain_uuid
from ..vmm.driver import Driver


def rejoin_clients(driver: Driver, owner: str, emulators: Iterable[Emulator]) -> None:
    """Let the clients of these emulators of an owner's, whose device VM answers again, go on: all that can.

    DevicevmError tells of each that cannot.
    """
    # Who is to see errors is not waited for, and may answer with nothing else.
    disks = [emulator for emulator in emulators if emulator.protocol == "nbd" and not emulator.faulty]
    domains: dict[str, str] = {}
    if any(emulator.consumer is Consumer.EXISTING for emulator in disks):
        seen = [one for one in driver.observe() if one.owner == owner]
        domains = {one.name: one.uuid for one in seen if one.consumer is Consumer.EXISTING}
    addresses: dict[str, list[str]] = {}
    for emulator in disks:
        # A name may be somebody else's by now. Who has an endpoint, or the host's own devices, is no domain.
        by_consumer = {
            Consumer.VM: domain_uuid(owner, emulator.client),
            Consumer.EXISTING: domains.get(emulator.client, ""),
        }
        if uuid := by_consumer.get(emulator.consumer):
            addresses.setdefault(uuid, []).append(emulator.channel.address)
    errors = []
    for uuid, sockets in addresses.items():
        try:
            driver.rejoin(uuid, owner, tuple(sockets))
        except DevicevmError as error:
            errors.append(error)
    if errors:
        raise all_of(errors)
