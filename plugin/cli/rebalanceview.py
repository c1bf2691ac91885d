"""What moving would gain and cost, as people read it."""

from __future__ import annotations

from collections.abc import Callable

from ..planner.plan import Plan


def show_rebalance(plan: Plan, say: Callable[[str], None]) -> None:
    """Line by line to `say`; nothing where it was not asked for."""
    found = plan.rebalance
    if found is None:
        return
    if not found.gains:
        say("rebalance: nothing would be better, what runs stays")
    for gain in found.gains:
        say(f"rebalance gains: {gain}")
    for move in found.moves:
        say(f"  moves {move}")
    if found.gains:
        say(f"  steps by effect: {_counts(found.steps)}; without --rebalance: {_counts(found.without)}")
        say(f"  felt because of it by: {', '.join(found.clients) or 'nobody'}")
    for held in found.held:
        say(f"  {held}")


def _counts(steps: dict[str, int]) -> str:
    return ", ".join(f"{count} {effect}" for effect, count in steps.items()) or "none"
