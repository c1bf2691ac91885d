"""What of what runs may move: nothing is lost for the sake of a better place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..domain import DomainSpec
from .component import Component
from .grouping import Unit


@dataclass(frozen=True)
class Freedom:
    """What may move. `cpus`: domains that may get other processors, `hosts`: also another host; `held`: why others
    do not."""

    cpus: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    avoid: frozenset[str] = frozenset()
    """Hosts to which nothing goes that may go elsewhere."""
    held: dict[str, str] = field(default_factory=dict)


def freedom(
    components: Iterable[Component],
    clients: frozenset[str],
    there: dict[str, DomainSpec],
    avoid: frozenset[str] = frozenset(),
) -> Freedom:
    """What of these clients' components may move; `there` are the domains that run.

    Nothing is lost for the sake of a better place: what has its content in a device VM's memory stays, and storage is
    on its host.
    """
    if not clients:
        return Freedom(avoid=avoid)
    cpus: set[str] = set()
    hosts: set[str] = set()
    held: dict[str, str] = {}
    full = {one.client for spec in there.values() for one in spec.emulators if one.size and not one.store}
    for component in components:
        if not any(client.name in clients for client in component.clients):
            continue
        names = {client.name for client in component.clients}
        tied = not full.isdisjoint(names)
        for unit in component.units:
            if why := _why_kept(unit, there):
                held[unit.name] = why
                tied = True
            else:
                names.add(unit.name)
        # What is held may have to be near its clients: they stay with it.
        cpus |= names - {client.name for client in component.clients} if tied else names
        stored = [device for client in component.clients for device in client.devices if device.store]
        if not (tied or stored or any(client.vm is None or client.boot.image for client in component.clients)):
            hosts |= names
    return Freedom(frozenset(cpus), frozenset(hosts), avoid, held)


def _why_kept(unit: Unit, there: dict[str, DomainSpec]) -> str:
    if unit.observed is None:
        return ""
    if unit.kept:
        return f"it serves {unit.kept[0].client}, which is not declared or stays as it is"
    lost = [one for one in unit.observed.emulators if one.size and not one.store]
    if lost and unit.name in there:
        return f"{lost[0].client}/{lost[0].name} has no store, and what is on it would be lost"
    return ""
