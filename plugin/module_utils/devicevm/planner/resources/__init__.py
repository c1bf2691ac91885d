"""The kinds of resource that can run emulation code, one file each.

A kind looks at the book of a host and answers with a `Fit` or a `Misfit`; it books nothing. A
new kind is one new file and one line in `KINDS`, and passes tests/unit/test_resources.py.
"""

from __future__ import annotations

from ...domain import CpuPlacement
from ...manifest.topology import ResourceRequest
from ..ledger import Ledger
from . import core, thread
from .kind import Fit, Misfit, ResourceKind

_ALL: tuple[ResourceKind, ...] = (thread.KIND, core.KIND)

KINDS: dict[str, ResourceKind] = {kind.name: kind for kind in _ALL}

__all__ = ["KINDS", "Fit", "Misfit", "fit_alternatives", "fulfilled"]


def fit_alternatives(
    alternatives: tuple[tuple[ResourceRequest, ...], ...], ledger: Ledger
) -> tuple[Fit | None, tuple[str, ...]]:
    """The first alternative that fits the host, and a line on each that was looked at."""
    reasons = []
    for alternative in alternatives:
        fit = _fit_one(alternative, ledger)
        words = " and ".join(KINDS[request.kind].describe(request) for request in alternative)
        reasons.append(f"{words}: {fit.reason}")
        if isinstance(fit, Fit):
            return fit, tuple(reasons)
    return None, tuple(reasons)


def fulfilled(alternatives: tuple[tuple[ResourceRequest, ...], ...], placement: CpuPlacement, ledger: Ledger) -> bool:
    """Whether a placement made earlier is one of the alternatives that are asked for now."""
    return any(
        all(KINDS[request.kind].fulfils(request, placement, ledger) for request in alternative)
        for alternative in alternatives
    )


def _fit_one(alternative: tuple[ResourceRequest, ...], ledger: Ledger) -> Fit | Misfit:
    """All requests of an alternative must fit; the one that gives processors gives the placement."""
    best: Fit | None = None
    for request in alternative:
        answer = KINDS[request.kind].fit(request, ledger)
        if isinstance(answer, Misfit):
            return answer
        best = answer if best is None or answer.placement.vcpus else best
    return best or Misfit("an alternative that asks for nothing")
