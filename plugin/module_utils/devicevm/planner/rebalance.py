"""What would be better if what runs could be moved, and what that costs.

Everything that may move is placed as if it were not there. Only if that is better in the measure below is anything
moved, and then as little as still comes to the same measure. So a second time there is nothing to gain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..domain import DomainSpec, Role
from ..inventory.cpuset import format_cpuset
from ..manifest.topology import PlacementStrategy, Topology
from .component import components_of
from .draft import Settled, settle
from .floating import unconfined
from .freedom import freedom
from .measure import WORDS, Measure
from .plan import Effect, Rebalance, Step, Unplaced
from .view import View

TRIALS = 64
"""How often what is moved is tried with less."""
HOSTS = 16
"""How many hosts are tried to be emptied, those with the fewest clients first; and how many stuck clients moved."""
HINTED = 500
"""Up to how many clients it is tried unasked whether moving would find a place for those that have none."""
_PRICED = ": 'devicevm plan --rebalance' tells what that moves, and who feels it"

Try = tuple[frozenset[str], frozenset[str]]
"""What to try to move, as clients, and the hosts that it is not to go to."""


def rebalanced(topology: Topology, view: View, settled: Settled) -> Settled:
    """The best that moving comes to, again and again until nothing is gained; `settled` if nothing is at all."""
    best, state = settled, view
    while True:
        better = _improved(topology, state, best)
        if better is None and state is not view:
            break
        # What is new now is there the next time, and in nobody's way: nothing must be left to gain then.
        best = better or best
        state = view.after(best.draft)
    if best is settled:
        return settled
    wanted = {spec.name for spec in best.draft.desired}
    gone = [one for one in settled.draft.doomed if one.role is Role.CLIENT]
    left = [one for one in view.mine.values() if one.role is Role.DEVICE_VM and one.name not in wanted]
    # Of those that are where they would have been anyhow, the reasons are those of then.
    known = {replace(one, reasons=()): one for one in settled.draft.allocations}
    allocations = [known.get(replace(one, reasons=()), one) for one in best.draft.allocations]
    return Settled(replace(best.draft, doomed=[*gone, *left], allocations=allocations), best.unplaced)


def _improved(topology: Topology, view: View, now: Settled) -> Settled | None:
    """Something better than `now`, with as few moves as it takes."""
    found = _first_improvement(
        topology, view, now, [*_places_to_find(topology, view, now), *_hosts_to_empty(topology, now)]
    )
    return _with_fewest_moves(topology, view, *found, now) if found else None


def _first_improvement(
    topology: Topology, view: View, now: Settled, tries: Iterable[Try]
) -> tuple[Settled, Try] | None:
    for tried in tries:
        goal = settle(topology, view, *tried)
        if goal.improves(now):
            return goal, tried
    return None


def with_ways_out(topology: Topology, view: View, settled: Settled) -> list[Unplaced]:
    """What is left out, with what moving would do for it, where something is there that could be moved."""
    if not (settled.out and view.running) or len(topology.clients) > HINTED:
        return settled.unplaced
    found = _first_improvement(topology, view, settled, _places_to_find(topology, view, settled))
    places = {spec.name: spec.host for spec in found[0].draft.desired} if found else {}
    return [
        replace(item, reasons=(*item.reasons, f"--rebalance finds a place for it on {places[item.client]}{_PRICED}"))
        if item.client in places
        else item
        for item in settled.unplaced
    ]


def _with_fewest_moves(topology: Topology, view: View, goal: Settled, tried: Try, now: Settled) -> Settled:
    moving, avoid = tried
    best = goal

    def enough(some: frozenset[str]) -> bool:
        nonlocal best
        less = settle(topology, view, some, avoid)
        if less.measure <= goal.measure and less.improves(now):
            best = less
            return True
        return False

    moved = {spec.name: spec for spec in goal.draft.desired if differs(unconfined(spec), view.specs)}
    names = moving & set(moved).union(*({one.client for one in spec.emulators} for spec in moved.values()))
    fewest(sorted(names), sorted(moving - names), enough)
    return best


def price(
    topology: Topology,
    settled: Settled,
    chosen: Settled,
    view: View,
    steps: tuple[Step, ...],
    without: tuple[Step, ...],
) -> Rebalance:
    """What `chosen` gains over `settled` and costs beyond it; `without` are the steps of that."""
    everybody = frozenset(client.name for client in topology.clients)
    held = freedom(components_of(topology.clients, settled.draft.units), everybody, view.running).held
    specs = [unconfined(spec) for spec in chosen.draft.desired]
    return told(settled.measure, chosen.measure, specs, view.specs, steps, without, held)


def _places_to_find(topology: Topology, view: View, now: Settled) -> list[Try]:
    """Everything, then each that is stuck where it may not be."""
    everybody = frozenset(client.name for client in topology.clients)
    stuck = sorted(now.out & view.running.keys())[:HOSTS]
    return [(everybody, frozenset()), *((frozenset((name,)), frozenset[str]()) for name in stuck)]


def _hosts_to_empty(topology: Topology, now: Settled) -> list[Try]:
    """What is on one host after the other, to the others that are in use: for `pack` alone."""
    on: dict[str, set[str]] = {}
    for spec in (*now.draft.desired, *now.draft.kept):
        on.setdefault(spec.host, set()).add(spec.name)
    if topology.placement is not PlacementStrategy.PACK or len(on) < 2:
        return []
    everybody, hosts = {client.name for client in topology.clients}, now.draft.placement.books.keys()
    return [
        (frozenset(everybody & on[name]), frozenset(hosts - (on.keys() - {name})))
        for name in sorted(on, key=lambda name: (len(on[name]), name))[:HOSTS]
    ]


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
    for name, words in WORDS.items():
        old, new = getattr(was, name), getattr(becomes, name)
        if old != new:
            gains.append(f"{words}: {old:g} -> {new:g}")
    # Where nothing is gained, what moves does so without being asked.
    changed = [spec for spec in specs if gains and differs(spec, before)]
    moves = [f"{spec.name}: {_place(before[spec.name])} -> {_place(spec)}" for spec in changed]
    moved = {spec.name for spec in changed}
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
    cpus = format_cpuset(spec.placement.cpus)
    return f"{spec.host}, CPU {cpus}" if cpus else spec.host
