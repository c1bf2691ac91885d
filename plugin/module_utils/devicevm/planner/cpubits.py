"""A host's logical processors as the bits of integers, so that sets of them are counted and cut at once.

Bits stand in the order of cores, by their lowest CPU, and in a core by number. So the processors of a core are
neighbours, and the first bits of a set are those to take first: they fill as few cores as possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol


class Processor(Protocol):
    """A logical processor, and what it is a part of."""

    @property
    def id(self) -> int: ...
    @property
    def core(self) -> str: ...
    @property
    def socket(self) -> int: ...
    @property
    def node(self) -> int: ...


class CpuBits:
    """Which bit stands for what. `all` is every processor, `first` the first one of each core."""

    def __init__(self, cpus: Sequence[Processor]) -> None:
        cpus = sorted(cpus, key=lambda cpu: cpu.id)
        cores = _grouped(cpus, lambda cpu: cpu.core)
        self.ids = tuple(cpu.id for core in cores for cpu in core)
        self.bit = {number: 1 << place for place, number in enumerate(self.ids)}
        self.all = (1 << len(self.ids)) - 1
        self.first = 0
        self.core: dict[int, int] = {}
        """All of its core, for each bit."""
        nodes: dict[int | None, int] = {None: self.all, **{cpu.node: 0 for cpu in cpus}}
        for group in cores:
            core = self.of(cpu.id for cpu in group)
            self.first |= core & -core
            self.core.update((self.bit[cpu.id], core) for cpu in group)
            nodes[group[0].node] |= core
        self.on = nodes
        """What is on a NUMA node: a core is where its first processor is. None stands for the whole host."""
        self.sockets = tuple(
            self.of(cpu.id for cpu in socket) for socket in _grouped(cpus, lambda cpu: str(cpu.socket))
        )

    def of(self, cpus: Iterable[int]) -> int:
        """The set of these; what the host does not have is passed over."""
        found = 0
        for number in cpus:
            found |= self.bit.get(number, 0)
        return found

    def number(self, bits: int) -> int:
        """The number of the first processor of a set."""
        return self.ids[(bits & -bits).bit_length() - 1]

    def cpus(self, bits: int) -> tuple[int, ...]:
        """The numbers of a set, ascending."""
        found = []
        while bits:
            bit = bits & -bits
            found.append(self.ids[bit.bit_length() - 1])
            bits ^= bit
        return tuple(sorted(found))

    def cores(self, bits: int) -> Iterator[int]:
        """The cores that have a processor in a set, whole, in order."""
        while bits:
            core = self.core[bits & -bits]
            yield core
            bits &= ~core


def bits_of(cpus: Sequence[Processor]) -> CpuBits:
    """The bits of a host's processors: the same for hosts that have the same, as many of a fleet have."""
    return _bits_of(tuple([(cpu.id, cpu.core, cpu.socket, cpu.node) for cpu in cpus]))


class _Processor(NamedTuple):
    id: int
    core: str
    socket: int
    node: int


@lru_cache(maxsize=2**8)
def _bits_of(cpus: tuple[tuple[int, str, int, int], ...]) -> CpuBits:
    return CpuBits([_Processor(*cpu) for cpu in cpus])


def lowest(bits: int, count: int) -> int:
    """The first `count` bits of a set, or all when it has fewer."""
    if bits.bit_count() <= count:
        return bits
    rest = bits
    while count:
        rest, count = rest & rest - 1, count - 1
    return bits ^ rest


def _grouped(cpus: Iterable[Processor], key: Callable[[Processor], str]) -> list[list[Processor]]:
    groups: dict[str, list[Processor]] = {}
    for cpu in cpus:
        groups.setdefault(key(cpu), []).append(cpu)
    return list(groups.values())
