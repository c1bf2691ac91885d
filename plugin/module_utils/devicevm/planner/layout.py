"""Whether a host takes several components together, and on which alternative each of their device VMs runs then.

What asks for processors of its own is laid first, the most particular before the rest; what shares comes into what is
left, and clients last. So the answer does not depend on the order in which components are named.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from ..domain import CpuPlacement
from ..manifest.topology import Client, ResourceRequest
from .book import Book
from .component import Component
from .grouping import Unit
from .resources import CPU_KINDS, Alternative, Footing, Misfit, describe, fit_one
from .resources.near import Beside
from .runnable import why_not_run
from .specify import unit_memory

TOGETHER = 100
"""Device VMs on one host that are laid anew together; on a host with more, only what comes on top is laid."""
TRIES = 600
"""How many alternatives are looked at for one host at most, before it counts as refused."""
_RANKS = {"thread": 1, "core": 2, "processor": 3}

Order = tuple[bool, bool, int, int]
_LAST: Order = (True, True, 0, 0)


LOOK = 10
"""What looking at an alternative costs of the work, when looking up what is known costs 1."""


@dataclass
class Work:
    """What may still be done: counted, since a clock would give other plans elsewhere."""

    left: int

    @property
    def over(self) -> bool:
        """Nothing more is to be tried."""
        return self.left <= 0


@dataclass(frozen=True)
class Pick:
    """A device VM and the number of the alternative that it is to run on."""

    unit: Unit
    alternative: int


@dataclass(frozen=True)
class Asked:
    """A device VM to be laid. Memory in bytes."""

    unit: Unit
    memory: int
    alternatives: tuple[Alternative, ...]

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        """For each alternative, when it is to be laid."""
        return tuple(_order(alternative) for alternative in self.alternatives)

    @cached_property
    def order(self) -> tuple[Order, str]:
        """When it is to be laid: as its most particular alternative."""
        return min(self.orders, default=_LAST), self.unit.name

    @cached_property
    def least_memory(self) -> int:
        """Bytes of usual memory that it takes at least: none where it may have huge pages."""
        huge = any(request.kind in ("memory", "firmware") for some in self.alternatives for request in some)
        return 0 if huge else self.memory


@dataclass(frozen=True, order=True)
class _Pending:
    """A device VM that is not laid yet: it is its turn at `order`. `number`: the alternative that it is to get, if that
    is settled."""

    order: Order
    name: str
    asked: Asked = field(compare=False)
    number: int | None = field(default=None, compare=False)


class Load:
    """A component as it is laid: its device VMs and clients."""

    def __init__(self, component: Component) -> None:
        self.component = component
        self.asked = [Asked(unit, unit_memory(unit), unit.resources) for unit in component.units]
        self.clients = component.clients
        self.least_vcpus = sum(client.vcpus for client in self.clients if not client.cpus)
        self.least_memory = sum(client.memory for client in self.clients)
        self.least_memory += sum(one.least_memory for one in self.asked)
        self.demands = component.demands

    def refused_parts(self, book: Book, work: Work) -> Iterator[Hashable]:
        """The demands among its own that the book has no room for: those of the whole, which is known to be refused,
        and of each part that would be refused alone."""
        yield self.demands[0]
        parts = self.demands[1:]
        for demand, asked in zip(parts, self.asked, strict=False):
            work.left -= LOOK
            book.parting.asks(asked.unit.name)
            size = asked.unit.size
            if not any(isinstance(fit_one(one, book, asked.memory, size), Footing) for one in asked.alternatives):
                yield demand
        for demand, client in zip(parts[len(self.asked) :], self.clients, strict=True):
            book.parting.asks(client.name)
            if isinstance(fit_client(client, book), Misfit):
                yield demand


def lay_out(book: Book, loads: Iterable[Load], work: Work) -> tuple[Pick, ...] | None:
    """Book these components on top of what the book holds; None, and the book as it was, when they do not fit.

    The picks are in the order in which they were booked.
    """
    loads = list(loads)
    asked = sorted((one for load in loads for one in load.asked), key=lambda one: one.order)
    work.left -= 1
    vcpus, memory = sum(load.least_vcpus for load in loads), sum(load.least_memory for load in loads)
    if len(asked) > TOGETHER or not book.takes(vcpus, memory):
        return None
    laying = _Laying(book, asked, [client for load in loads for client in load.clients], work)
    return tuple(laying.picks) if laying.all() else None


class _Laying:
    def __init__(self, book: Book, asked: list[Asked], clients: list[Client], work: Work) -> None:
        self.book, self.asked, self.clients, self.work = book, asked, clients, work
        self.picks: list[Pick] = []
        self.tries = TRIES
        self.places: dict[str, CpuPlacement] = {}

    def all(self) -> bool:
        """Lay everything. Clients with processors of their own come first: device VMs may have to be near them."""
        mark = self.book.mark()
        pending = [_Pending(*one.order, one) for one in self.asked]
        if all(self._client(client) for client in self.clients if client.cpus) and self.lay(pending):
            return True
        self.book.back_to(mark)
        return False

    def lay(self, pending: list[_Pending]) -> bool:
        """Lay these device VMs, each when it is the turn of the alternative that it gets: only then it is known what is
        left for it. Afterwards the clients."""
        if not pending:
            return self._rest()
        first, rest = pending[0], pending[1:]
        asked = first.asked
        for number in range(len(asked.alternatives)) if first.number is None else [first.number]:
            footing = self._footing(asked, asked.alternatives[number])
            if footing is None:
                continue
            if asked.orders[number] != first.order:
                if self.lay(sorted([*rest, _Pending(asked.orders[number], first.name, asked, number)])):
                    return True
                continue
            mark = self.book.mark()
            self._book(asked, number, footing)
            if self.lay(rest):
                return True
            self.book.back_to(mark)
            self.picks.pop()
        return False

    def _rest(self) -> bool:
        mark = self.book.mark()
        if all(self._client(client) for client in self.clients if not client.cpus):
            return True
        self.book.back_to(mark)
        return False

    def _footing(self, asked: Asked, alternative: Alternative) -> Footing | None:
        if self.work.over or self.tries <= 0:
            return None
        self.work.left -= LOOK
        self.tries -= 1
        self.book.parting.asks(asked.unit.name)
        footing = fit_one(alternative, self.book, asked.memory, asked.unit.size, self._beside(asked.unit))
        if isinstance(footing, Misfit) or why_not_run(asked.unit, footing, self.book.host):
            return None
        return footing

    def _beside(self, unit: Unit) -> Beside:
        if not any("near" in request.options for alternative in unit.resources for request in alternative):
            return ()
        roaming = self.book.roaming(1)
        return tuple((name, self.places.get(name, roaming)) for name in sorted(unit.clients))

    def _book(self, asked: Asked, number: int, footing: Footing) -> None:
        self.book.book(
            asked.unit.name,
            footing.placement,
            footing.vcpus,
            footing.memory,
            footing.page_size,
            footing.host_devices,
        )
        self.picks.append(Pick(asked.unit, number))

    def _client(self, client: Client) -> bool:
        self.book.parting.asks(client.name)
        answer = fit_client(client, self.book)
        if isinstance(answer, Misfit):
            return False
        self.places[client.name] = answer.placement
        if client.vm is not None:
            self.book.book(client.name, answer.placement, client.vcpus, client.memory)
        return True


def fit_client(client: Client, book: Book) -> Footing | Misfit:
    """Where a client can run on a host, or why it cannot."""
    vm = client.vm
    if vm is None:
        return Footing(0, CpuPlacement(), 0)
    if vm.cpus:
        alternative = (vm.cpus,)
        answer = fit_one(alternative, book, vm.memory)
        if isinstance(answer, Misfit):
            why = answer.why
            return Misfit(lambda: f"{describe(alternative)}: {why()}")
        return answer
    if not book.takes(vm.vcpus, vm.memory):
        return Misfit(lambda: book.lacks(vm.vcpus, vm.memory))
    return Footing(vm.memory, book.roaming(vm.vcpus), vm.vcpus)


def _order(alternative: Alternative) -> Order:
    """The most particular first: whole processors, what is bound to a node, whole cores, many; last what shares."""
    requests = [request for request in alternative if request.kind in CPU_KINDS]
    rank = max(map(_rank, requests), default=0)
    bound = rank > 0 and any("numaNode" in request.options for request in requests)
    return rank < _RANKS["processor"], not bound, -rank, -max((request.count for request in requests), default=1)


def _rank(request: ResourceRequest) -> int:
    """Threads that are alone on their cores, or want all of them, are as whole cores; what shares is below all."""
    if request.options.get("smt", "prefer") != "prefer":
        return _RANKS["core"]
    return _RANKS[request.kind] if request.dedicated or request.kind != "thread" else 0
