"""microcode: the lowest revision of the host processor's microcode that the emulation code may run on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...domain import DomainSpec
from ...manifest.topology import ResourceRequest
from ..book import Book
from .kind import Footing, Misfit


@dataclass(frozen=True)
class Microcode:
    """A host whose microcode is at least `options["revision"]` (an integer, as capabilities tell it)."""

    name: str = "microcode"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Footing | Misfit:
        """The footing as it is, when the host's processor has the revision."""
        asked, there = request.options["revision"], book.host.microcode
        if not there:
            return Misfit(f"revision {asked:#x} or later asked, the host does not tell its own")
        if there < asked:
            return Misfit(f"revision {asked:#x} or later asked, the host has {there:#x}")
        return replace(footing, reasons=(*footing.reasons, f"the host's microcode is {there:#x}"))

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """The host it is on has the revision still."""
        return book.host.microcode >= int(request.options["revision"])

    def describe(self, request: ResourceRequest) -> str:
        """`microcode 0x2b or later`."""
        return f"microcode {request.options['revision']:#x} or later"


KIND = Microcode()
