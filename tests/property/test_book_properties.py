"""The book counts step by step what inventory/free.py counts at once, and what is taken back was never there."""

from __future__ import annotations

from dataclasses import replace

from devicevm.domain import CpuPlacement
from devicevm.inventory.free import Free, free
from devicevm.inventory.host import Host
from devicevm.manifest.topology import HostPolicy
from devicevm.planner.book import Book
from hypothesis import given, settings
from hypothesis import strategies as st
from world import GIB, MIB, host

CPUS = 8
PLACEMENTS = st.builds(
    lambda pins, dedicated, nodes, own: (
        CpuPlacement(pins, own, nodes, dedicated, emulator_on="own" if own else ""),
        max(len(pins), 1),
    ),
    st.lists(st.lists(st.integers(0, CPUS), min_size=1, max_size=3, unique=True).map(tuple), max_size=3).map(tuple),
    st.booleans(),
    st.sampled_from([(), (0,), (1,), (0, 1)]),
    st.sampled_from([(), (3,), (5,)]),
)
HOLDINGS = st.lists(st.tuples(PLACEMENTS, st.integers(0, 2 * GIB)), max_size=6)
POLICY = HostPolicy("h1", reserved_cpus=(0,), reserved_memory=100 * MIB, cpu_overcommit=3.0)
POLICIES = st.sampled_from([POLICY, replace(POLICY, shared_cpus=(1, 2, 5)), replace(POLICY, shared_cpus=(99,))])


def facts(book: Book) -> tuple[object, ...]:
    """All that the book says of what is left."""
    return (
        book.memory,
        book.vcpus,
        list(book.bits.cpus(book.vacant)),
        [cpu.id for cpu in book.cpus.values() if cpu.shareable],
        [(cpu.id, cpu.load, cpu.pinned_by, cpu.dedicated_to) for cpu in book.cpus.values()],
        [list(book.bits.cpus(core)) for core in book.bits.cores(book.whole)],
        [list(book.bits.cpus(socket)) for socket in book.bits.sockets if not socket & ~book.vacant],
        [book.memory_on(node) for node in (0, 1)],
        [book.huge_pages(MIB, node) for node in (None, 0, 1)],
        [one.domain for one in book.floating],
    )


def facts_at_once(one: Host, book: Book) -> tuple[object, ...]:
    view = free(replace(one, holdings=tuple(book.holdings)), book.policy)
    return (
        view.memory,
        view.vcpus,
        list(view.vacant_cpus()),
        list(view.shareable_cpus()),
        [(cpu.id, cpu.load, list(cpu.pinned_by), list(cpu.dedicated_to)) for cpu in view.cpus],
        [list(core) for core in view.vacant_cores()],
        [list(socket) for socket in view.vacant_sockets()],
        [view.memory_on((node,)) for node in (0, 1)],
        [_pages_left(view, one, node) for node in (None, 0, 1)],
        [holding.domain for holding in view.holdings if holding.floats],
    )


def _pages_left(view: Free, one: Host, node: int | None) -> int:
    """What is not bound to nodes may come from any of them."""
    there = sum(64 for number in one.nodes if node in (None, number.id))
    held = (holding for holding in view.holdings if holding.page_size)
    return there - sum(h.memory // MIB for h in held if node is None or not h.nodes or node in h.nodes)


@settings(max_examples=150, deadline=None)
@given(HOLDINGS, HOLDINGS, POLICIES)
def test_a_book_counts_what_the_inventory_counts_and_forgets_what_is_taken_back(
    kept: list[tuple[tuple[CpuPlacement, int], int]],
    tried: list[tuple[tuple[CpuPlacement, int], int]],
    policy: HostPolicy,
) -> None:
    one = host(cores=2, threads=2, sockets=2)
    one = replace(one, nodes=tuple(replace(node, huge_pages={str(MIB): 64}) for node in one.nodes))
    book = Book(one, policy)
    for number, ((placement, vcpus), memory) in enumerate(kept):
        book.book(f"k{number}", placement, vcpus, memory, MIB * (number % 2))
    before = facts(book)
    mark = book.mark()
    for number, ((placement, vcpus), memory) in enumerate(tried):
        book.book(f"t{number}", placement, vcpus, memory, MIB * (number % 2))
    assert facts(book) == facts_at_once(one, book)
    book.back_to(mark)
    assert facts(book) == before == facts_at_once(one, book)
