"""Clients that share device VMs and found no place together: who of them is left out, and who is parted from the others
instead."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..manifest.topology import Client
from .component import Component, components_of
from .placed import Placed
from .placement import Placement
from .requests import Want


@dataclass(frozen=True)
class Parting:
    """What becomes of a component that was refused.

    `out` are the clients that are left out, each with why; `parties` are clients that are to share no device VM with
    the others any more.
    """

    out: list[tuple[Client, Placed]] = field(default_factory=list)
    parties: list[list[str]] = field(default_factory=list)


def part(
    component: Component,
    refused: Placed,
    placement: Placement,
    wants: dict[str, list[Want]],
    there: Container[str],
    parties: Mapping[str, int],
) -> Parting:
    """What is there does not suffer from newcomers, nor from what one of them cannot have, which is what that one asks
    for now; newcomers are parted until each is by itself, or has a place. `parties` tells who was parted before."""
    old = tuple(client for client in component.clients if client.name in there)
    new = [client for client in component.clients if client.name not in there]
    # Newcomers may have joined what is on several hosts.
    alone = components_of(old, narrowed(component, old).units)
    if out := [one for some in alone for one in _Choice(some, placement, wants).misfits(some.clients)]:
        return Parting(out)
    if not new:
        return Parting([(client, refused) for client in old])
    numbers = {parties.get(client.name, 0) for client in component.clients}
    kept = any(unit.kept for unit in component.units)
    # To part them is in vain when an interrupted apply has left their devices in one device VM, or a network has them.
    in_vain = len(numbers) > 1 or (kept and numbers != {0})
    networked = _networked(component)
    if in_vain or networked.intersection(client.name for client in new):
        new.sort(key=lambda client: (client.name not in networked, client.name))
        out = _Choice(component, placement, wants).misfits(new, beside=old) or [(client, refused) for client in new]
        found = [[one.name for one, _why in out if (one.name in networked) is linked] for linked in (True, False)]
        found = [names for names in found if names]
        everybody = not kept and len(found) == 1 and len(out) == len(component.clients)
        return Parting(out) if in_vain or everybody else Parting(parties=found)
    if old or kept:
        return Parting(parties=[[client.name for client in new]])
    if len(new) == 1:
        return Parting([(new[0], refused)])
    half = len(new) // 2
    return Parting(parties=[[client.name for client in some] for some in (new[:half], new[half:])])


def _networked(component: Component) -> set[str]:
    """The clients that are on a network, or a region, with others: who is on another device VM would be on another."""
    shared = [unit for unit in component.units if len(unit.clients) > 1]
    return {want.client.name for unit in shared for want in unit.wants if want.joined}


@dataclass(frozen=True)
class _Choice:
    """Which clients of a component have a place as things are."""

    component: Component
    placement: Placement
    wants: dict[str, list[Want]]

    def misfits(self, clients: list[Client], beside: Iterable[Client] = ()) -> list[tuple[Client, Placed]]:
        """The clients that find no place with those before them that do, and why; found in halves."""
        inside, found, groups = list(beside), list[tuple[Client, Placed]](), [clients]
        while groups:
            some = groups.pop()
            if self.placement.takes(narrowed(self.component, [*inside, *some]), self.wants):
                inside += some
            elif len(some) == 1:
                found.append((some[0], self._why(some[0], inside)))
            else:
                half = len(some) // 2
                groups += [some[half:], some[:half]]
        return found

    def _why(self, client: Client, inside: list[Client]) -> Placed:
        alone = narrowed(self.component, [client])
        if self.placement.takes(alone, self.wants):
            alone = narrowed(self.component, [*inside, client])
        return self.placement.refusal(alone, self.wants)


def narrowed(component: Component, clients: Collection[Client]) -> Component:
    """What is left of a component when these clients alone ask for anything, and the others keep what they have."""
    if len(clients) == len(component.clients):
        return component
    names = {client.name for client in clients}
    others = {client.name for client in component.clients} - names
    units = []
    for unit in component.units:
        staying = [one for one in (unit.observed.emulators if unit.observed else ()) if one.client in others]
        if wants := [want for want in unit.wants if want.client.name in names]:
            units.append(replace(unit, wants=wants, kept=[*unit.kept, *staying]))
    return Component([client for client in component.clients if client.name in names], units)
