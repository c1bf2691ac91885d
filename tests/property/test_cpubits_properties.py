"""Sets of processors as bits are what they are as sets of numbers."""

from __future__ import annotations

from collections.abc import Iterable

from devicevm.inventory.host import Cpu
from devicevm.planner.cpubits import CpuBits, lowest
from hypothesis import given, settings
from hypothesis import strategies as st

CORES = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3)), min_size=1, max_size=6)
NUMBERS = st.sets(st.integers(0, 20))


def machine(cores: list[tuple[int, int]], numbers: Iterable[int]) -> list[Cpu]:
    """CPUs for cores of so many threads on these nodes; the numbers go round among the cores that still want one."""
    left, found = [threads for node, threads in cores], []
    free = iter(numbers)
    while any(left):
        for index, (node, _threads) in enumerate(cores):
            if left[index]:
                left[index] -= 1
                found.append(Cpu(next(free), f"core{index}", node, node, ()))
    return found


@settings(max_examples=150, deadline=None)
@given(CORES, st.permutations(range(18)), NUMBERS, st.integers(0, 20))
def test_bits_are_sets(cores: list[tuple[int, int]], order: list[int], some: set[int], count: int) -> None:
    cpus = machine(cores, order)
    bits = CpuBits(cpus)
    there = sorted(some & {cpu.id for cpu in cpus})
    assert list(bits.cpus(bits.of(some))) == there
    assert sorted(bits.ids) == sorted(cpu.id for cpu in cpus) == list(bits.cpus(bits.all))

    # The first are those of the first cores: by the least number of a core, and in it by number.
    first_of = {cpu.core: min(other.id for other in cpus if other.core == cpu.core) for cpu in cpus}
    ranked = sorted((cpu for cpu in cpus if cpu.id in some), key=lambda cpu: (first_of[cpu.core], cpu.id))
    assert set(bits.cpus(lowest(bits.of(some), count))) == {cpu.id for cpu in ranked[:count]}

    whole = [sorted(cpu.id for cpu in cpus if cpu.core == core) for core in sorted(first_of, key=lambda c: first_of[c])]
    assert [list(bits.cpus(core)) for core in bits.cores(bits.all)] == whole
    assert [list(bits.cpus(core)) for core in bits.cores(bits.of(some))] == [one for one in whole if some & set(one)]
    assert list(bits.cpus(bits.first)) == sorted(first_of.values())
    for node in {cpu.node for cpu in cpus}:
        assert list(bits.cpus(bits.on[node])) == sorted(cpu.id for cpu in cpus if cpu.node == node)
    assert bits.on[None] == bits.all == sum(bits.sockets)
    assert all(len({cpu.socket for cpu in cpus if cpu.id in bits.cpus(socket)}) == 1 for socket in bits.sockets)
