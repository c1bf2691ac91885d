"""What the alternatives of a class or a device VM must keep to beyond their schema."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import Problem
from .document import Document

_CPUS = ("thread", "core", "processor")


def resource_problems(document: Document) -> Iterator[Problem]:
    """Every problem of `spec.resources`."""
    for index, alternative in enumerate(document.spec.get("resources", ())):
        place = ("spec", "resources", index)
        named = [kind for kind in _CPUS if kind in alternative]
        if len(named) > 1:
            hint = "make each an alternative of its own, or leave all but one out"
            yield document.problem(place, f"{' and '.join(named)} in one alternative", hint)
        thread = alternative.get("thread", {})
        if "smt" in thread and not thread.get("dedicated"):
            message = "smt says what becomes of a dedicated thread's siblings, and this one is shared"
            yield document.problem((*place, "thread", "smt"), message, "add dedicated: true, or leave smt out")
