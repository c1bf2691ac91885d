"""microcode: what runs the emulation code below its instruction set.

That is the host processor's own microcode, of which a lowest revision may be asked; or, for emulation code of an
architecture that the host does not have, the VMM's instruction translator.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...domain import DomainSpec
from ...guest.architecture import ARCHITECTURES
from ...manifest.topology import ResourceRequest
from ..book import Book
from .kind import Footing, Misfit

TRANSLATOR = "tcg"


@dataclass(frozen=True)
class Microcode:
    """`options["revision"]` (an integer, as capabilities tell it) or `options["arch"]`, or both."""

    name: str = "microcode"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        """Another architecture where that is asked, when the host has what is asked."""
        asked, there = request.options.get("revision", 0), book.host.microcode
        if asked and not there:
            return Misfit(lambda: f"revision {asked:#x} or later asked, the host does not tell its own")
        if there < asked:
            return Misfit(lambda: f"revision {asked:#x} or later asked, the host has {there:#x}")
        if asked:
            footing.why.append(lambda: f"the host's microcode is {there:#x}")
        arch = request.options.get("arch", "")
        if not arch or arch == book.host.arch:
            return None
        if arch not in ARCHITECTURES:
            return Misfit(
                lambda: f"there are no device VM images for {arch}, only for {', '.join(sorted(ARCHITECTURES))}"
            )
        if not any(kind.arch == arch and TRANSLATOR in kind.accelerators for kind in book.host.guests):
            return Misfit(lambda: f"the VMM has no translator for {arch}")
        footing.arch = arch
        footing.why.append(lambda: f"the VMM translates {arch} into {book.host.arch}")
        return None

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """The host it is on has the revision still."""
        return book.host.microcode >= int(request.options.get("revision", 0))

    def describe(self, request: ResourceRequest) -> str:
        """`microcode 0x2b or later`, `translation of aarch64`."""
        options = request.options
        words = [f"microcode {options['revision']:#x} or later"] if "revision" in options else []
        words += [f"translation of {options['arch']}"] if "arch" in options else []
        return " and ".join(words)


KIND = Microcode()
