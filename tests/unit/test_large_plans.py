"""Fleets that are large or over-full: what they cost is counted, and no chain is too long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from devicevm.domain import ObservedDomain
from devicevm.inventory.host import Host
from devicevm.manifest.topology import (
    Boot,
    Client,
    ClientVM,
    Device,
    HostPolicy,
    ResourceRequest,
    Store,
    Topology,
)
from devicevm.planner import layout, trial
from devicevm.planner.book import Book
from devicevm.planner.component import Component
from devicevm.planner.layout import Load, Work
from devicevm.planner.plan import Plan
from devicevm.planner.search import Arrangement, Item, Rooms, improve
from devicevm.planner.sequence import each_after
from world import GIB, MIB, ModelVmm, class_, client, disk, host, thread, topology

GUEST = Boot(guest_image="client")
SLOT = 128 * MIB


def alike(number: int) -> Client:
    return Client(f"c{number:04}", ClientVM(1, SLOT, GUEST))


def one_by_one(books: dict[str, Book], items: Iterable[Item], room: int) -> Arrangement:
    """Each on the first host that has a slot left, as the planner has it before it searches."""
    first = Arrangement({name: [] for name in books})
    names = [name for name in books for slot in range(room)]
    for item, name in zip(items, names, strict=False):
        first.batches[name].append((item.number,))
    first.out = [item.number for item in items][len(names) :]
    return first


def searched(hosts: list[Host], clients: list[Client], room: int) -> tuple[Arrangement, Arrangement, int]:
    """What one by one comes to, what the search makes of it, and what work that takes."""
    books = {one.name: Book(one, HostPolicy(one.name)) for one in hosts}
    kinds: dict[object, int] = {}
    components = [Component([one]) for one in clients]
    items = [
        Item(number, Load(one), kinds.setdefault(one.signature, len(kinds)), 1) for number, one in enumerate(components)
    ]
    first, work = one_by_one(books, items, room), Work(1_000_000)
    found = improve(Rooms(books, items, lambda item, name: True, work), first)
    return first, found, 1_000_000 - work.left


def test_more_than_all_hosts_have_is_not_searched_for() -> None:
    """Whoever is left out, ten slots are too few."""
    hosts = [host(f"h{number}", cores=64, memory=30 * SLOT) for number in range(4)]
    first, found, work = searched(hosts, [alike(number) for number in range(130)], 30)
    assert found is first and work < 100


def test_those_of_a_kind_are_looked_through_once() -> None:
    """Each host has half a slot to spare: that nothing better is there is only known when all ways are looked at. There
    are as many as numbers of clients on the first host; in every order they would be beyond counting."""
    hosts = [host(f"h{number}", cores=64, memory=30 * SLOT + SLOT // 2) for number in range(2)]
    first, found, work = searched(hosts, [alike(number) for number in range(61)], 30)
    assert found is first and work < 20_000


def test_a_look_at_a_crowd_costs_more_than_a_look_at_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is counted by what is gone through: so many clients laid, or numbers looked at, are so much work."""
    done = []
    laid = layout.fit_client

    def counted(one: Client, book: Book) -> object:
        done.append(one)
        return laid(one, book)

    monkeypatch.setattr(layout, "fit_client", counted)
    clients = [Client(f"c{n:03}", ClientVM(1, SLOT + n % 7 * 32 * MIB, GUEST)) for n in range(200)]
    hosts = [host(f"h{number}", cores=64, memory=30 * SLOT + 16 * MIB) for number in range(5)]
    work = searched(hosts, clients, 10)[2]
    assert len(done) > 500
    assert len(done) * layout.SEAT <= work


def test_a_group_that_is_larger_than_the_stack_is_placed() -> None:
    wanted = [
        client(f"c{number:03}", Device("entropy", "rng"), labels={"app": "web"}, affinity={"app": "web"})
        for number in range(400)
    ]
    plan = ModelVmm(host(cores=100, memory=1000 * GIB)).plan(topology(*wanted))
    assert not plan.unplaced and len(plan.domains) == 800


