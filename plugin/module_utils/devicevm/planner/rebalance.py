"""What would be better if what runs could be moved, and what that costs.

Everything that may move is placed as if it were not there. Only if that is better in the measure below is anything
moved, and then as little as still comes to the same measure. So a second time there is nothing to gain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ..domain import DomainSpec
from ..inventory.cpuset import format_cpuset
from ..manifest.topology import PlacementStrategy
from .book import Book, cpus_of
from .component import Component
from .grouping import Unit
from .plan import Effect, Rebalance, Step
from .resources import fulfilled

TRIALS = 64
"""How often what is moved is tried with less."""
HOSTS = 16
"""How many hosts are tried to be emptied, those with the fewest clients first; and how many stuck clients moved."""
HINTED = 500
"""Up to how many clients it is tried unasked whether moving would find a place for those that have none."""


@dataclass(frozen=True, order=True)
class Measure:
    """How good a placement is: the less the better, the first thing that differs counts."""

    unplaced: int
    """Clients without a place."""
    crossings: int
    """Pairs of domains that share a core across trust domains."""
    maintenance: int
    """Clients on hosts that are in maintenance."""
    alternatives: int
    """How many better alternatives of resources there were before those that device VMs have, added up."""
    hosts: int
    """pack: hosts in use."""
    fullest: float
    """spread: how full the fullest host is, 0 to 1, in hundredths."""


_WORDS = {
    "unplaced": "clients that cannot be placed",
    "crossings": "pairs that share a core across trust domains",
    "maintenance": "clients on hosts in maintenance",
    "alternatives": "better alternatives not had",
    "hosts": "hosts in use",
    "fullest": "the fullest host, from 0 to 1",
}


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
        if not (tied or stored or any(client.vm.boot.image for client in component.clients)):
            hosts |= names
    return Freedom(frozenset(cpus), frozenset(hosts), avoid, held)


def moves_to_try(
    strategy: PlacementStrategy,
    clients: Iterable[str],
    specs: Iterable[DomainSpec],
    hosts: frozenset[str],
    stuck: Iterable[str],
) -> Iterator[tuple[frozenset[str], frozenset[str]]]:
    """What to try to move, as clients, and the hosts that it is not to go to: everything, then each that is `stuck`
    where it may not be, then those of one host after the other to the others that are in use."""
    everybody = frozenset(clients)
    yield everybody, frozenset()
    for name in sorted(stuck)[:HOSTS]:
        yield frozenset((name,)), frozenset()
    on: dict[str, set[str]] = {}
    for spec in specs:
        on.setdefault(spec.host, set()).add(spec.name)
    if strategy is not PlacementStrategy.PACK or len(on) < 2:
        return
    for name in sorted(on, key=lambda name: (len(on[name]), name))[:HOSTS]:
        yield everybody & on[name], hosts - (on.keys() - {name})


def measure(
    unplaced: int,
    crossings: int,
    specs: list[DomainSpec],
    units: list[Unit],
    books: dict[str, Book],
    strategy: PlacementStrategy,
) -> Measure:
    """The measure of a placement whose domains are `specs`."""
    by_name = {spec.name: spec for spec in specs}
    ranks = [_rank(unit, by_name[unit.name], books) for unit in units if unit.wants and unit.name in by_name]
    used = {spec.host for spec in specs}
    clients = [spec for spec in by_name.values() if not spec.emulators and spec.host in books]
    packed = strategy is PlacementStrategy.PACK
    return Measure(
        unplaced=unplaced,
        crossings=crossings,
        maintenance=sum(books[spec.host].policy.maintenance for spec in clients),
        alternatives=sum(ranks),
        hosts=len(used) if packed else 0,
        fullest=0.0 if packed else round(max((book.pressure for book in books.values()), default=0.0), 2),
    )


def fewest(names: list[str], others: list[str], enough: Callable[[frozenset[str]], bool]) -> frozenset[str]:
    """A single one of these names or the others that is enough, or as few of the names as are, found by leaving out
    ever smaller parts of them."""
    for name in [*names, *others][: TRIALS // 2]:
        if enough(frozenset((name,))):
            return frozenset((name,))
    left, size, trials = list(names), max(1, len(names) // 2), TRIALS // 2
    while left and trials < TRIALS:
        start = 0
        while start < len(left) and trials < TRIALS:
            rest = [*left[:start], *left[start + size :]]
            trials += 1
            if enough(frozenset(rest)):
                left = rest
            else:
                start += size
        if size == 1:
            break
        size //= 2
    return frozenset(left)


def differs(spec: DomainSpec, before: dict[str, DomainSpec]) -> bool:
    """Whether a domain that is there is to be somewhere else."""
    old = before.get(spec.name)
    return old is not None and (old.host, old.placement) != (spec.host, spec.placement)


def told(
    was: Measure,
    becomes: Measure,
    specs: list[DomainSpec],
    before: dict[str, DomainSpec],
    steps: tuple[Step, ...],
    without: tuple[Step, ...],
    held: dict[str, str],
) -> Rebalance:
    """What is gained, what is moved for it, and what that costs beyond the plan that moves nothing."""
    gains = []
    for name, words in _WORDS.items():
        old, new = getattr(was, name), getattr(becomes, name)
        if old != new:
            gains.append(f"{words}: {old:g} -> {new:g}")
    moves = [f"{spec.name}: {_place(before[spec.name])} -> {_place(spec)}" for spec in specs if differs(spec, before)]
    moved = {spec.name for spec in specs if differs(spec, before)}
    effects, instead = _effects(steps), _effects(without)
    return Rebalance(
        gains=tuple(gains),
        moves=tuple(sorted(moves)),
        steps=effects,
        without=instead,
        clients=tuple(sorted(_felt(steps) - _felt(without))),
        held=tuple(f"{name} stays: {why}" for name, why in sorted(held.items()) if name not in moved),
    )


def _effects(steps: Iterable[Step]) -> dict[str, int]:
    counted = Counter(step.effect for step in steps)
    return {effect.value: counted[effect] for effect in Effect if counted[effect]}


def _felt(steps: Iterable[Step]) -> set[str]:
    return {client for step in steps for felt in step.felt for client in felt.clients}


def _place(spec: DomainSpec) -> str:
    cpus = format_cpuset(cpus_of(spec.placement))
    return f"{spec.host}, CPU {cpus}" if cpus else spec.host


def _why_kept(unit: Unit, there: dict[str, DomainSpec]) -> str:
    if unit.observed is None:
        return ""
    if unit.kept:
        return f"it serves {unit.kept[0].client}, which is not declared or stays as it is"
    lost = [one for one in unit.observed.emulators if one.size and not one.store]
    if lost and unit.name in there:
        return f"{lost[0].client}/{lost[0].name} has no store, and what is on it would be lost"
    return ""


def _rank(unit: Unit, spec: DomainSpec, books: dict[str, Book]) -> int:
    book = books.get(spec.host)
    if book is None:
        return 0
    had = (index for index, one in enumerate(unit.resources) if fulfilled((one,), spec, book))
    return next(had, len(unit.resources))
