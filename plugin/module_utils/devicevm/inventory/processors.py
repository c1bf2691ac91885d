"""From the ids that firmware and kernels give to processors to ones that are unique on a host.

Core ids repeat in every socket, die or cluster; socket ids may repeat in every NUMA cell or be -1;
sibling lists may be missing. The planner must not confuse two cores, so all of it is settled here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .host import Cpu

UNKNOWN = -1


@dataclass(frozen=True)
class RawCpu:
    """A `<cpu>` of the capabilities as it stands there; -1 = not told, `siblings` empty = not told."""

    id: int
    cell: int
    socket: int = UNKNOWN
    die: int = UNKNOWN
    cluster: int = UNKNOWN
    core: int = UNKNOWN
    siblings: tuple[int, ...] = ()

    @property
    def place(self) -> tuple[int, int, int, int]:
        """What names its core, as far as the document can be believed."""
        return (self.socket, self.die, self.cluster, self.core)


def processors(raw_cpus: Iterable[RawCpu]) -> tuple[Cpu, ...]:
    """The CPUs of a host by ascending id, cores and sockets named uniquely; of a repeated id the first counts."""
    known: dict[int, RawCpu] = {}
    for cpu in raw_cpus:
        known.setdefault(cpu.id, cpu)
    raw = [replace(known[key], siblings=_on_host(known[key], known)) for key in sorted(known)]
    cores = _cores(raw)
    sockets = _sockets(raw, cores)
    names = _core_names(raw, cores, sockets)
    return tuple(
        Cpu(id=cpu.id, core=names[cores[cpu.id]], socket=sockets[cpu.id], node=cpu.cell, siblings=cores[cpu.id])
        for cpu in raw
    )


def processors_without_topology(count: int, node: int = 0) -> tuple[Cpu, ...]:
    """`count` CPUs of which nothing is known: one socket, each CPU counted as a core of its own."""
    return processors(RawCpu(id=cpu, cell=node, socket=0, core=cpu) for cpu in range(count))


def _on_host(cpu: RawCpu, known: dict[int, RawCpu]) -> tuple[int, ...]:
    return tuple(sorted({cpu.id, *(other for other in cpu.siblings if other in known)})) if cpu.siblings else ()


def _cores(raw: list[RawCpu]) -> dict[int, tuple[int, ...]]:
    """For each CPU all CPUs of its core. One-sided sibling lists count for both sides: sharing is mutual."""
    groups = {cpu.id: {cpu.id} for cpu in raw}
    for cpu, other in _pairs(raw):
        if groups[cpu] is not groups[other]:
            merged = groups[cpu] | groups[other]
            for member in merged:
                groups[member] = merged
    return {cpu: tuple(sorted(group)) for cpu, group in groups.items()}


def _pairs(raw: list[RawCpu]) -> Iterable[tuple[int, int]]:
    """CPUs that share a core: by the sibling lists, or by equal ids in one cell where those are missing."""
    first: dict[tuple[int, ...], int] = {}
    for cpu in raw:
        yield from ((cpu.id, other) for other in cpu.siblings)
        if not cpu.siblings and cpu.core != UNKNOWN:
            yield (cpu.id, first.setdefault((cpu.cell, *cpu.place), cpu.id))


def _sockets(raw: list[RawCpu], cores: dict[int, tuple[int, ...]]) -> dict[int, int]:
    """Each CPU's socket. One socket may span NUMA cells (sub-NUMA clustering, AMD's NPS), so equal ids in two
    cells are one socket, unless a core id repeats too: then the ids only count within a cell."""
    split: set[int] = set()
    seen: dict[tuple[int, int, int, int], RawCpu] = {}
    for cpu in raw:
        twin = seen.setdefault(cpu.place, cpu)
        if cpu.core != UNKNOWN and twin.cell != cpu.cell and cores[twin.id] != cores[cpu.id]:
            split.add(cpu.socket)
    by_cell = {cpu.id: cpu.socket < 0 or cpu.socket in split for cpu in raw}
    keys = {cpu.id: (cpu.socket, cpu.cell if by_cell[cpu.id] else UNKNOWN) for cpu in raw}
    # All CPUs of a core are in its first CPU's socket: a core in two sockets cannot be given away whole.
    keys = {cpu.id: keys[cores[cpu.id][0]] for cpu in raw}
    if all(socket >= 0 and cell == UNKNOWN for socket, cell in keys.values()):
        return {cpu: socket for cpu, (socket, cell) in keys.items()}
    numbers: dict[tuple[int, int], int] = {}
    return {cpu.id: numbers.setdefault(keys[cpu.id], len(numbers)) for cpu in raw}


def _core_names(
    raw: list[RawCpu], cores: dict[int, tuple[int, ...]], sockets: dict[int, int]
) -> dict[tuple[int, ...], str]:
    """Each core: `socket.die.core`, with clusters `socket.die.cluster.core`; `@CPU` is added where that is taken."""
    names: dict[tuple[int, ...], str] = {}
    taken: set[str] = set()
    for cpu in raw:
        core = cores[cpu.id]
        if core in names:
            continue
        number = cpu.core if cpu.core != UNKNOWN else cpu.id
        parts = [sockets[cpu.id], max(cpu.die, 0), *([cpu.cluster] if cpu.cluster > 0 else []), number]
        name = ".".join(str(max(part, 0)) for part in parts)
        names[core] = name if name not in taken else f"{name}@{cpu.id}"
        taken.add(names[core])
    return names
