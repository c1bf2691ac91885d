"""How a question is put to OpenStack Nova (bench/nova_peer.py), by questions whose answer is known."""

from __future__ import annotations

import dataclasses

import pytest
from devicevm.inventory.host import Holding, Host
from devicevm.manifest.topology import HostPolicy

pytest.importorskip("nova", reason="OpenStack Nova is not installed: pip install 'devicevm[bench]'")

from bench.fleets import GIB, MIB, make_host
from bench.nova_objects import PAGE, nova_answer, nova_book, nova_host
from bench.nova_peer import OurHost, Question, agree, cause, nova_question, our_topology

ANY = HostPolicy("h")


def fits(question: Question) -> bool:
    return nova_answer(nova_host(question.host, question.policy), nova_question(question)) is not None


def ask(host: Host, count: int, smt: str = "prefer", *, numa: bool = True, memory: int = GIB, **rest: bool) -> Question:
    return Question(host, ANY, count, smt, numa, memory, rest.get("pages", False), rest.get("whole", False))


def held(*cpus: int, memory: int = 0, node: int = 0, page_size: int = 0) -> Holding:
    return Holding("o", "", True, len(cpus), memory, cpus, False, True, nodes=(node,), owner="x", page_size=page_size)


# Two cores of two threads: 0 and 2, 1 and 3.
SMALL = make_host("h", sockets=1, cores=2, threads=2, memory=4 * GIB)
TAKEN = dataclasses.replace(SMALL, holdings=(held(0, memory=2 * GIB),))
WIDE = make_host("h", sockets=2, cores=2, threads=1, memory=8 * GIB)
PAGED = make_host("h", sockets=1, cores=2, threads=1, memory=4 * GIB, huge_pages={str(PAGE): GIB // PAGE})


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        pytest.param(ask(SMALL, 4), True, id="all CPUs"),
        pytest.param(ask(SMALL, 5), False, id="more than there are"),
        pytest.param(ask(TAKEN, 3), True, id="what is left"),
        pytest.param(ask(TAKEN, 4), False, id="one is held"),
        pytest.param(ask(TAKEN, 1, "isolate"), True, id="alone on the other core"),
        pytest.param(ask(TAKEN, 2, "isolate"), False, id="the sibling is held"),
        pytest.param(ask(TAKEN, 2, "require"), True, id="siblings"),
        pytest.param(ask(WIDE, 2, "require"), False, id="no siblings there"),
        pytest.param(ask(TAKEN, 1, whole=True), True, id="a whole core"),
        pytest.param(ask(TAKEN, 2, whole=True), False, id="one core is begun"),
        pytest.param(ask(WIDE, 2, whole=True), True, id="cores of one thread"),
        pytest.param(ask(TAKEN, 1, memory=2 * GIB), True, id="the rest of memory"),
        pytest.param(ask(TAKEN, 1, memory=2 * GIB + 32 * MIB), False, id="memory is held"),
        pytest.param(ask(PAGED, 1, pages=True), True, id="huge pages"),
        pytest.param(ask(PAGED, 1, pages=True, memory=GIB + 32 * MIB), False, id="too few huge pages"),
        pytest.param(ask(SMALL, 1, pages=True), False, id="no huge pages"),
    ],
)
def test_both_answer(question: Question, answer: bool) -> None:
    assert fits(question) is answer
    assert (OurHost(question, our_topology(question)).fit() is not None) is answer
    assert agree(question)


@pytest.mark.parametrize(("count", "again"), [(2, True), (3, False)])
def test_what_is_booked_is_held(count: int, again: bool) -> None:
    question = ask(SMALL, count, memory=2 * GIB)
    here, instance = OurHost(question, our_topology(question)), nova_question(question)
    here.fit_and_book()
    assert (here.fit() is not None) is again
    booked = nova_book(nova_host(question.host, question.policy), instance)
    assert (nova_answer(booked, instance) is not None) is again


PAGES_AWAY = dataclasses.replace(
    make_host("h", sockets=2, cores=2, threads=1, memory=8 * GIB, huge_pages={str(PAGE): GIB // PAGE}),
    holdings=(held(0, memory=GIB, page_size=PAGE),),
)


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        (ask(SMALL, 3, "require"), True, "whole cores only"),
        (ask(WIDE, 3, numa=False), False, "no NUMA node asked"),
        (ask(PAGED, 1, memory=4 * GIB), False, "set aside as huge pages"),
        (ask(PAGES_AWAY, 1, pages=True), True, "huge pages are on another"),
    ],
)
def test_known_differences_are_told(question: Question, answer: bool, why: str) -> None:
    assert fits(question) is answer
    assert agree(question) or why in cause(question)


def test_what_is_not_known_is_not_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.nova_peer.agree", lambda question: False)
    assert cause(ask(WIDE, 3, numa=False)) == "not explained"
