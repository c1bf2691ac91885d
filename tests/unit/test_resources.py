"""Each kind of resource: what it gives, what it refuses with which numbers, and that it knows its own again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from devicevm.domain import CpuPlacement, DomainSpec, HostDevice, Role
from devicevm.inventory.host import DomainSupport, GuestKind, Holding, Host, NodeDevice
from devicevm.manifest.topology import Boot, HostPolicy, ResourceRequest
from devicevm.planner.book import Book, cpus_of, held_by
from devicevm.planner.resources import KINDS, Footing, Misfit, describe, fit_one, fits, fulfilled
from world import GIB, MIB, host

Alternative = tuple[ResourceRequest, ...]


def ask(kind: str, count: int = 1, *, dedicated: bool = False, **options: Any) -> ResourceRequest:
    return ResourceRequest(kind, count, dedicated, options)


def book(one: Host | None = None, **policy: Any) -> Book:
    one = one or host(cores=2, threads=2, sockets=2)
    return Book(one, replace(HostPolicy(one.name), **policy))


def given(alternative: Alternative, there: Book, memory: int = 128 * MIB) -> Footing:
    answer = fit_one(alternative, there, memory)
    assert isinstance(answer, Footing), answer
    return answer


def refused(alternative: Alternative, there: Book, memory: int = 128 * MIB) -> str:
    answer = fit_one(alternative, there, memory)
    assert isinstance(answer, Misfit), answer
    return answer.reason


def holder(*cpus: int, memory: int = MIB, **changes: Any) -> Holding:
    return replace(Holding("db", "u", True, len(cpus) or 1, memory, cpus, not cpus), **changes)


def device_vm(footing: Footing) -> DomainSpec:
    return DomainSpec(
        "d",
        "u",
        Role.DEVICE_VM,
        "o",
        "h1",
        footing.vcpus,
        footing.memory,
        "tcg",
        "x86_64",
        "pc",
        Boot(),
        placement=footing.placement,
        cpu_features=footing.features,
        page_size=footing.page_size,
        host_devices=footing.host_devices,
        firmware=footing.code.firmware,
    )


def firmware(**changes: Any) -> ResourceRequest:
    """A request as the manifest reader makes it."""
    usual = {"kind": "elf", "file": "/opt/meter.elf", "arch": "armv7l", "machine": "lm3s6965evb", "memory": 0}
    return ResourceRequest("firmware", options=usual | changes)


CARD = ResourceRequest("block", options={"provider": "host", "kind": "pci", "vendor": "0x1172"})


# Host: CPU n of 8 is thread n // 4 of core n % 4; cores 0-1 are on socket and node 0, cores 2-3 on 1.
ALTERNATIVES: list[tuple[Alternative, tuple[int, ...], tuple[int, ...]]] = [
    ((ask("thread"),), (0,), ()),
    ((ask("thread", 3),), (0, 1, 2), ()),
    ((ask("thread", dedicated=True),), (0,), ()),
    ((ask("thread", 3, dedicated=True),), (0, 1, 4), ()),
    ((ask("thread", 2, dedicated=True, smt="isolate"),), (0, 1), (4, 5)),
    ((ask("thread", 2, dedicated=True, smt="require"),), (0, 4), ()),
    ((ask("thread", 2, dedicated=True, numaNode=1),), (2, 6), ()),
    ((ask("thread", 4, dedicated=True, numaNode="one"),), (0, 1, 4, 5), ()),
    ((ask("core"),), (0, 4), ()),
    ((ask("core", 2, dedicated=True, numaNode="one"),), (0, 1, 4, 5), ()),
    ((ask("core", numaNode=1),), (2, 6), ()),
    ((ask("processor"),), (0, 1, 4, 5), ()),
    ((ask("processor", numaNode=1),), (2, 3, 6, 7), ()),
    ((ask("processor", 2),), tuple(range(8)), ()),
]


@pytest.mark.parametrize(("alternative", "cpus", "idle"), ALTERNATIVES)
def test_processors_are_chosen_booked_and_known_again(
    alternative: Alternative, cpus: tuple[int, ...], idle: tuple[int, ...]
) -> None:
    there = book()
    footing = given(alternative, there)
    assert (cpus_of(footing.placement), footing.placement.idle, footing.vcpus) == (cpus, idle, len(cpus))
    alone = alternative[0].dedicated or alternative[0].kind != "thread"
    assert footing.placement.dedicated is alone
    assert fulfilled((alternative,), device_vm(footing), there)
    reasons = footing.reasons
    there.book("d", footing.placement, footing.vcpus, footing.memory)
    assert footing.reasons == reasons, "reasons are those of when it was found, whenever they are worded"
    again = fit_one(alternative, there, MIB)
    if alone and isinstance(again, Footing):
        assert not set(held_by(again.placement)) & {*cpus, *idle}


@pytest.mark.parametrize("index", range(len(ALTERNATIVES)))
def test_one_request_is_not_taken_for_another(index: int) -> None:
    there = book()
    mine = ALTERNATIVES[index][0]
    spec = device_vm(given(mine, there))
    others = [other for other, _, _ in ALTERNATIVES if other != mine and fulfilled((other,), spec, there)]
    # What asks for less in its words may be fulfilled by what happens to be so.
    for other in others:
        assert (other[0].kind, other[0].count, other[0].dedicated) == (mine[0].kind, mine[0].count, mine[0].dedicated)


def test_dedicated_threads_spare_whole_cores() -> None:
    there = book(host(cores=4, threads=2, holdings=(holder(2),)))
    assert cpus_of(given((ask("thread", dedicated=True),), there).placement) == (6,)


def test_isolated_threads_keep_others_off_the_siblings() -> None:
    there = book(host(cores=2, threads=2))
    footing = given((ask("thread", dedicated=True, smt="isolate"),), there)
    there.book("d", footing.placement, footing.vcpus, footing.memory)
    assert refused((ask("thread", 3, dedicated=True),), there) == "3 threads asked, 2 free: 0,2 held by d"
    assert there.may_stay(CpuPlacement(vcpus=((2,),))) == "CPU 2 is now dedicated to d"


@pytest.mark.parametrize(
    ("alternative", "says"),
    [
        ((ask("thread", 9, dedicated=True),), "9 threads asked, 8 free"),
        ((ask("thread", 3, dedicated=True, smt="require"),), "3 threads on whole cores asked, 2 free"),
        ((ask("thread", 5, dedicated=True, smt="isolate"),), "5 cores asked, 4 free"),
        ((ask("core", 3, numaNode="one"),), "NUMA node 0: 3 cores asked, 2 free; NUMA node 1: 3 cores asked, 2 free"),
        ((ask("core", numaNode=7),), "there is no NUMA node 7"),
        ((ask("processor", 3),), "3 processors asked, 2 free"),
        ((ask("microcode", revision=0x20),), "revision 0x20 or later asked, the host does not tell its own"),
        ((ask("isa", features=["avx2"]),), "avx2 cannot be had with tcg: no guest's extensions are known of this host"),
        ((ask("memory", pageSize=2 * MIB),), "pages of 2MiB asked, the host has none"),
        ((firmware(),), "the VMM has no translator for armv7l"),
        ((CARD,), "no PCI function of vendor 0x1172 is there: the host has 0 PCI functions"),
    ],
)
def test_refusals_have_the_numbers(alternative: Alternative, says: str) -> None:
    assert says in refused(alternative, book())


@pytest.mark.parametrize("count", [1, 2])
def test_where_no_core_has_siblings_nobody_gets_any_and_that_is_why(count: int) -> None:
    without = host(cores=4, threads=1, sockets=2)
    whole = ask("thread", count, dedicated=True, smt="require")
    assert refused((whole,), book(without)) == f"{count} thread{'s' * (count > 1)} with all siblings asked, " + (
        "no core there has siblings"
    )
    on_one = replace(whole, options={**whole.options, "numaNode": 1})
    assert refused((on_one,), book(without)).startswith("NUMA node 1: ")
    assert "no core there has siblings" not in refused((replace(whole, count=9),), book())


def test_memory_of_the_node_counts() -> None:
    one = host(cores=2, sockets=2, memory=4 * GIB, holdings=(holder(memory=GIB, nodes=(0,)),))
    assert given((ask("core", numaNode="one"),), book(one), 2 * GIB).placement.nodes == (1,)
    assert "NUMA node 0: 2GiB of memory asked, 1GiB left" in refused((ask("core", numaNode=0),), book(one), 2 * GIB)


def test_extensions_are_those_that_guests_can_have() -> None:
    """Not those of the host's processor: TCG lacks some of them and has some that it lacks."""
    support = DomainSupport(accelerator="tcg", arch="x86_64", host_features=("avx2", "aes"))
    one = replace(host(), support=(support,), cpu_features=("avx512f",))
    footing = given((ask("isa", features=["avx2", "aes"]), ask("core")), book(one))
    assert (footing.features, cpus_of(footing.placement)) == (("aes", "avx2"), (0, 4))
    assert "avx512f cannot be had with tcg: guests have 2 others" in refused(
        (ask("isa", features=["avx512f"]),), book(one)
    )
    spec = device_vm(footing)
    assert fulfilled(((ask("isa", features=["aes", "avx2"]), ask("core")),), spec, book(one))
    assert not fulfilled(((ask("core"),),), spec, book(one))
    kvm = replace(one, accelerator="kvm", support=())
    assert given((ask("isa", features=["avx512f"]),), book(kvm)).features == ("avx512f",)


