"""Where the VMM's own threads run: those that answer the guest's devices, and so do its I/O.

A device VM has no I/O threads (`<iothread>`) besides: QEMU does its I/O in its main loop, and in workers that run where
the main loop runs.
"""

from __future__ import annotations

from collections.abc import Callable

from ...domain import CpuPlacement
from ...inventory.cpuset import format_cpuset
from ...manifest.topology import ResourceRequest
from ..book import Book

NO_POOL = "the host declares no shared pool (sharedCpus of its Host)"


def emulator_on(request: ResourceRequest, dedicated: bool) -> str:
    """What is asked: vcpus, shared or own; empty for what is usual, which is the virtual CPUs' own processors when they
    are dedicated, else the shared pool, or anywhere where there is none."""
    asked: str = request.options.get("emulator", "")
    return "" if asked == "vcpus" and dedicated else asked


def emulator_cpus(
    asked: str,
    book: Book,
    node: int | None,
    cpus: tuple[int, ...],
    idle: tuple[int, ...],
    dedicated: bool,
) -> tuple[int, ...] | Callable[[], str]:
    """The CPUs for the VMM's own threads beside virtual CPUs on `cpus`, where they are `asked` to be (emulator_on); or
    what says why there are none."""
    if asked == "shared":
        return book.pool() or (lambda: f"no place for the VMM's own threads: {NO_POOL}")
    if asked == "own":
        return _own(book, node, frozenset((*cpus, *idle)))
    return cpus if dedicated or asked == "vcpus" else book.pool()


def same_emulator(request: ResourceRequest, placement: CpuPlacement, book: Book) -> bool:
    """Whether the VMM's own threads are where they are asked to be now."""
    asked = emulator_on(request, placement.dedicated)
    pooled = asked == "shared" or not (asked or placement.dedicated)
    return placement.emulator_on == asked and (not pooled or placement.emulator == book.pool())


def _own(book: Book, node: int | None, taken: frozenset[int]) -> tuple[int, ...] | Callable[[], str]:
    vacant = [
        cpu
        for cpu in book.cpus.values()
        if cpu.vacant and cpu.id not in taken and node in (None, cpu.node) and book.parted(cpu)
    ]
    if not vacant:
        where = "" if node is None else f"NUMA node {node}: "
        return lambda: f"{where}1 thread for the VMM's own asked, 0 free beside CPU {format_cpuset(taken)}"
    # Whole cores are kept whole, as for dedicated threads.
    begun = sum(book.bits.cores(book.bits.of(taken)))
    return (min(vacant, key=lambda cpu: (bool(cpu.bit & book.whole & ~begun), cpu.id)).id,)
