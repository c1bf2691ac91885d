"""The planner: what is declared, what hosts have and what the VMM runs, made into a plan. Pure."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..domain import ObservedDomain
from ..inventory.host import Host
from ..manifest.topology import Topology
from .changes import Changes
from .draft import Draft, asked_again, settle
from .felt import with_felt
from .floating import add_steps
from .handover import in_turn
from .plan import Plan, Step
from .rebalance import price, rebalanced, with_ways_out
from .rolling import one_by_one, outdated
from .specify import state_digest
from .storage import identity
from .view import Intent, View

__all__ = ["Intent", "make_plan", "removal"]


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Python's collector of circles kept from running: a plan makes none, and looking at all of a large fleet's records
    again and again takes longer than planning."""
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # What was made is as old as the rest from now on, or the collector would look at all of it at once.
            gc.freeze()
            gc.unfreeze()
        if ran:
            gc.enable()


@_collector_at_rest()
def make_plan(
    topology: Topology, hosts: tuple[Host, ...], observed: tuple[ObservedDomain, ...], intent: Intent
) -> Plan:
    """The steps that make the VMM have what is declared, and nothing else of this owner's.

    Clients of the owner that are not declared stay, unless `intent` says otherwise; other
    owners' domains are never in a step. What cannot be placed is in `unplaced`, with reasons, and if
    it is there already it stays as it is.
    """
    view = View(hosts, observed, intent)
    settled = settle(topology, view)
    chosen = rebalanced(topology, view, settled) if intent.rebalance else settled
    chosen = asked_again(topology, view, chosen)
    draft = chosen.draft
    unplaced = chosen.unplaced if intent.rebalance else with_ways_out(topology, view, chosen)
    changes = _changes(view, draft)
    steps = _steps(changes, draft)
    without = _steps(_changes(view, settled.draft), settled.draft) if intent.rebalance else ()
    return Plan(
        owner=intent.owner,
        made_from=state_digest(hosts, observed),
        steps=steps,
        allocations=tuple(sorted(draft.allocations, key=lambda allocation: allocation.device_vm)),
        unplaced=tuple(sorted(unplaced, key=lambda item: (item.client, item.device))),
        domains=tuple(changes.domains[name] for name in sorted(changes.domains)),
        previous=tuple(changes.previous[name] for name in sorted(changes.previous)),
        warnings=(
            *view.warnings(topology.hosts),
            *draft.warnings,
            *changes.warnings,
            *outdated(draft.desired, hosts, upgrading=intent.upgrade),
        ),
        rebalance=price(topology, settled, chosen, view, steps, without) if intent.rebalance else None,
    )


def removal(topology: Topology, intent: Intent) -> tuple[Topology, Intent]:
    """What to plan from and for, to take away what manifests declare: its clients. Data that they say to retain stays,
    though it was made when they did not say so."""
    stores = [device.store for client in topology.clients for device in client.devices if device.store]
    return Topology(hosts=topology.hosts), replace(
        intent,
        remove=frozenset(client.name for client in topology.clients),
        retain=frozenset(identity(store) for store in stores if store.reclaim == "retain"),
    )


def _changes(view: View, draft: Draft) -> Changes:
    intent = view.intent
    kept = frozenset(spec.name for spec in draft.kept)
    changes = Changes(
        view.mine, view.live, intent.owner, view.uses, intent.delete_data, intent.retain, kept, view.awake
    )
    changes.work_out(sorted(draft.desired, key=lambda spec: spec.name), draft.doomed)
    return changes


def _steps(changes: Changes, draft: Draft) -> tuple[Step, ...]:
    steps = in_turn(changes.steps, changes.observed, changes.domains)
    steps = one_by_one(steps, changes.domains.values(), changes.previous)
    steps = add_steps(steps, draft.moves, draft.desired)
    return with_felt(
        steps, changes.domains, frozenset((*changes.restarts, *changes.replugs)), changes.outages.reconnects
    )
