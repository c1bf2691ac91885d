"""The kinds of resource that can run emulation code, one file each.

A kind looks at the book of a host and at what the kinds before it found, and answers with a `Footing` or a `Misfit`;
it books nothing. A new kind is one new file and one line here, and passes tests/unit/test_resources.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...domain import DomainSpec
from ...manifest.topology import ResourceRequest
from ..book import Book
from . import core, isa, memory, microcode, processor, thread
from .kind import Footing, Misfit, ResourceKind

# In the order in which they are asked: what rules a whole host out first; processors when it is known what memory must
# be on their node.
_ALL: tuple[ResourceKind, ...] = (
    microcode.KIND,
    isa.KIND,
    memory.KIND,
    thread.KIND,
    core.KIND,
    processor.KIND,
)

KINDS: dict[str, ResourceKind] = {kind.name: kind for kind in _ALL}
CPU_KINDS = frozenset({"thread", "core", "processor"})

Alternative = tuple[ResourceRequest, ...]

__all__ = ["CPU_KINDS", "KINDS", "Alternative", "Footing", "Misfit", "describe", "fit_one", "fits", "fulfilled"]

_ANY_THREAD = ResourceRequest("thread")


def fits(
    alternatives: tuple[Alternative, ...], book: Book, memory: int
) -> Iterator[tuple[Alternative, Footing | Misfit]]:
    """What each alternative comes to on the host for a device VM of `memory` bytes."""
    for alternative in alternatives:
        yield alternative, fit_one(alternative, book, memory)


def fit_one(alternative: Alternative, book: Book, memory: int) -> Footing | Misfit:
    """All requests of an alternative must fit together, and the host must have the virtual CPUs and memory left."""
    footing = Footing(memory)
    for request in in_order(alternative):
        answer = KINDS[request.kind].fit(request, book, footing)
        if isinstance(answer, Misfit):
            return answer
        footing = answer
    vcpus, needed = footing.vcpus, 0 if footing.page_size else footing.memory
    return footing if book.takes(vcpus, needed) else Misfit(lambda: book.lacks(vcpus, needed))


def fulfilled(alternatives: tuple[Alternative, ...], spec: DomainSpec, book: Book) -> bool:
    """Whether what a device VM was given earlier is one of the alternatives that are asked for now."""
    return any(
        all(KINDS[request.kind].fulfils(request, spec, book) for request in in_order(alternative))
        and set(spec.cpu_features) == _features(alternative)
        and spec.arch == (_arch(alternative) or book.host.arch)
        and bool(spec.page_size) == any(request.kind == "memory" for request in alternative)
        for alternative in alternatives
    )


def in_order(alternative: Alternative) -> list[ResourceRequest]:
    """The requests as they are asked, with a thread to run on when the alternative names no processors."""
    if len(alternative) == 1 and alternative[0].kind in CPU_KINDS:
        return list(alternative)
    by_kind = {request.kind: request for request in alternative}
    if not by_kind.keys() & CPU_KINDS:
        by_kind["thread"] = _ANY_THREAD
    return [by_kind[name] for name in KINDS if name in by_kind]


def describe(alternative: Alternative) -> str:
    """`avx2 and 2 dedicated threads`."""
    return " and ".join(KINDS[request.kind].describe(request) for request in alternative)


def _features(alternative: Alternative) -> set[str]:
    return {name for request in alternative if request.kind == "isa" for name in isa.features_of(request)}


def _arch(alternative: Alternative) -> str:
    return next((request.options.get("arch", "") for request in alternative if request.kind == "microcode"), "")
