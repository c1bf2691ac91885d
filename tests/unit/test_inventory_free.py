"""What is free: nothing reserved or dedicated is ever handed out, the sums are right, the words too."""

from __future__ import annotations

from dataclasses import replace

from devicevm.inventory.free import describe_memory, describe_taken, free
from devicevm.inventory.host import Cpu, Holding, Host, Node, Vmm
from devicevm.manifest.topology import HostPolicy
from hypothesis import given
from hypothesis import strategies as st

GIB = 2**30


def host(*holdings: Holding, cores: int = 4, threads: int = 2) -> Host:
    """Two nodes, a socket in each, 8 GiB each; the second threads come after the first, as on most machines."""
    half = cores // 2
    cpus = tuple(
        Cpu(
            id=cpu,
            core=f"{cpu % cores // half}.0.{cpu % cores % half}",
            socket=cpu % cores // half,
            node=cpu % cores // half,
            siblings=tuple(cpu % cores + cores * thread for thread in range(threads)),
        )
        for cpu in range(cores * threads)
    )
    nodes = tuple(Node(node, 8 * GIB, tuple(cpu.id for cpu in cpus if cpu.node == node)) for node in range(2))
    return Host("a", "x86_64", 16 * GIB, Vmm("", "QEMU"), cpus=cpus, nodes=nodes, holdings=holdings)


def held(name: str, cpus: tuple[int, ...] = (), **more: object) -> Holding:
    base = Holding(name, name, True, vcpus=1, memory=GIB, cpus=cpus, floats=not cpus)
    return replace(base, **more)  # type: ignore[arg-type]


HOLDINGS = st.lists(
    st.builds(
        Holding,
        domain=st.sampled_from(["a", "b", "c", "d"]),
        uuid=st.just("u"),
        active=st.booleans(),
        vcpus=st.integers(1, 8),
        memory=st.integers(0, 8 * GIB),
        cpus=st.sets(st.integers(0, 9)).map(lambda cpus: tuple(sorted(cpus))),
        floats=st.booleans(),
        dedicated=st.booleans(),
        nodes=st.sets(st.integers(0, 2)).map(lambda nodes: tuple(sorted(nodes))),
    ),
    max_size=6,
)


@given(HOLDINGS, st.sets(st.integers(0, 9)), st.integers(0, 4 * GIB))
def test_nothing_taken_is_handed_out(holdings: list[Holding], reserved: set[int], kept: int) -> None:
    view = free(host(*holdings), HostPolicy("a", tuple(sorted(reserved)), kept))
    dedicated = {cpu for one in holdings if one.dedicated for cpu in one.cpus}
    pinned = {cpu for one in holdings for cpu in one.cpus}
    assert set(view.shareable_cpus()) == set(range(8)) - reserved - dedicated
    assert set(view.vacant_cpus()) == set(range(8)) - reserved - pinned
    for group in (*view.vacant_cores(), *view.vacant_sockets()):
        assert set(group) <= set(view.vacant_cpus())
    assert all(len(core) == 2 for core in view.vacant_cores())
    assert all(len(socket) == 4 for socket in view.vacant_sockets())


@given(HOLDINGS, st.integers(0, 4 * GIB))
def test_sums(holdings: list[Holding], kept: int) -> None:
    view = free(host(*holdings), HostPolicy("a", (), kept))
    assert view.memory + kept + sum(one.memory for one in holdings) == 16 * GIB
    assert view.floating == sum(one.vcpus for one in holdings if one.floats)
    pinned = sum(one.vcpus for one in holdings if not one.floats and set(one.cpus) & set(range(8)))
    assert abs(sum(cpu.load for cpu in view.cpus) - pinned) < 1e-6
    assert view.memory_on(()) == view.memory
    for nodes in ((0,), (1,), (0, 1)):
        bound = sum(one.memory for one in holdings if one.nodes and set(one.nodes) <= set(nodes))
        assert view.memory_on(nodes) == min(view.memory, 8 * GIB * len(nodes) - bound)


@given(HOLDINGS)
def test_domains_to_replan_are_not_counted(holdings: list[Holding]) -> None:
    without = free(host(*holdings), without=frozenset({"a"}))
    assert without == free(host(*(one for one in holdings if one.domain != "a")))


def test_overcommit() -> None:
    policy = HostPolicy("a", (0, 4), cpu_overcommit=2.0)
    assert free(host(), policy).vcpus == 12
    assert free(host(held("d", (1, 5), dedicated=True)), policy).vcpus == 8
    assert free(host(held("p", (1, 5), vcpus=2)), policy).vcpus == 10
    assert free(host(held("f", vcpus=5)), policy).vcpus == 7
    assert free(host(held("f", vcpus=500)), policy).vcpus == 0


def test_held_devices() -> None:
    view = free(host(held("a", node_devices=("0000:02:10.7",)), held("b", node_devices=("0000:02:10.7", "usb:1:2"))))
    assert view.node_devices == {"0000:02:10.7": "a", "usb:1:2": "b"}


def test_words() -> None:
    taken = host(held("web-dvm", (2, 6), dedicated=True), held("db", (3,)))
    view = free(taken, HostPolicy("a", (0, 1)))
    assert describe_taken(view, 4) == "4 cores asked, 0 free: 0-1 reserved, 2,6 held by web-dvm, 3 shared by db"
    assert describe_taken(view, 1, "thread").startswith("1 thread asked, 3 free: ")
    assert describe_taken(free(host()), 1, "processor") == "1 processor asked, 2 free of CPUs 0-7"
    crowd = free(host(*(held(f"vm{n}", (7,)) for n in range(9))))
    assert describe_taken(crowd, 4).endswith("7 shared by vm0, vm1, vm2, vm3, vm4 and 4 others")


def test_words_of_memory() -> None:
    assert describe_memory(free(host()), 20 * GIB) == "20GiB asked, 16GiB free of 16GiB"
    view = free(host(held("db", memory=12 * GIB)), HostPolicy("a", reserved_memory=GIB))
    assert describe_memory(view, 8 * GIB) == "8GiB asked, 3GiB free of 16GiB: 1GiB reserved, 12GiB held by db"
    odd = free(replace(host(), memory=6252760 * 1024))
    assert describe_memory(odd, 8 * GIB) == "8GiB asked, 6106MiB free of 6106MiB"
    many = free(host(*(held(f"vm{n}", memory=4 * GIB) for n in range(7))))
    assert describe_memory(many, GIB).startswith("1GiB asked, none free of 16GiB: 4GiB held by vm0, ")
    assert describe_memory(many, GIB).endswith(", 8GiB by 2 others")
