"""What is somebody else's already on a host, a name or storage: whoever asks for it cannot be there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..manifest.topology import Client, Store, Topology
from .affinity import Bars
from .plan import Unplaced
from .storage import Identity, Use, describe_store, identity
from .view import View


@dataclass(frozen=True)
class _Asked:
    """Something on its host that a client is to have: for which device, what it is to that, and where it is."""

    device: str
    what: str
    store: Store


@dataclass(frozen=True)
class _Taken:
    """What a client, or one of its devices, cannot have on a host, and why."""

    device: str
    host: str
    reason: str


def taken(topology: Topology, view: View, spared: frozenset[str]) -> tuple[list[Unplaced], Bars]:
    """The clients that cannot be on any host that they may go to; and on which hosts the others cannot be.

    The clients `spared` stay as they are, and have what they have; so do those that are refused.
    """
    staying = spared | view.staying(topology)
    asking = {client.name: client for client in topology.clients if client.name not in spared}
    out: list[Unplaced] = []
    bars: Bars = {}
    turn = list(asking.values())
    wanting: _Wanting = {}
    while turn:
        refused: list[str] = []
        for client in turn:
            told, barred = _judged(client, view, staying, spared)
            if told:
                out += told
                refused.append(client.name)
                del asking[client.name]
            elif barred:
                bars[client.name] = barred
        if not refused:
            break
        # Once more those who asked for what these now keep.
        spared, staying = spared.union(refused), staying.union(refused)
        wanting = wanting or _wanting(asking.values())
        turn = [asking[name] for name in _beside(refused, wanting, view) if name in asking]
    return out, bars


def _judged(
    client: Client, view: View, staying: frozenset[str], spared: frozenset[str]
) -> tuple[list[Unplaced], dict[str, list[str]]]:
    """Why a client cannot be on any host that it may go to; else on which hosts it cannot be, and why."""
    if reason := view.why_no_client(client):
        return [Unplaced(client.name, "", (reason,))], {}
    found = [*_names(client, view), *_stores(client, view, staying, spared)]
    homes = _homes(client, view) if found else frozenset()
    if homes and homes <= {one.host for one in found}:
        return list(_told(client, [one for one in found if one.host in homes], view)), {}
    barred: dict[str, list[str]] = {}
    for one in found:
        barred.setdefault(one.host, []).append(f"{client.name}: {one.reason}")
    return [], barred


_Wanting = dict[tuple[Identity, bool], list[str]]
"""Who asks for which store: those who only read it, and those who write it."""


def _wanting(clients: Iterable[Client]) -> _Wanting:
    found: _Wanting = {}
    for client in clients:
        for one in _asked(client):
            found.setdefault((identity(one.store), one.store.read_only), []).append(client.name)
    return found


def _beside(names: list[str], wanting: _Wanting, view: View) -> dict[str, None]:
    """The clients that want what some have, and cannot have it beside them; each once."""
    found: dict[str, None] = {}
    for name in names:
        for key, reads in view.held.get(name, ()):
            for to_read in (False,) if reads else (False, True):
                found.update(dict.fromkeys(wanting.get((key, to_read), ())))
    return found


def _asked(client: Client) -> Iterator[_Asked]:
    for device in client.devices:
        if device.store:
            yield _Asked(device.name, "storage", device.store)
        if device.base:
            yield _Asked(device.name, "base", device.base)
    if client.boot.disk:
        yield _Asked("", "boot image", client.boot.disk)


def _names(client: Client, view: View) -> Iterator[_Taken]:
    """The hosts on which somebody else has the name of a client, or of a device VM that would come along with it."""
    if client.vm:
        for host, reason in view.why_not_called(client.name).items():
            yield _Taken("", host, reason)
    for name in view.serving.get(client.name, ()):
        for host, reason in view.why_not_called(name).items():
            yield _Taken("", host, f"{name}: {reason}")


def _stores(client: Client, view: View, staying: frozenset[str], spared: frozenset[str]) -> Iterator[_Taken]:
    for one in _asked(client):
        users = view.uses.get(identity(one.store))
        for use in users.beside(reads=one.store.read_only) if users else ():
            mine = use.owner == view.intent.owner
            stays = use.client in staying and use.client != client.name if mine else True
            if stays and use.host in view.made_on:
                reason = f"its {one.what} {describe_store(one.store)} is in use by {_whose(use, mine, spared)}"
                yield _Taken(one.device, use.host, reason)


def _whose(use: Use, mine: bool, spared: frozenset[str]) -> str:
    if not mine:
        return f"{use.device} of owner {use.owner}"
    if use.client in spared:
        return f"{use.device}, which has no place as it is declared and stays as it is"
    return f"{use.device}, which is not declared here: --prune removes it"


def _homes(client: Client, view: View) -> frozenset[str]:
    """The hosts that a client may go to, as far as it says so itself; where it is, once it is there."""
    there = view.specs.get(client.name)
    home = there.host if there else view.outside.get(client.name, client.host)
    return frozenset((home,)) if home else frozenset(host.name for host in view.hosts)


def _told(client: Client, found: list[_Taken], view: View) -> Iterator[Unplaced]:
    """What is taken, for each device once; with the host, where there are several."""
    several = len(view.hosts) > 1
    for device in dict.fromkeys(one.device for one in found):
        some = [one for one in found if one.device == device]
        reasons = (f"{one.host}: {one.reason}" if several else one.reason for one in some)
        yield Unplaced(client.name, device, tuple(dict.fromkeys(reasons)))