def test_microcode_is_a_lowest_revision() -> None:
    there = book(replace(host(), microcode=0x2B))
    assert given((ask("microcode", revision=0x2B), ask("thread")), there).reasons[0] == "the host's microcode is 0x2b"
    assert refused((ask("microcode", revision=0x2C),), there) == "revision 0x2c or later asked, the host has 0x2b"


def test_code_of_another_architecture_is_translated_where_the_vmm_can() -> None:
    arm = (ask("microcode", arch="aarch64"), ask("core"))
    assert refused(arm, book()) == "the VMM has no translator for aarch64"
    there = book(replace(host(), guests=(GuestKind("aarch64", "hvm", ("tcg",)),)))
    footing = given(arm, there)
    assert (footing.arch, footing.reasons[0]) == ("aarch64", "the VMM translates aarch64 into x86_64")
    spec = replace(device_vm(footing), arch="aarch64")
    assert fulfilled((arm,), spec, there)
    assert not fulfilled(((ask("core"),),), spec, there)
    assert not fulfilled((arm,), replace(spec, arch="x86_64"), there)
    assert given((ask("microcode", arch="x86_64"),), there).arch == ""
    assert "there are no device VM images for s390x" in refused((ask("microcode", arch="s390x"),), there)


def test_huge_pages_are_counted_by_node_and_rounded_up() -> None:
    one = host(cores=2, sockets=2)
    nodes = tuple(replace(node, huge_pages={str(2 * MIB): 80}) for node in one.nodes)
    taken = holder(0, memory=100 * MIB, nodes=(0,), page_size=2 * MIB)
    there = book(replace(one, nodes=nodes, holdings=(taken,)))
    pages = ask("memory", pageSize=2 * MIB)
    footing = given((ask("core", numaNode="one"), pages), there, 59 * MIB)
    assert (footing.memory, footing.page_size, footing.placement.nodes) == (60 * MIB, 2 * MIB, (0,))
    assert refused((ask("core", numaNode=0), pages), there) == "NUMA node 0: 64 pages of 2MiB asked, 30 left"
    # Another node may have the pages, though this one has the processors.
    assert given((ask("core", numaNode="one"), pages), there, 140 * MIB).placement.nodes == (1,)
    assert given((ask("core", numaNode=1), pages), there).placement.nodes == (1,)
    assert "128 pages of 2MiB asked, 110 left" in refused((pages,), there, 256 * MIB)


