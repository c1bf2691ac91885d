"""When one by one in the order of names leaves something out: what the search makes of it, and what it leaves alone."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import replace

import pytest
from devicevm.inventory.host import Holding, Host
from devicevm.manifest.topology import Boot, Client, ClientVM, Device, HostPolicy, PlacementStrategy, ResourceRequest
from devicevm.planner import arrange
from devicevm.planner.book import Book
from devicevm.planner.component import Component
from devicevm.planner.layout import Load, Work
from devicevm.planner.plan import Plan
from devicevm.planner.planner import make_plan
from devicevm.planner.search import Arrangement, Item, Rooms, improve
from world import GIB, ME, MIB, ModelVmm, class_, client, core, disk, host, thread, topology

GUEST = Boot(guest_image="client")


def sized(name: str, memory: int, vcpus: int = 1) -> Client:
    return Client(name, ClientVM(vcpus, memory, GUEST))


def fleet(*memory: int, cores: int = 4) -> tuple[Host, ...]:
    return tuple(host(f"h{number}", cores=cores, threads=1, memory=size) for number, size in enumerate(memory, 1))


def where(plan: Plan) -> dict[str, str]:
    return {spec.name: spec.host for spec in plan.domains}


def test_a_large_one_finds_its_place_after_small_ones() -> None:
    """By name the small ones fill h1 first, and the large one fits nowhere then."""
    plan = ModelVmm(*fleet(3 * GIB, 2 * GIB)).plan(topology(sized("a", GIB), sized("b", GIB), sized("c", 3 * GIB)))
    assert where(plan) == {"a": "h2", "b": "h2", "c": "h1"}


def test_many_small_ones_rather_than_one_large_one() -> None:
    wanted = [sized("a", 3 * GIB), *(sized(name, GIB) for name in "bcd")]
    plan = ModelVmm(*fleet(3 * GIB)).plan(topology(*wanted))
    assert {item.client for item in plan.unplaced} == {"a"}
    assert plan.unplaced[0].reasons[0].startswith("h1: a: memory: 3GiB asked, none free of 3GiB: 1GiB held by b")


def test_what_runs_is_not_moved() -> None:
    vmm = ModelVmm(*fleet(3 * GIB, 2 * GIB))
    vmm.apply(topology(sized("a", GIB), sized("b", GIB)))
    before = dict(vmm.domains)
    plan = vmm.plan(topology(sized("a", GIB), sized("b", GIB), sized("c", 3 * GIB), sized("d", 2 * GIB)))
    assert where(plan) == {"d": "h2"}
    assert {item.client for item in plan.unplaced} == {"c"}
    assert vmm.domains == before


def test_a_host_that_is_told_is_kept_to() -> None:
    wanted = [replace(sized("a", GIB), host="h1"), sized("b", GIB), sized("c", 2 * GIB)]
    plan = ModelVmm(*fleet(2 * GIB, 2 * GIB)).plan(topology(*wanted))
    assert where(plan) == {"a": "h1", "b": "h1", "c": "h2"}
    apart = [*wanted[:2], replace(sized("c", 2 * GIB), host="h1")]
    plan = ModelVmm(*fleet(2 * GIB, 2 * GIB)).plan(topology(*apart))
    assert [item.client for item in plan.unplaced] == ["c"]


@pytest.mark.parametrize("strategy", PlacementStrategy)
def test_the_strategy_decides_as_long_as_all_fit(strategy: PlacementStrategy) -> None:
    """With one that no host can take there is nothing to search for, and the others are where they were."""
    small = [sized(f"c{number}", 512 * MIB) for number in range(4)]
    hosts = fleet(4 * GIB, 4 * GIB)
    alone = ModelVmm(*hosts).plan(topology(*small, placement=strategy))
    beside = ModelVmm(*hosts).plan(topology(*small, sized("x", 9 * GIB), placement=strategy))
    assert where(beside) == where(alone)
    shares = sorted(Counter(where(alone).values()).values())
    assert shares == ([4] if strategy is PlacementStrategy.PACK else [2, 2])


def device(name: str) -> Device:
    return replace(disk("d"), class_=name)


def test_an_alternative_is_given_up_for_others_and_it_says_so() -> None:
    """`a` would have the only core; with a thread for it, both are placed."""
    either = class_("either", resources=(core(), thread()))
    whole = class_("whole", resources=(core(),))
    plan = ModelVmm(host(cores=2, threads=1)).plan(
        topology(client("a", device("either")), client("b", device("whole")), classes=(either, whole))
    )
    assert {one.device_vm: one.unit for one in plan.allocations} == {"a-dvm": "thread", "b-dvm": "core"}
    assert plan.allocations[0].reasons[0] == "1 core: it fits, but then others would find no place"


def test_what_is_less_particular_waits_for_the_rest() -> None:
    """`a` on a core must not break the processor that `b` needs: the other one is broken already."""
    picky = class_("picky", resources=(core(), core(9)))
    whole = class_("whole", resources=((replace(core()[0], kind="processor"),),))
    shared = class_("shared", resources=(thread(),))
    clients = [client("a", device("picky")), client("b", device("whole")), client("c", device("shared"))]
    plan = ModelVmm(host(cores=2, threads=1, sockets=2)).plan(topology(*clients, classes=(picky, whole, shared)))
    assert not plan.unplaced


def test_room_is_made_where_those_are_whom_one_wants_near() -> None:
    """By name `a` comes to where the data base is, and `web`, which must be there too, finds no room."""
    db = replace(sized("db", GIB), labels={"app": "db"})
    web = replace(sized("web", GIB), affinity={"app": "db"})
    hosts = fleet(2 * GIB, GIB)
    plan = ModelVmm(*hosts).plan(topology(sized("a", GIB), db, web))
    assert where(plan) == {"a": "h2", "db": "h1", "web": "h1"}
    alone = ModelVmm(*hosts).plan(topology(sized("a", GIB), db, replace(web, affinity={"app": "none"})))
    assert where(alone) == {"a": "h1", "db": "h1"}, "what can be nowhere is not searched for"


def test_those_who_keep_away_from_each_other_are_arranged() -> None:
    """`a` leaves the one large host, and `b`, which may not be where `a` is, comes there."""
    one, other = ({"labels": {"app": "x"}, "anti_affinity": {"app": "x"}} for number in range(2))
    wanted = [replace(sized("a", GIB), **one), replace(sized("b", 2 * GIB), **other)]
    assert where(ModelVmm(*fleet(2 * GIB, GIB)).plan(topology(*wanted))) == {"a": "h2", "b": "h1"}


def test_the_first_of_a_kind_is_where_the_next_one_finds_room() -> None:
    """Each of a kind that stays together can be the first; alone each would be on the small host."""
    kind = {"labels": {"app": "x"}, "affinity": {"app": "x"}}
    wanted = [replace(sized(name, GIB), **kind) for name in "bc"]
    plan = ModelVmm(*fleet(2 * GIB, GIB)).plan(topology(sized("a", GIB), *wanted))
    assert where(plan) == {"a": "h2", "b": "h1", "c": "h1"}


def test_a_shared_thread_waits_for_siblings_that_could_be_a_processor() -> None:
    """Found by a random search: what shares was laid before what would be alone on its second alternative."""
    shared = class_("shared", resources=(thread(2),))
    siblings = (ResourceRequest("thread", 2, True, {"smt": "require"}),)
    either = class_("either", resources=(siblings, (ResourceRequest("processor", 1, True),)))
    hosts = host("h0", cores=2), host("h1", cores=2, holdings=(Holding("o", "u", True, 1, 0, (0,), False, True),))
    policies = HostPolicy("h0", cpu_overcommit=1.5), HostPolicy("h1", cpu_overcommit=1.0)
    b = client("b", device("shared"), replace(device("either"), name="e"))
    plan = ModelVmm(*hosts).plan(topology(client("a"), b, classes=(shared, either), hosts=policies))
    assert where(plan) == {"a": "h1", "b": "h0", "b-dvm": "h0", "b-dvm-2": "h0"}


def items_of(*components: Component) -> list[Item]:
    kinds: dict[object, int] = {}
    return [
        Item(number, Load(one), kinds.setdefault(one.signature, len(kinds)), len(one.clients))
        for number, one in enumerate(components)
    ]


def test_work_is_bounded_and_counted() -> None:
    """What is over-full costs no more than it may, and a search that may do nothing changes nothing."""
    books = {name: Book(one, HostPolicy(name)) for name, one in ((one.name, one) for one in fleet(*[8 * GIB] * 5))}
    items = items_of(*(Component([sized(f"c{n:02}", GIB + n * 64 * MIB)]) for n in range(60)))
    first = Arrangement({name: [] for name in books}, [item.number for item in items])
    work = Work(5000)
    found = improve(Rooms(books, items, lambda item, name: True, work), first)
    assert len(found.out) < 40
    # The last thing that was begun is finished.
    assert -200 < work.left <= 0
    assert improve(Rooms(books, items, lambda item, name: True, Work(0)), first) is first
    assert all(book.mark() == 0 for book in books.values())


def test_the_draft_without_what_is_left_out_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []

    def counted(rooms: Rooms, first: Arrangement) -> Arrangement:
        searches.append(rooms)
        return improve(rooms, first)

    monkeypatch.setattr(arrange, "improve", counted)
    wanted = [sized("a", 3 * GIB), *(sized(name, GIB) for name in "bcd")]
    assert len(where(ModelVmm(*fleet(3 * GIB)).plan(topology(*wanted)))) == 3
    assert len(searches) == 1
    del searches[:]
    assert len(where(ModelVmm(*fleet(9 * GIB)).plan(topology(*wanted)))) == 4
    assert searches == []


@pytest.mark.parametrize("runs", [True, False])
def test_the_collector_is_left_as_it_was(runs: bool) -> None:
    ran = gc.isenabled()
    try:
        (gc.enable if runs else gc.disable)()
        ModelVmm().plan(topology(sized("a", GIB)))
        assert gc.isenabled() is runs and gc.get_freeze_count() == 0
        with pytest.raises(AttributeError):
            make_plan(None, (), (), ME)  # type: ignore[arg-type]
        assert gc.isenabled() is runs
    finally:
        (gc.enable if ran else gc.disable)()


def test_a_plan_leaves_nothing_for_the_collector() -> None:
    """It rests while a plan is made, and afterwards takes what is left for old: nobody would ever look at it again."""
    vmm = ModelVmm(*fleet(3 * GIB, 2 * GIB))
    vmm.apply(topology(sized("a", GIB, 2), client("b", disk())))
    wanted = topology(sized("a", GIB), client("b", disk()), sized("c", 3 * GIB), sized("d", GIB), sized("e", 9 * GIB))
    for intent in (ME, replace(ME, rebalance=True)):
        vmm.plan(wanted, intent)  # what is made once and kept
        gc.collect()
        vmm.plan(wanted, intent)
        assert gc.collect() == 0


def test_whole_processors_come_before_cores_that_could_be_elsewhere() -> None:
    """`a` alone on a core takes the first one, of a processor that is whole; the other processor is begun already."""
    isolated = class_("isolated", resources=((ResourceRequest("thread", 1, True, {"smt": "isolate"}),),))
    whole = class_("whole", resources=((ResourceRequest("processor", 1, True),),))
    held = Holding("other", "u", True, 1, MIB, (2,), False, True)
    plan = ModelVmm(host(cores=2, threads=2, sockets=2, holdings=(held,))).plan(
        topology(client("a", replace(disk("x"), class_="isolated"), device("whole")), classes=(isolated, whole))
    )
    assert {one.device_vm: one.cpus for one in plan.allocations} == {"a-dvm": (0, 1, 4, 5), "a-dvm-2": (3,)}
