"""Inventory documents that are of the right form and make no sense: file, key and what is expected."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devicevm.errors import DevicevmError
from devicevm.inventory.host import Holding, Host, NodeDevice
from devicevm.inventory.sound import check_host
from devicevm.record import from_data
from world import GIB, MIB, host

GOLDENS = Path(__file__).resolve().parent.parent / "goldens" / "inventory"
HELD = Holding("db", "u1", True, 2, GIB, (0, 4), False)
SOUND = replace(
    host(holdings=(HELD, replace(HELD, domain="far", cpus=(0, 999), nodes=(7,)))),
    page_sizes=(4096, 2 * MIB),
    node_devices=(NodeDevice("pci_1", "pci", mdev_types={"nvidia-1": 2}),),
)


def changed(**fields: Any) -> Callable[[Host], Host]:
    return lambda one: replace(one, **fields)


def cpu(**fields: Any) -> Callable[[Host], Host]:
    return lambda one: replace(one, cpus=(one.cpus[0], replace(one.cpus[1], **fields), *one.cpus[2:]))


def node(**fields: Any) -> Callable[[Host], Host]:
    return lambda one: replace(one, nodes=(replace(one.nodes[0], **fields),))


def holding(**fields: Any) -> Callable[[Host], Host]:
    return changed(holdings=(HELD, replace(HELD, **{"domain": "web", **fields})))


CASES: dict[str, tuple[Callable[[Host], Host], str]] = {
    "no name": (changed(name=""), "name: a word without spaces expected, '' found"),
    "two lines": (changed(name="a\nb"), r"name: a word without spaces expected, 'a\nb' found"),
    "spaces": (changed(arch="x86 64"), "arch: a word without spaces expected, 'x86 64' found"),
    "memory": (changed(memory=-5), "memory: 0 or more expected, -5 found"),
    "microcode": (changed(microcode=-1), "microcode: 0 or more expected, -1 found"),
    "page size": (changed(page_sizes=(4096, 0)), "pageSizes[1]: bytes of a page expected, 0 found"),
    "mdev": (
        changed(node_devices=(NodeDevice("pci_1", "pci", mdev_types={"x": -1}),)),
        "nodeDevices[0].mdevTypes.x: 0 or more expected, -1 found",
    ),
    "sibling": (cpu(siblings=(1, 77)), "cpus[1].siblings: CPU 1 itself and others of `cpus` expected, 1,77 found"),
    "not itself": (cpu(siblings=(5,)), "cpus[1].siblings: CPU 1 itself and others of `cpus` expected, 5 found"),
    "node": (cpu(node=3), "cpus[1].node: one of `nodes` expected (0), 3 found"),
    "node's CPUs": (node(cpus=(0, 8)), "nodes[0].cpus: some of `cpus` expected, 8 found"),
    "node's memory": (node(memory=-1), "nodes[0].memory: 0 or more expected, -1 found"),
    "page key": (
        node(huge_pages={"x": 3}),
        "nodes[0].hugePages: bytes of a page expected as the key, such as 2097152, 'x' found",
    ),
    "page of nothing": (
        node(huge_pages={"0": 3}),
        "nodes[0].hugePages: bytes of a page expected as the key, such as 2097152, '0' found",
    ),
    "pages": (node(huge_pages={"2097152": -3}), "nodes[0].hugePages.2097152: 0 or more expected, -3 found"),
    "domain": (holding(domain=""), "holdings[1].domain: the name of a domain expected, none found"),
    "domain twice": (
        changed(holdings=(HELD, HELD)),
        "holdings[1].domain: another one than that of holdings[0] expected, db found",
    ),
    "vcpus": (holding(vcpus=-4), "holdings[1].vcpus: 0 or more expected, -4 found"),
    "held memory": (holding(memory=-1), "holdings[1].memory: 0 or more expected, -1 found"),
    "held page": (holding(page_size=-1), "holdings[1].pageSize: 0 or more expected, -1 found"),
    "pins": (holding(cpus=(0, 0)), "holdings[1].cpus: each CPU once expected, 0, 0 found"),
    "no CPU": (holding(cpus=(-1,)), "holdings[1].cpus: numbers of CPUs expected, 0 to 16383, -1 found"),
    "moved": (holding(moved_to=(99999,)), "holdings[1].movedTo: numbers of CPUs expected, 0 to 16383, 99999 found"),
}


def said(one: Host) -> list[str]:
    with pytest.raises(DevicevmError) as raised:
        check_host(one, "lab.json")
    assert raised.value.hint
    return raised.value.message.splitlines()


@pytest.mark.parametrize(("change", "text"), CASES.values(), ids=CASES)
def test_what_makes_no_sense_is_told_with_file_and_key(change: Callable[[Host], Host], text: str) -> None:
    assert said(change(replace(SOUND, holdings=()))) == [f"lab.json: {text}"]


def test_a_cpu_that_is_there_twice_is_told() -> None:
    assert said(replace(SOUND, cpus=(*SOUND.cpus, SOUND.cpus[2]))) == [
        "lab.json: cpus[8].id: another one than that of cpus[2] expected, 2 found"
    ]


def test_numbers_that_no_cpu_has_are_told() -> None:
    one = replace(SOUND.cpus[0], id=10**15, siblings=(10**15,))
    assert said(replace(SOUND, cpus=(*SOUND.cpus, one))) == [
        "lab.json: cpus[8].id: numbers of CPUs expected, 0 to 16383, 1000000000000000 found"
    ]


def test_all_is_told_at_once() -> None:
    assert len(said(replace(SOUND, name="", memory=-1))) == 2


@pytest.mark.parametrize("path", sorted(GOLDENS.glob("capabilities/*.json")) + sorted(GOLDENS.glob("odd/*.json")))
def test_what_hosts_say_is_sound(path: Path) -> None:
    check_host(from_data(Host, json.loads(path.read_text())), path.name)
    check_host(SOUND, "lab.json")
