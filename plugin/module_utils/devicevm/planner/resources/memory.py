"""memory: the host's pages that a device VM's memory is made of."""

from __future__ import annotations

from dataclasses import dataclass

from ...domain import DomainSpec
from ...manifest.topology import ResourceRequest
from ...quantity import format_bytes
from ..book import Book
from .kind import Footing, Misfit


@dataclass(frozen=True)
class Memory:
    """Memory from huge pages of `options["pageSize"]` bytes. Processors that must be on one node look for enough pages
    there (cpus.py)."""

    name: str = "memory"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        """The page size, when as many pages are left."""
        size: int = request.options["pageSize"]
        sizes = {int(page) for node in book.host.nodes for page in node.huge_pages}
        if size not in sizes:
            there = ", ".join(format_bytes(page) for page in sorted(sizes)) or "none"
            return Misfit(lambda: f"pages of {format_bytes(size)} asked, the host has {there}")
        memory = -(-footing.memory // size) * size
        left = book.huge_pages(size)
        if memory // size > left:
            return Misfit(lambda: f"{memory // size} pages of {format_bytes(size)} asked, {left} left")
        footing.memory, footing.page_size = memory, size
        footing.why.append(lambda: f"{memory // size} pages of {format_bytes(size)}")
        return None

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """It has pages of this size."""
        return spec.page_size == int(request.options["pageSize"])

    def describe(self, request: ResourceRequest) -> str:
        """`pages of 2MiB`."""
        return f"pages of {format_bytes(request.options['pageSize'])}"


KIND = Memory()
