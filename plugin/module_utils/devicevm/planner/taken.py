"""What is somebody else's already on a host, a name or storage: whoever asks for it cannot be there. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..manifest.topology import Client, Topology
from .affinity import Bars
from .plan import Unplaced
from .storage import Use, describe_store, identity
from .view import View


@dataclass(frozen=True)
class _Taken:
    """What a client, or one of its devices, cannot have on a host, and why."""

    device: str
    host: str
    reason: str


def taken(topology: Topology, view: View, spared: frozenset[str]) -> tuple[list[Unplaced], Bars]:
    """The clients that cannot be on any host that they may go to; and on which hosts the others cannot be.

    The clients `spared` stay as they are, and have what they have.
    """
    staying = spared | view.staying(topology)
    out: list[Unplaced] = []
    bars: Bars = {}
    for client in topology.clients:
        if client.name in spared:
            continue
        if reason := view.why_no_client(client):
            out.append(Unplaced(client.name, "", (reason,)))
            continue
        found = [*_names(client, view), *_stores(client, view, staying, spared)]
        homes = _homes(client, view) if found else frozenset()
        if homes and homes <= {one.host for one in found}:
            out += _told(client, [one for one in found if one.host in homes], view)
            continue
        for one in found:
            bars.setdefault(client.name, {}).setdefault(one.host, []).append(f"{client.name}: {one.reason}")
    return out, bars


def _names(client: Client, view: View) -> Iterator[_Taken]:
    """The hosts on which somebody else has the name of a client, or of a device VM that would come along with it."""
    if client.vm:
        for host, reason in view.why_not_called(client.name).items():
            yield _Taken("", host, reason)
    for name in view.serving.get(client.name, ()):
        for host, reason in view.why_not_called(name).items():
            yield _Taken("", host, f"{name}: {reason}")


def _stores(client: Client, view: View, staying: frozenset[str], spared: frozenset[str]) -> Iterator[_Taken]:
    for device in client.devices:
        for what, store in (("storage", device.store), ("base", device.base)):
            if store is None:
                continue
            for use in view.uses.get(identity(store), ()):
                mine = use.owner == view.intent.owner
                stays = use.client in staying and use.client != client.name if mine else True
                if stays and not (store.read_only and use.reads):
                    reason = f"its {what} {describe_store(store)} is in use by {_whose(use, mine, spared)}"
                    for host in view.hosts:
                        if use.at(host.name):
                            yield _Taken(device.name, host.name, reason)


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