def test_memory_set_aside_as_huge_pages_is_no_usual_memory() -> None:
    one = host(cores=2, sockets=2, memory=4 * GIB)
    nodes = tuple(replace(node, huge_pages={str(2 * MIB): 512}) for node in one.nodes)
    there = book(replace(one, nodes=nodes, holdings=(holder(0, memory=GIB, nodes=(0,), page_size=2 * MIB),)))
    assert (there.memory, there.memory_on(0)) == (2 * GIB, GIB)
    assert refused((ask("thread"),), there, 3 * GIB).startswith(
        "memory: 3GiB asked, 2GiB free of 4GiB: 2GiB huge pages"
    )
    pages = ask("memory", pageSize=2 * MIB)
    assert given((pages,), there, GIB).memory == GIB
    assert refused((pages,), there, 2 * GIB) == "1024 pages of 2MiB asked, 512 left"


def test_each_alternative_is_told_with_what_it_comes_to() -> None:
    alternatives = ((ask("processor", 3),), (ask("core", 2, dedicated=True),), (ask("thread"),))
    answers = list(fits(alternatives, book(), 128 * MIB))
    assert [describe(alternative) for alternative, _ in answers] == ["3 processors", "2 cores", "1 thread"]
    assert [isinstance(answer, Footing) for _, answer in answers] == [False, True, True]


