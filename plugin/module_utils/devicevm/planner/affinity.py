"""Which clients must, and must not, be on one host, by labels as in Kubernetes.

Affinity: at least one other client with these labels is on the host. Anti-affinity: none is, and it holds both ways.
Both are required, and hold for what runs as well as for what is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from functools import cached_property

from ..manifest.topology import Client
from .apart import repel, selects
from .component import Component

Selector = tuple[tuple[str, str], ...]
Bars = dict[str, dict[str, list[str]]]
"""Client -> host -> why it cannot be there, whoever else is, each with the client's name (taken.py)."""

# Names that a message shows before it says "and N others".
_NAMED = 5
_NOBODY: frozenset[str] = frozenset()


class Neighbours:
    """Which clients are on which host, and what they say about each other.

    `clients` are those that are there or to be placed, `places` the hosts of those that are there; `bars` tells who
    cannot be on which host.
    """

    def __init__(self, clients: Iterable[Client], places: dict[str, str], bars: Bars | None = None) -> None:
        self._bars = bars or {}
        self._clients = {client.name: client for client in clients}
        self._ruled = any(client.affinity or client.anti_affinity for client in self._clients.values())
        self._host = {name: host for name, host in places.items() if name in self._clients}
        self._home = dict(self._host)
        self._there: dict[str, set[str]] = {}
        for name, host in self._host.items():
            self._there.setdefault(host, set()).add(name)
        self._matching: dict[Selector, frozenset[str]] = {}
        self._foes: dict[Selector, set[str]] = {}
        for client in self._clients.values():
            for labels in (client.affinity, client.anti_affinity):
                if labels and _key(labels) not in self._matching:
                    self._matching[_key(labels)] = self._those_with(labels)
            if client.anti_affinity:
                self._foes.setdefault(_key(client.anti_affinity), set()).add(client.name)

    @cached_property
    def reaching(self) -> bool:
        """Whether it may matter to somebody else who comes to a host or leaves it: to the first of a kind, which must
        not be elsewhere, or to who is there."""
        return any(
            client.affinity and (client.name in self._home or selects(client.affinity, client))
            for client in self._clients.values()
        )

    @property
    def ruled(self) -> bool:
        """Whether any client says anything about others."""
        return self._ruled

    def settle(self, clients: Iterable[Client], host: str) -> None:
        """These clients are on that host from now on."""
        for client in clients if self._ruled else ():
            self._host[client.name] = host
            self._there.setdefault(host, set()).add(client.name)

    def leave(self, clients: Iterable[Client]) -> None:
        """These clients are where they were before they were settled, if they were anywhere."""
        for client in clients if self._ruled else ():
            self._there[self._host.pop(client.name)].discard(client.name)
            if home := self._home.get(client.name, ""):
                self.settle([client], home)

    def objections(self, clients: list[Client], host: str) -> list[str]:
        """Why these clients may not be on a host together and with those that are there, with names."""
        found: list[str] = []
        if self._bars:
            found += [why for client in clients for why in self._bars.get(client.name, {}).get(host, ())]
        if not self._ruled:
            return found
        together = {client.name for client in clients}
        others = self._there.get(host, set()) | together
        for client in clients:
            if foes := self._foes_of(client) & others - {client.name}:
                why = ", and both must be on one host" if foes & together else ""
                found.append(f"{client.name} may not be where {_some(foes)} {_is(foes)}{why}")
            if client.affinity and (lonely := self._lonely(client, others)):
                found.append(lonely)
        return found

    def characters(self, clients: Iterable[Client]) -> Hashable:
        """Equal for clients that are to hosts and others as these are."""
        some = list(clients)
        barred = tuple(tuple(self._bars[one.name]) for one in some if one.name in self._bars) if self._bars else ()
        if not self._ruled:
            return barred
        return barred, tuple((_key(one.labels), _key(one.affinity), _key(one.anti_affinity)) for one in some)

    def agree(self, clients: Iterable[Client], host: str) -> bool:
        """Whether none of these clients is kept off a host, by another one, by one that is there, or by itself."""
        some = list(clients)
        if self._bars and any(host in self._bars.get(client.name, ()) for client in some):
            return False
        if not self._ruled:
            return True
        others = self._there.get(host, set()) | {client.name for client in some}
        return not any(self._foes_of(client) & others - {client.name} for client in some)

    def alone(self, clients: Iterable[Client], host: str) -> frozenset[str]:
        """Those of these clients that would have nobody near whom they ask for on a host, with those that are there;
        not those that may be the first of their kind."""
        if not self._ruled:
            return frozenset()
        some = list(clients)
        others = self._there.get(host, set()) | {client.name for client in some}
        return frozenset(
            client.name
            for client in some
            if client.affinity
            and not selects(client.affinity, client)
            and not others & self._matching[_key(client.affinity)]
        )

    def unmet(self, places: dict[str, str]) -> frozenset[str]:
        """The clients that would have nobody near whom they ask for if those of `places` were there as well."""
        there = {**self._host, **places} if self._ruled else {}
        hosts = {
            key: Counter(there[name] for name in names & there.keys()) for key, names in self._matching.items() if there
        }
        found = set()
        for name, host in there.items():
            client = self._clients[name]
            if not client.affinity:
                continue
            near, itself = hosts[_key(client.affinity)], selects(client.affinity, client)
            if near[host] <= itself and not (itself and near.total() == 1):
                found.add(name)
        return frozenset(found)

    def lonely(self) -> list[tuple[Client, str]]:
        """The clients that have nobody near whom they ask for now that all are placed, though others of the kind are
        elsewhere: the first of its kind was let in before the second one came."""
        found = []
        for name in sorted(self._host) if self._ruled else ():
            client, host = self._clients[name], self._host[name]
            if client.affinity and (words := self._lonely(client, self._there[host])):
                found.append((client, f"{host}: {words}"))
        return found

    def joined(self, components: list[Component]) -> list[list[Component]]:
        """Components in the order in which they are placed, those together that are best tried on one host first.

        A client goes with one that is new as well and that it wants near; where those are there already, it only has to
        follow them.
        """
        if not self._ruled:
            return [[component] for component in components]
        number = {client.name: index for index, one in enumerate(components) for client in one.clients}
        leader = list(range(len(components)))

        def find(index: int) -> int:
            while leader[index] != index:
                index = leader[index]
            return index

        for index, component in enumerate(components):
            for client in component.clients:
                for name in self._companions(client, number):
                    first, second = sorted((find(index), find(number[name])))
                    leader[second] = first
        groups: dict[int, list[Component]] = {}
        for index, component in enumerate(components):
            groups.setdefault(find(index), []).append(component)
        # Those who follow come after those whom they follow, wherever their names put them.
        return sorted(
            groups.values(), key=lambda group: any(client.affinity for one in group for client in one.clients)
        )

    def apart(self, group: list[Component]) -> list[Component]:
        """The components of a group one by one, each after those whom it wants near where that can be."""
        left, found = list(group), list[Component]()
        while left:
            names = {client.name for one in left for client in one.clients}
            ready = [one for one in left if not self._waits(one, names)] or left[:1]
            found += ready
            left = [one for one in left if one not in ready]
        return found

    def _waits(self, component: Component, names: set[str]) -> bool:
        own = {client.name for client in component.clients}
        for client in component.clients if self._ruled else ():
            others = self._matching[_key(client.affinity)] & (names - own) if client.affinity else _NOBODY
            # One that is of the kind it wants near may be the first of those that follow each other.
            first = selects(client.affinity, client)
            if any(not (first and self._clients[name].affinity) for name in others):
                return True
        return False

    def _companions(self, client: Client, number: dict[str, int]) -> list[str]:
        """The new clients with which one is tried first."""
        if not client.affinity:
            return []
        friends = self._matching[_key(client.affinity)] - {client.name}
        if any(name in self._host or number.get(name) == number[client.name] for name in friends):
            return []
        new = sorted(friends & number.keys())
        if selects(client.affinity, client):
            return new
        return [name for name in new if not repel(client, self._clients[name])][:1]

    def _lonely(self, client: Client, others: set[str]) -> str:
        """Why a client has nobody that it wants near on a host; empty when it has, or is the first of its kind."""
        friends = self._matching[_key(client.affinity)] - {client.name}
        if friends & others:
            return ""
        words = ", ".join(f"{label}={value}" for label, value in sorted(client.affinity.items()))
        if selects(client.affinity, client) and not any(name in self._host for name in friends):
            return ""
        if not friends:
            return f"{client.name} is to be where a client with {words} is, and there is no other such client"
        return f"{client.name} is to be where a client with {words} is ({_some(friends)}), and none is here"

    def _foes_of(self, client: Client) -> set[str]:
        own = self._matching.get(_key(client.anti_affinity), _NOBODY) if client.anti_affinity else _NOBODY
        theirs = (names for key, names in self._foes.items() if client.name in self._matching[key])
        return set(own).union(*theirs)

    def _those_with(self, labels: dict[str, str]) -> frozenset[str]:
        return frozenset(client.name for client in self._clients.values() if selects(labels, client))


def _key(labels: dict[str, str]) -> Selector:
    return tuple(sorted(labels.items()))


def _some(names: Iterable[str]) -> str:
    known = sorted(names)
    rest = f" and {len(known) - _NAMED} others" if len(known) > _NAMED else ""
    return ", ".join(known[:_NAMED]) + rest


def _is(names: set[str]) -> str:
    return "is" if len(names) == 1 else "are"
