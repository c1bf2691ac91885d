"""The kinds of resource that can run emulation code, one file each.

A kind looks at the book of a host and at the `Footing` that the kinds before it found, and adds to that or answers with
a `Misfit`; it books nothing. A new kind is one new file and one line here, and passes tests/unit/test_resources.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...domain import DomainSpec
from ...manifest.topology import ResourceRequest
from ..book import Book, held_by
from ..code import Code
from . import block, core, firmware, isa, memory, microcode, processor, program, thread
from .kind import Footing, Misfit, ResourceKind
from .near import Beside, is_near

# In the order in which they are asked: what rules a whole host out first; processors when it is known what memory must
# be on their node.
_ALL: tuple[ResourceKind, ...] = (
    firmware.KIND,
    block.KIND,
    program.KIND,
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

__all__ = [
    "CPU_KINDS",
    "KINDS",
    "Alternative",
    "Footing",
    "Misfit",
    "code_of",
    "describe",
    "fit_one",
    "fits",
    "fulfilled",
]

_ANY_THREAD = ResourceRequest("thread")
_CODERS = {coder.name: coder for coder in (firmware.KIND, block.KIND, program.KIND)}
_OWN = Code()
"""The class's own code."""


def fits(
    alternatives: tuple[Alternative, ...], book: Book, memory: int, devices: int = 1, beside: Beside | None = None
) -> Iterator[tuple[Alternative, Footing | Misfit]]:
    """What each alternative comes to on the host for a device VM of `memory` bytes with so many devices, whose clients
    are at `beside`."""
    for alternative in alternatives:
        yield alternative, fit_one(alternative, book, memory, devices, beside)


def fit_one(
    alternative: Alternative, book: Book, memory: int, devices: int = 1, beside: Beside | None = None
) -> Footing | Misfit:
    """All requests of an alternative must fit together, and the host must have the virtual CPUs and memory left."""
    footing = Footing(memory, devices=devices, beside=beside)
    for request in in_order(alternative):
        if misfit := KINDS[request.kind].fit(request, book, footing):
            return misfit
    if footing.code.firmware:
        _to_one_processor(footing)
    vcpus, needed, alone = footing.vcpus, 0 if footing.page_size else footing.memory, 0
    if footing.placement.dedicated:
        # They take nothing of a declared pool.
        vcpus, alone = 0, 0 if book.policy.shared_cpus else len(held_by(footing.placement))
    return footing if book.takes(vcpus, needed, alone) else Misfit(lambda: book.lacks(vcpus, needed, alone))


def fulfilled(
    alternatives: tuple[Alternative, ...], spec: DomainSpec, book: Book, beside: Beside | None = None
) -> Alternative | None:
    """Which of the alternatives that are asked for now a device VM was given earlier; None when it is none of them."""
    for alternative in alternatives:
        if _is_given(alternative, spec, book, beside):
            return alternative
    return None


def _is_given(alternative: Alternative, spec: DomainSpec, book: Book, beside: Beside | None) -> bool:
    for request in in_order(alternative):
        if not KINDS[request.kind].fulfils(request, spec, book) or not is_near(request, spec.placement, book, beside):
            return False
    if len(alternative) == 1 and alternative[0].kind in CPU_KINDS:
        # Most are processors and nothing else.
        special = spec.cpu_features or spec.page_size or spec.firmware or spec.host_devices
        return not special and spec.arch == book.host.arch
    return (
        set(spec.cpu_features) == _features(alternative)
        and spec.arch == (_arch(alternative) or book.host.arch)
        and bool(spec.page_size) == _names(alternative, "memory")
        and bool(spec.firmware) == _names(alternative, "firmware")
        and bool(spec.host_devices) == any(block.is_of_host(request) for request in alternative)
    )


def code_of(alternative: Alternative, book: Book, running: DomainSpec | None = None) -> Code:
    """The code that an alternative brings along, for a device VM that is `running` on it already; nothing where it is
    the class's own."""
    for request in alternative:
        if coder := _CODERS.get(request.kind):
            code = coder.code(request, book, running)
            if code != _OWN:
                return code
    return _OWN


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
    found = (request.options.get("arch", "") for request in alternative if request.kind in ("microcode", "firmware"))
    return next(found, "")


def _names(alternative: Alternative, kind: str) -> bool:
    return any(request.kind == kind for request in alternative)


def _to_one_processor(footing: Footing) -> None:
    """Firmware's machine has one processor: it may run on any of those that were found."""
    placement = footing.placement
    cpus = tuple(sorted({cpu for pin in placement.vcpus for cpu in pin}))
    footing.vcpus, footing.placement = 1, replace(placement, vcpus=(cpus,) if cpus else ())
