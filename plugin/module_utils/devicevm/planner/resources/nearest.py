"""What would fit instead of what does not: a request with one wish less."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ...manifest.topology import ResourceRequest
from ..book import Book
from . import CPU_KINDS, Alternative, Footing, fit_one

_CODE = frozenset({"firmware", "program"})
"""Kinds that are the emulation code itself."""


def nearest_fit(alternatives: tuple[Alternative, ...], books: Iterable[Book], memory: int, devices: int = 1) -> str:
    """The least that must be given up for one of the alternatives to fit a host, in words; empty when one wish less
    is not enough. `giving up dedicated of thread would fit on h1`."""
    hosts = list(books)
    for alternative in alternatives:
        for words, relaxed in _relaxed(alternative):
            for book in hosts:
                if isinstance(fit_one(relaxed, book, memory, devices), Footing):
                    return f"{words} would fit on {book.host.name}"
    return ""


def _relaxed(alternative: Alternative) -> Iterator[tuple[str, Alternative]]:
    """The alternative with one wish less each, the least painful first."""
    for index, request in enumerate(alternative):
        for words, changed in _wishes(request):
            kept = (*alternative[:index], *changed, *alternative[index + 1 :])
            yield words, kept


def _wishes(request: ResourceRequest) -> Iterator[tuple[str, tuple[ResourceRequest, ...]]]:
    options = request.options
    if request.kind in _CODE:
        return  # without it nothing would be there to run
    if request.kind == "block":
        for option in ("numaNode", "iommuGroup"):
            if option in options:
                rest = {key: value for key, value in options.items() if key != option}
                yield f"giving up {option} of block", (replace(request, options=rest),)
        return
    if request.kind not in CPU_KINDS:
        yield f"giving up {request.kind}", ()
        return
    for option in ("smt", "numaNode", "near", "emulator", "float"):
        if option in options:
            rest = {key: value for key, value in options.items() if key != option}
            yield f"giving up {option} of {request.kind}", (replace(request, options=rest),)
    for count in range(request.count - 1, 0, -1):
        yield f"{count} instead of {request.count} of {request.kind}", (replace(request, count=count),)
    if request.kind == "thread" and request.dedicated:
        rest = {key: value for key, value in options.items() if key not in ("smt", "emulator")}
        yield "giving up dedicated of thread", (replace(request, dedicated=False, options=rest),)
    if request.kind != "thread":
        yield f"a dedicated thread instead of {request.kind}", (ResourceRequest("thread", 1, True),)
        yield f"a shared thread instead of {request.kind}", (ResourceRequest("thread"),)
