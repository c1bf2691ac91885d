"""The same questions to devicevm's planner and to OpenStack Nova's `numa_fit_instance_to_host`.

A question: does a device VM of so many dedicated CPUs and so much memory fit on this host, on which others are? Nova
is asked as its scheduler asks, with the instance's and the host's NUMA topology.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
from .nova_fleet import fleet
from .nova_objects import (
    BOOKING,
    FITTING,
    PAGE,
    REPEAT,
    SEED,
    TARGET,
    nova_answer,
    nova_book,
    nova_host,
    nova_instance,
)
from .stage import OWNER, Stage, say

TEXT = f"""\
Random hosts on which others hold CPUs and memory, and one device VM that asks for whole cores, or for dedicated
threads: prefer, isolate or require for their siblings; on one NUMA node or not, from huge pages or not. Small hosts
have one or two sockets of 2 to 8 cores of one or two threads, large ones 2 sockets of 32 cores of 2 threads. On one
host, both sides do the same: to *fit* is to find out whether it has room, and on which CPUs (devicevm: `fit_one` on the
host's book; Nova: `numa_fit_instance_to_host` of `nova.virt.hardware` with the same host and one cell of `dedicated`
policy), and to *book* is to count what was found as held from then on (`Book.book`; `numa_usage_from_instance_numa`).
The two sides take turns question by question; each is asked {REPEAT} times in a row, and its figure is the median of
these; that of the first time, when the processor's caches hold what the other side has left, is a row of its own. What
only builds the question is not timed, nor what takes a booking back. A whole plan (`make_plan` of one client with one
device, with the domains, their channels, the steps and all reasons in words; Nova has nothing like it) stands beside.
Nova's host is configured as with `vcpu_pin_set`, since its isolate policy refuses hosts with SMT otherwise. Where
answers differ, the reason is shown by a second question in which it does not matter and to which both answer alike.

In a fleet, both place device VMs one after the other on the first host that has room: Nova with a call for each host
that is tried, and one that books; devicevm with its clients. Placing alone is `arrange`: which host, which CPUs, and
the books; Python's garbage collector rests for both, as it does while devicevm plans. Then the whole plan again."""


@dataclass(frozen=True)
class Shape:
    """What the hosts of questions are drawn from; on a node are at most `holders` domains with `held` CPUs each."""

    name: str
    sockets: tuple[int, ...]
    cores: tuple[int, ...]
    threads: tuple[int, ...]
    holders: int
    held: int


SMALL = Shape("a small host", (1, 2), (2, 4, 8), (1, 2), 3, 3)
LARGE = Shape("a host of 2 x 32 cores x 2 threads", (2,), (32,), (2,), 12, 6)


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