def test_every_kind_says_what_it_is_asked() -> None:
    asked = {
        "isa": ask("isa", features=["avx2", "aes"]),
        "microcode": ask("microcode", revision=43),
        "memory": ask("memory", pageSize=2 * MIB),
        "thread": ask("thread", 2, dedicated=True, smt="isolate", numaNode="one"),
        "firmware": firmware(),
        "block": CARD,
        "program": ResourceRequest("program", options={"image": "lab", "command": ["/usr/bin/meter", "-v"]}),
    }
    said = {name: kind.describe(asked.get(name, ask(name))) for name, kind in KINDS.items()}
    assert said == {
        "firmware": "elf firmware meter.elf",
        "block": "PCI function of vendor 0x1172",
        "program": "meter in image lab",
        "microcode": "microcode 0x2b or later",
        "isa": "aes and avx2",
        "thread": "2 dedicated threads, each alone on its core on one NUMA node",
        "core": "1 core",
        "processor": "1 processor",
        "memory": "pages of 2MiB",
    }


def test_headroom_is_left_for_what_comes_later() -> None:
    there = book(host(memory=GIB), headroom_memory=GIB // 2, headroom_vcpus=1, cpu_overcommit=1.0)
    assert "memory: 768MiB asked, 1GiB free of 1GiB, 512MiB kept as headroom" in there.lacks(1, 768 * MIB)
    assert "8 virtual CPUs asked, 7 left" in there.lacks(8, MIB)
    assert "1 kept as headroom" in there.lacks(8, MIB)
    assert there.lacks(7, GIB // 2) == ""


def test_a_block_is_booked_known_again_and_taken_back() -> None:
    card = NodeDevice("pci_3", "pci", vendor="0x1172", product="0x4", address="0000:03:00.0", iommu_group=3, node=1)
    there = book(replace(host(), node_devices=(card,)))
    footing = given((CARD, ask("core")), there)
    assert footing.host_devices == (HostDevice("pci", "0000:03:00.0"),)
    assert footing.reasons[0] == (
        "0000:03:00.0 of NUMA node 1: 1 PCI function of vendor 0x1172 is there: 0000:03:00.0 is free"
    )
    spec = device_vm(footing)
    assert fulfilled(((CARD, ask("core")),), spec, there)
    assert not fulfilled(((ask("core"),),), spec, there)
    assert not fulfilled(((CARD, ask("core")),), replace(spec, host_devices=()), there)
    mark = there.mark()
    there.book("d", footing.placement, footing.vcpus, footing.memory, devices=footing.host_devices)
    assert refused((CARD,), there) == "1 PCI function of vendor 0x1172 is there: 0000:03:00.0 is held by d"
    there.back_to(mark)
    assert given((CARD,), there).host_devices == footing.host_devices


def test_firmware_is_known_again_by_all_that_it_is() -> None:
    there = book(replace(host(), guests=(GuestKind("armv7l", "hvm", ("tcg",)),)))
    spec = replace(device_vm(given((firmware(),), there)), arch="armv7l", machine="lm3s6965evb")
    assert fulfilled(((firmware(),),), spec, there)
    for other in (
        firmware(file="/opt/other.elf"),
        firmware(machine="virt"),
        firmware(memory=MIB),
        firmware(kind="rom"),
    ):
        assert not fulfilled(((other,),), spec, there)
    assert not fulfilled(((ask("thread"),),), spec, there)
    assert not fulfilled(((firmware(),),), replace(spec, firmware=None), there)