def test_an_over_full_fleet_that_is_larger_than_the_stack_is_left_out() -> None:
    """With half a slot to spare: nothing but a look at all ways could tell that it is of no use."""
    vmm = ModelVmm(host(cores=64, memory=1090 * SLOT + SLOT // 2))
    plan = vmm.plan(topology(*(alike(number) for number in range(1095))))
    assert len({item.client for item in plan.unplaced}) == 5


def test_storage_that_goes_along_a_long_chain_is_let_go_of_in_order() -> None:
    def stored(number: int, path: int) -> Client:
        store = Store("file", MIB, f"/srv/{path}.img")
        return client(f"c{number:04}", replace(disk("d"), memory=0, store=store))

    def moved_on(by: int) -> Plan:
        return vmm.plan(topology(*(stored(number, number + by) for number in range(1100))))

    vmm = ModelVmm(host(cores=200, memory=4000 * GIB))
    vmm.domains = {
        one.name: ObservedDomain(one.name, one.uuid, one.owner, one.role, True, one, one) for one in moved_on(0).domains
    }
    place = {step.id: number for number, step in enumerate(moved_on(1).steps)}
    # The last one's new store is nobody's yet.
    updates = [place[f"update/device-vm/c{number:04}-dvm"] for number in range(1100)]
    assert updates == sorted(updates, reverse=True)


def test_each_comes_after_those_that_it_waits_for() -> None:
    before = {"a": ["c", "b"], "b": ["d"], "c": [], "d": ["a"]}
    assert each_after("abcd", before.__getitem__) == ["c", "d", "b", "a"]
    chain = [str(number) for number in range(5000)]
    following = dict(zip(chain, [*([one] for one in chain[1:]), []], strict=True))
    assert each_after(chain, following.__getitem__) == chain[::-1]


def test_the_nearest_fit_of_those_alike_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    made = trial.Trial.place

    def counted(self: trial.Trial, *asked: object) -> list[str]:
        if self.instead:
            tried.append(self)
        return made(self, *asked)  # type: ignore[arg-type]

    monkeypatch.setattr(trial.Trial, "place", counted)
    wide = class_("wide", resources=((ResourceRequest("thread", 9, True),),))
    plans, tries = [], []
    for count in (1, 30):
        del tried[:]
        clients = [client(f"c{number:02}", replace(disk(), class_="wide")) for number in range(count)]
        plans.append(ModelVmm(host(cores=4)).plan(topology(*clients, classes=(wide,))))
        tries.append(len(tried))
    assert tries[0] == tries[1] > 0
    hints = {reason.split(": ", 1)[1] for item in plans[1].unplaced for reason in item.reasons if "nearest" in reason}
    assert hints == {"7 instead of 9 of thread would fit on h1"}


def test_the_reasons_are_those_of_the_plan() -> None:
    """`a` cannot have more, and keeps the thread that it has: two are left, not the three of the draft that was to
    change it."""
    sizes = {"one": 1, "nine": 9, "four": 4, "two": 2}
    classes = tuple(class_(name, resources=(thread(count, dedicated=True),)) for name, count in sizes.items())

    def asking(name: str, kind: str) -> Client:
        return client(name, replace(disk(), class_=kind))

    vmm = ModelVmm(host(cores=4, threads=1))
    vmm.apply(topology(asking("a", "one"), classes=classes))
    plan = vmm.plan(topology(asking("a", "nine"), asking("x", "one"), asking("y", "four"), classes=classes))
    reasons = {item.client: item.reasons for item in plan.unplaced}
    assert reasons["y"] == (
        "h1: y-dvm: 4 dedicated threads: 4 threads asked, 2 free: 0 held by a-dvm, 1 held by x-dvm",
        "nearest for y-dvm: 1 instead of 4 of thread would fit on h1",
    )
    again = vmm.plan(topology(asking("a", "nine"), asking("x", "one"), asking("y", "one"), classes=classes))
    assert {item.client for item in again.unplaced} == {"a"}


def test_who_has_a_place_once_others_are_left_out_gets_it() -> None:
    """`c` asks for more than there is and keeps what it has; so `a` cannot have seven, which were in the way of `b`."""
    sizes = {"one": 1, "two": 2, "seven": 7, "nine": 9}
    classes = tuple(class_(name, resources=(thread(count, dedicated=True),)) for name, count in sizes.items())

    def asking(**kinds: str) -> Topology:
        clients = [client(name, replace(disk(), class_=kind)) for name, kind in kinds.items()]
        return topology(*clients, classes=classes)

    vmm = ModelVmm(host(cores=8, threads=1))
    vmm.apply(asking(a="one", c="two"))
    wanted = asking(a="seven", b="two", c="nine")
    plan = vmm.apply(wanted)
    assert {item.client for item in plan.unplaced} == {"a", "c"}
    assert vmm.plan(wanted).steps == ()
