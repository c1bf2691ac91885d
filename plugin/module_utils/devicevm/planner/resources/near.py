"""near: processors close to those of the clients that a device VM serves."""

from __future__ import annotations

from collections.abc import Callable

from ...domain import CpuPlacement
from ...inventory.cpuset import format_cpuset
from ...manifest.topology import ResourceRequest
from ..book import Book, cpus_of

Beside = tuple[tuple[str, CpuPlacement], ...]
"""The clients of a device VM, and where they are."""


def near_of(request: ResourceRequest) -> str:
    """`node`, `sibling`, or empty."""
    return str(request.options.get("near", ""))


def strays(request: ResourceRequest, beside: Beside | None) -> Callable[[], str] | None:
    """What says which clients may run anywhere, so that nothing can be near them; None when all is well."""
    if not near_of(request) or beside is None:
        return None
    names = [name for name, placement in beside if not cpus_of(placement)]
    if not names:
        return None
    return lambda: f"nothing can be near {', '.join(names)}, which may run on any CPU (spec.vm.cpus of the client)"


def client_nodes(beside: Beside, book: Book) -> list[int]:
    """The NUMA nodes on which the clients run, ascending."""
    return sorted({book.cpus[cpu].node for cpu in _cpus(beside) if cpu in book.cpus})


def siblings(
    request: ResourceRequest, book: Book, beside: Beside, dedicated: bool
) -> tuple[int, ...] | Callable[[], str]:
    """Threads of the clients' own cores that are not the clients'; or what says how many there are."""
    theirs = _cpus(beside)
    cores = {book.cpus[cpu].core for cpu in theirs if cpu in book.cpus}
    most = book.policy.cpu_overcommit - 1
    found = [
        cpu
        for cpu in book.cpus.values()
        if cpu.core in cores
        and cpu.id not in theirs
        and (cpu.vacant if dedicated else cpu.shareable and cpu.load <= most)
        and book.parted(cpu)
    ]
    if len(found) < request.count:
        whose = f"{', '.join(name for name, placement in beside)} on CPU {format_cpuset(theirs)}"
        plural = "" if request.count == 1 else "s"
        return lambda: f"{request.count} sibling thread{plural} of {whose} asked, {len(found)} free"
    found.sort(key=lambda cpu: (cpu.load, cpu.id))
    return tuple(sorted(cpu.id for cpu in found[: request.count]))


def is_near(request: ResourceRequest, placement: CpuPlacement, book: Book, beside: Beside | None) -> bool:
    """Whether a placement made earlier is as near as is asked now. What is not known of the clients is not near."""
    asked = near_of(request)
    if not asked:
        return True
    if beside is None or strays(request, beside):
        return False
    if asked == "node":
        return list(placement.nodes) == client_nodes(beside, book)
    theirs = _cpus(beside)
    cores = {book.cpus[cpu].core for cpu in theirs if cpu in book.cpus}
    return all(cpu in book.cpus and book.cpus[cpu].core in cores and cpu not in theirs for cpu in cpus_of(placement))


def _cpus(beside: Beside) -> frozenset[int]:
    return frozenset(cpu for name, placement in beside for cpu in cpus_of(placement))
