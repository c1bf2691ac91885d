"""What would fit instead of what does not: a request with one wish less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...manifest.topology import ResourceRequest
from . import CPU_KINDS, Alternative

_CODE = frozenset({"firmware", "program"})
"""Kinds that are the emulation code itself."""


def relaxed(alternatives: tuple[Alternative, ...]) -> Iterator[tuple[str, Alternative]]:
    """Each of the alternatives with one wish less, the least painful first, and what is given up, in words: `giving up
    dedicated of thread`."""
    for alternative in alternatives:
        for index, request in enumerate(alternative):
            for words, changed in _wishes(request):
                yield words, (*alternative[:index], *changed, *alternative[index + 1 :])


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