def make_question(draw: Random, shape: Shape = SMALL) -> Question:
    """A question whose answer is not plain: what is asked is about what is left."""
    sockets, cores, threads = draw.choice(shape.sockets), draw.choice(shape.cores), draw.choice(shape.threads)
    memory = sockets * cores * draw.choice((GIB, 2 * GIB))
    page_count = draw.choice((0, 0, memory // sockets // PAGE // 2))
    host = make_host("host", sockets, cores, threads, memory, {str(PAGE): page_count} if page_count else None)
    reserved = tuple(cpu.id for cpu in host.cpus if cpu.core == "core0") if draw.random() < 0.3 else ()
    host = replace(host, holdings=tuple(_holdings(draw, host, frozenset(reserved), shape)))
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


def _holdings(draw: Random, host: Host, reserved: frozenset[int], shape: Shape) -> list[Holding]:
    """Domains with CPUs of their own on one node each; together at most what the node has."""
    found = []
    for node in host.nodes:
        vacant = [cpu for cpu in node.cpus if cpu not in reserved]
        page_count = node.huge_pages.get(str(PAGE), 0)
        plain = node.memory - page_count * PAGE
        for number in range(draw.randint(0, shape.holders)):
            count = draw.randint(1, shape.held)
            if count > len(vacant):
                break
            cpus = tuple(sorted(draw.sample(vacant, count)))
            vacant = [cpu for cpu in vacant if cpu not in cpus]
            huge = page_count > 0 and draw.random() < 0.5
            most = (page_count * PAGE if huge else plain) // shape.holders
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


class OurHost:
    """A host's book, to be asked no more than Nova is asked of a host."""

    def __init__(self, question: Question, topology: Topology) -> None:
        (self.alternative,) = topology.classes[0].resources
        self.memory = question.memory
        self.book = Book(question.host, question.policy)

    def fit(self) -> Footing | None:
        """Whether the device VM fits, and on which CPUs."""
        answer = fit_one(self.alternative, self.book, self.memory)
        return answer if isinstance(answer, Footing) else None

    def fit_and_book(self) -> None:
        """Whether it fits; what was found is held from then on."""
        if found := self.fit():
            self.book.book("asked", found.placement, found.vcpus, found.memory, found.page_size, found.host_devices)


def nova_question(question: Question) -> Any:
    """The device VM of a question. Whole cores are all their threads, and siblings where there are any."""
    count, smt = question.count, question.smt
    if question.whole:
        count, smt = count * question.threads, "require" if question.threads > 1 else "prefer"
    return nova_instance(count, smt, question.memory, question.pages)


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
    """The benchmark, with so many questions of small hosts and as many of large ones."""
    comparisons: list[Comparison] = []
    parts: list[Part] = []
    for shape in (SMALL, LARGE):
        timed, told = _questions(shape, runs)
        comparisons += timed
        parts += told
    return Result("nova", "Placement against OpenStack Nova's", TEXT, (*comparisons, *fleet()), tuple(parts))


@dataclass
class _Times:
    """Microseconds, one figure a question."""

    first: list[float] = field(default_factory=list)
    """To fit, when it is asked for the first time."""
    fit: list[float] = field(default_factory=list)
    book: list[float] = field(default_factory=list)
    plan: list[float] = field(default_factory=list)


def _questions(shape: Shape, runs: int) -> tuple[list[Comparison], list[Part]]:
    # Not for secrets: the same seed must give the same questions.
    draw = Random(SEED)  # noqa: S311
    ours, theirs = _Times(), _Times()
    differences: Counter[str] = Counter()
    answered = 0
    for number in range(runs):
        question = make_question(draw, shape)
        fits, placed = _ask(question, ours, theirs)
        answered += fits
        if fits is not placed:
            found = cause(question)
            differences[found] += 1
            if found == "not explained":
                say(f"question {number}: Nova {fits}, devicevm {placed}: {question}")
    rows = (
        ("fit", ours.fit, theirs.fit, FITTING, TARGET),
        ("fit, the first time", ours.first, theirs.first, FITTING, TARGET),
        ("fit and book", ours.book, theirs.book, BOOKING, TARGET),
    )
    compared = [
        Comparison(f"{what}: {shape.name}", "us", Series(tuple(mine)), Series(tuple(nova_s)), against, target)
        for what, mine, nova_s, against, target in (*rows, ("a whole plan", ours.plan, theirs.book, BOOKING, 0.0))
    ]
    told = {
        "questions": runs,
        "questions that Nova answers with yes": answered,
        "the same answer": runs - differences.total(),
        **{f"different: {what}": count for what, count in differences.most_common()},
    }
    return compared, [Part(f"{shape.name}: {what}", "questions", _single(count)) for what, count in told.items()]


def _ask(question: Question, ours: _Times, theirs: _Times) -> tuple[bool, bool]:
    """Nova's answer and devicevm's; how long both took is added."""
    topology, host = our_topology(question), nova_host(question.host, question.policy)
    instance, here = nova_question(question), OurHost(question, topology)
    mark = here.book.mark()
    for times, fitting in ((ours, here.fit), (theirs, lambda: nova_answer(host, instance))):
        taken = _microseconds(fitting)
        times.first.append(taken[0])
        times.fit.append(statistics.median(taken))
    ours.book.append(statistics.median(_microseconds(here.fit_and_book, lambda: here.book.back_to(mark))))
    theirs.book.append(statistics.median(_microseconds(lambda: nova_book(host, instance))))
    begun = time.perf_counter()
    plan = our_answer(question, topology)
    ours.plan.append((time.perf_counter() - begun) * 1e6)
    placed = not plan.unplaced
    if (here.fit() is not None) is not placed:
        raise AssertionError(f"the fit alone is not what the plan says: {question}")
    return nova_answer(host, instance) is not None, placed


def _microseconds(side: Callable[[], object], undo: Callable[[], object] = lambda: None) -> list[float]:
    """How long each of several calls takes."""
    taken = []
    for _ in range(REPEAT):
        begun = time.perf_counter()
        side()
        taken.append((time.perf_counter() - begun) * 1e6)
        undo()
    return taken


def _single(value: float) -> Series:
    return Series((float(value),))
