"""The same questions to devicevm's planner and to OpenStack Nova's `numa_fit_instance_to_host`.

A question: does a device VM of so many dedicated CPUs and so much memory fit on this host, on which others are? Nova
is asked as its scheduler asks, with the instance's and the host's NUMA topology.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from devicevm.inventory.host import Holding, Host
from devicevm.manifest.topology import Boot, Client, ClientVM, Device, HostPolicy, ResourceRequest, Topology
from devicevm.planner.book import Book
from devicevm.planner.plan import Plan
from devicevm.planner.planner import Intent, make_plan
from devicevm.planner.resources import Footing, fit_one

from .fleets import GIB, MIB, make_class, make_host
from .measuring import Comparison, Part, Result, Series
from .stage import OWNER, Stage, say

PAGE = 2 * MIB
FLEET_HOSTS, FLEET_VMS = 50, 500
TARGET = 0.1
SEED = 1
TEXT = """\
Random hosts on which others hold CPUs and memory, and one device VM that asks for whole cores, or for dedicated
threads: prefer, isolate or require for their siblings; on one NUMA node or not, from huge pages or not. devicevm:
`make_plan` of one client with one device (a client without vCPUs and memory, so that only the device VM counts).
Nova: `numa_fit_instance_to_host` of `nova.virt.hardware` with the same host and one cell of `dedicated` policy.
Nova's host is configured as with `vcpu_pin_set`, since its isolate policy refuses hosts with SMT otherwise. A
question's answers are timed one after the other, without what only builds the question. devicevm's is timed twice: the
fit alone (`fit_one` on the host's book), which is what Nova's function does, and a whole plan with the domains, their
channels and their steps. Where answers differ, the reason
is shown by a second question in which it does not matter and to which both answer alike. In a fleet, both place
device VMs one after the other on the first host that has room: devicevm in one plan, Nova with a call for each host
that is tried, and one that books."""


@dataclass(frozen=True)
class Question:
    """A host with what is held of it, and what one device VM asks. Memory in bytes.

    `smt` and `numa` are options of the resource kind `thread`; `pages` asks for huge pages of PAGE bytes. With `whole`,
    `count` is of cores (the kind `core`, which has no `smt`).
    """

    host: Host
    policy: HostPolicy
    count: int
    smt: str
    numa: bool
    memory: int
    pages: bool
    whole: bool = False

    @property
    def threads(self) -> int:
        """How many threads a core of the host has."""
        return len(self.host.cpus[0].siblings)


def make_question(draw: Random) -> Question:
    """A question whose answer is not plain: what is asked is about what is left."""
    sockets, cores, threads = draw.choice((1, 2)), draw.choice((2, 4, 8)), draw.choice((1, 2))
    memory = sockets * cores * draw.choice((GIB, 2 * GIB))
    page_count = draw.choice((0, 0, memory // sockets // PAGE // 2))
    host = make_host("host", sockets, cores, threads, memory, {str(PAGE): page_count} if page_count else None)
    reserved = tuple(cpu.id for cpu in host.cpus if cpu.core == "core0") if draw.random() < 0.3 else ()
    host = replace(host, holdings=tuple(_holdings(draw, host, frozenset(reserved))))
    pages = bool(page_count) and draw.random() < 0.5
    whole = draw.random() < 0.25
    return Question(
        host=host,
        policy=HostPolicy("host", reserved_cpus=reserved),
        count=draw.randint(1, max(1, cores * (1 if whole else threads) * 2 // 3)),
        smt=draw.choice(("prefer", "isolate", "require")),
        numa=draw.random() < 0.7,
        memory=32 * MIB * draw.randint(1, max(1, memory // sockets // (48 * MIB))),
        pages=pages,
        whole=whole,
    )


def _holdings(draw: Random, host: Host, reserved: frozenset[int]) -> list[Holding]:
    """Domains with CPUs of their own on one node each; together at most what the node has."""
    found = []
    for node in host.nodes:
        vacant = [cpu for cpu in node.cpus if cpu not in reserved]
        page_count = node.huge_pages.get(str(PAGE), 0)
        plain = node.memory - page_count * PAGE
        for number in range(draw.randint(0, 3)):
            count = draw.randint(1, 3)
            if count > len(vacant):
                break
            cpus = tuple(sorted(draw.sample(vacant, count)))
            vacant = [cpu for cpu in vacant if cpu not in cpus]
            huge = page_count > 0 and draw.random() < 0.5
            most = (page_count * PAGE if huge else plain) // 3
            memory = draw.randint(0, most // (32 * MIB)) * 32 * MIB
            held = Holding(
                f"other-{node.id}-{number}", "", True, count, memory, cpus, False, True, nodes=(node.id,), owner="other"
            )
            found.append(replace(held, page_size=PAGE) if huge else held)
    return found


def our_topology(question: Question) -> Topology:
    """The question as devicevm is asked it."""
    node = {"numaNode": "one"} if question.numa else {}
    requests = [
        ResourceRequest("core", question.count, True, node)
        if question.whole
        else ResourceRequest("thread", question.count, True, {"smt": question.smt, **node})
    ]
    if question.pages:
        requests.append(ResourceRequest("memory", options={"pageSize": PAGE}))
    class_ = make_class("asked", (tuple(requests),), question.memory, 0)
    client = Client("asker", ClientVM(0, 0, Boot(guest_image="client")), (Device("device", "asked"),))
    return Topology((client,), classes=(class_,), hosts=(question.policy,))


def our_answer(question: Question, topology: Topology) -> Plan:
    """devicevm's plan."""
    return make_plan(topology, (question.host,), (), Intent(OWNER))


def our_fit(question: Question, topology: Topology) -> Callable[[], bool]:
    """What asks devicevm's planner for no more than Nova is asked: whether it fits, and on which CPUs."""
    (alternative,) = topology.classes[0].resources
    book = Book(question.host, question.policy)
    return lambda: isinstance(fit_one(alternative, book, question.memory), Footing)


@dataclass(frozen=True)
class Nova:
    """What is used of Nova."""

    hardware: Any
    objects: Any


@cache
def nova() -> Nova:
    """Nova, when it is installed."""
    try:
        from nova import objects
        from nova.objects import instance_numa, numa  # noqa: F401 (they register themselves)
        from nova.virt import hardware
    except ImportError as error:
        raise SystemExit(f"{error}: this benchmark needs OpenStack Nova: pip install 'devicevm[bench]'") from error
    return Nova(hardware, objects)


def nova_host(host: Host, policy: HostPolicy) -> Any:
    """The host as Nova's NUMATopology. Memory in MiB, pages in KiB."""
    return nova().objects.NUMATopology(cells=[_nova_cell(host, node.id, policy) for node in host.nodes])


def _nova_cell(host: Host, number: int, policy: HostPolicy) -> Any:
    node = next(node for node in host.nodes if node.id == number)
    usable = set(node.cpus) - set(policy.reserved_cpus)
    here = [one for one in host.holdings if one.nodes == (number,)]
    page_count = node.huge_pages.get(str(PAGE), 0)
    huge = sum(one.memory for one in here if one.page_size == PAGE)
    used = sum(one.memory for one in here)
    topology = nova().objects.NUMAPagesTopology
    small = topology(size_kb=4, total=(node.memory - page_count * PAGE) // 4096, used=(used - huge) // 4096, reserved=0)
    large = topology(size_kb=PAGE // 1024, total=page_count, used=huge // PAGE, reserved=0)
    return nova().objects.NUMACell(
        id=number,
        cpuset=usable,
        pcpuset=usable,
        memory=node.memory // MIB,
        memory_usage=used // MIB,
        cpu_usage=0,
        pinned_cpus={cpu for one in here for cpu in one.cpus},
        siblings=[set(group) for group in {cpu.siblings for cpu in host.cpus if cpu.node == number}],
        # A host without huge pages has its usual ones listed all the same, as libvirt lists them.
        mempages=[small, large] if page_count else [small],
        socket=number,
    )


def nova_instance(count: int, smt: str, memory: int, pages: bool) -> Any:
    """The device VM as Nova's InstanceNUMATopology of one cell."""
    cell = nova().objects.InstanceNUMACell(
        id=0,
        cpuset=set(),
        pcpuset=set(range(count)),
        memory=memory // MIB,
        pagesize=PAGE // 1024 if pages else None,
        cpu_policy="dedicated",
        cpu_thread_policy=smt,
    )
    return nova().objects.InstanceNUMATopology(cells=[cell])


def nova_question(question: Question) -> Any:
    """The device VM of a question. Whole cores are all their threads, and siblings where there are any."""
    count, smt = question.count, question.smt
    if question.whole:
        count, smt = count * question.threads, "require" if question.threads > 1 else "prefer"
    return nova_instance(count, smt, question.memory, question.pages)


def nova_answer(host: Any, instance: Any) -> Any:
    """The instance's topology on the host, or None."""
    return nova().hardware.numa_fit_instance_to_host(host, instance, {})


def agree(question: Question) -> bool:
    """Whether both give the same answer."""
    instance = nova_question(question)
    fits = nova_answer(nova_host(question.host, question.policy), instance) is not None
    return fits is not bool(our_answer(question, our_topology(question)).unplaced)


def cause(question: Question) -> str:
    """Why the answers differ: what one side's rule has and the other's has not, and a question without it is answered
    alike."""
    found = []
    for name, change in CAUSES.items():
        changed = change(question)
        if changed != question:
            question = changed
            found.append(name)
            if agree(question):
                return "; and ".join(found)
    return "not explained"


def _whole_cores(question: Question) -> Question:
    if question.whole or question.smt != "require":
        return question
    return replace(question, count=-(-question.count // question.threads) * question.threads)


def _one_node(question: Question) -> Question:
    return question if len(question.host.nodes) == 1 else replace(question, numa=True)


def _usual_pages_only(question: Question) -> Question:
    """The huge pages taken out of the host, with what is held of them, when usual pages are asked for."""
    if question.pages:
        return question
    huge = {node.id: node.huge_pages.get(str(PAGE), 0) * PAGE for node in question.host.nodes}
    nodes = tuple(replace(node, memory=node.memory - huge[node.id], huge_pages={}) for node in question.host.nodes)
    holdings = tuple(
        replace(one, memory=0, page_size=0) if one.page_size == PAGE else one for one in question.host.holdings
    )
    memory = question.host.memory - sum(huge.values())
    return replace(question, host=replace(question.host, nodes=nodes, memory=memory, holdings=holdings))


def _where_pages_are(question: Question) -> Question:
    """CPUs only on the nodes that have as many huge pages left, when such are asked for."""
    if not question.pages:
        return question
    lacking = {
        node.id
        for node in question.host.nodes
        if node.huge_pages.get(str(PAGE), 0) * PAGE
        < question.memory
        + sum(one.memory for one in question.host.holdings if one.page_size == PAGE and node.id in one.nodes)
    }
    reserved = {cpu.id for cpu in question.host.cpus if cpu.node in lacking} | set(question.policy.reserved_cpus)
    return replace(question, policy=replace(question.policy, reserved_cpus=tuple(sorted(reserved))))


CAUSES: dict[str, Callable[[Question], Question]] = {
    "siblings required: Nova may use the last core in part, devicevm takes whole cores only": _whole_cores,
    "no NUMA node asked: Nova puts a pinned instance on one node, devicevm on any CPUs": _one_node,
    "devicevm counts memory set aside as huge pages among usual memory": _usual_pages_only,
    "devicevm stays with the first node that has the CPUs, though the huge pages are on another": _where_pages_are,
}


def run(stage: Stage, runs: int) -> Result:
    """The benchmark, with so many questions."""
    # Not for secrets: the same seed must give the same questions.
    draw = Random(SEED)  # noqa: S311
    ours, plans, theirs = [], [], []
    counts: Counter[str] = Counter()
    differences: Counter[str] = Counter()
    for number in range(runs + 1):
        question = make_question(draw)
        topology, host = our_topology(question), nova_host(question.host, question.policy)
        instance, fit = nova_question(question), our_fit(question, topology)
        times = [time.perf_counter()]
        ours_fits = fit()
        times.append(time.perf_counter())
        fits = nova_answer(host, instance) is not None
        times.append(time.perf_counter())
        plan = our_answer(question, topology)
        times.append(time.perf_counter())
        if not number:
            # The first one fills caches and finishes imports.
            continue
        if ours_fits is bool(plan.unplaced):
            raise AssertionError(f"the fit alone is not what the plan says: {question}")
        for figures, begun, ended in zip((ours, theirs, plans), times, times[1:], strict=False):
            figures.append((ended - begun) * 1e6)
        counts["yes" if fits else "no"] += 1
        if fits is bool(plan.unplaced):
            found = cause(question)
            differences[found] += 1
            if found == "not explained":
                say(f"question {number}: Nova {fits}, devicevm {plan.unplaced}: {question}")
    fleet_ours, fleet_theirs = _fleet()
    return _result((ours, plans, theirs), counts, differences, (fleet_ours, fleet_theirs))


def _result(
    figures: tuple[list[float], list[float], list[float]],
    counts: Counter[str],
    differences: Counter[str],
    fleet: tuple[list[float], list[float]],
) -> Result:
    ours, plans, theirs = (Series(tuple(some)) for some in figures)
    asked = sum(counts.values())
    against = "Nova's numa_fit_instance_to_host"
    comparisons = (
        Comparison("a device VM on one host, the fit alone", "us", ours, theirs, against, TARGET),
        Comparison("a device VM on one host, a whole plan", "us", plans, theirs, against),
        Comparison(
            f"one of {FLEET_VMS} device VMs on {FLEET_HOSTS} hosts",
            "us",
            Series(tuple(fleet[0])),
            Series(tuple(fleet[1])),
            against,
            TARGET,
        ),
    )
    parts = [
        Part("questions", "questions", _single(asked)),
        Part("questions that Nova answers with yes", "questions", _single(counts["yes"])),
        Part("the same answer", "questions", _single(asked - differences.total())),
    ]
    parts += [Part(f"different: {what}", "questions", _single(count)) for what, count in differences.most_common()]
    return Result("nova", "Placement against OpenStack Nova's", TEXT, comparisons, tuple(parts))


def _fleet() -> tuple[list[float], list[float]]:
    """Microseconds a device VM when many are placed on many hosts, three times each, in turns."""
    draw = Random(SEED)  # noqa: S311
    hosts = tuple(make_host(f"host-{number:03}", 2, 8, 2, 64 * GIB) for number in range(FLEET_HOSTS))
    asked = [(draw.choice((1, 1, 2)), 32 * MIB * draw.choice((4, 8, 16))) for _ in range(FLEET_VMS)]
    classes = {one: make_class(f"c-{one[0]}-{one[1] // MIB}", _fleet_request(one[0]), one[1], 0) for one in set(asked)}
    clients = tuple(
        Client(
            f"client-{number:04}", ClientVM(0, 0, Boot(guest_image="client")), (Device("device", classes[one].name),)
        )
        for number, one in enumerate(asked)
    )
    topology = Topology(clients, classes=tuple(classes.values()))
    ours, theirs = [], []
    for _ in range(3):
        begun = time.perf_counter()
        plan = make_plan(topology, hosts, (), Intent(OWNER))
        ours.append((time.perf_counter() - begun) / FLEET_VMS * 1e6)
        if plan.unplaced:
            raise AssertionError(f"the fleet has room for all: {plan.unplaced[0]}")
        theirs.append(_nova_fleet(hosts, asked) / FLEET_VMS * 1e6)
    return ours, theirs


def _fleet_request(count: int) -> tuple[tuple[ResourceRequest, ...], ...]:
    return ((ResourceRequest("thread", count, True, {"numaNode": "one"}),),)


def _nova_fleet(hosts: tuple[Host, ...], asked: list[tuple[int, int]]) -> float:
    """Seconds of Nova's calls for each instance on the first host that has room, what is booked included."""
    places = [nova_host(host, HostPolicy(host.name)) for host in hosts]
    total = 0.0
    for count, memory in asked:
        instance = nova_instance(count, "prefer", memory, False)
        begun = time.perf_counter()
        for number, place in enumerate(places):
            if fitted := nova_answer(place, instance):
                places[number] = nova().hardware.numa_usage_from_instance_numa(place, fitted)
                break
        else:
            raise AssertionError("the fleet has room for all")
        total += time.perf_counter() - begun
    return total


def _single(value: float) -> Series:
    return Series((float(value),))
