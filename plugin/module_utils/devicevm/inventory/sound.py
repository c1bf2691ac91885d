"""Whether an inventory makes sense: what its form alone (record.py) lets pass, and no host is like. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import DevicevmError, Problem
from .cpuset import MAX_CPUS, format_cpuset
from .host import Holding, Host, Node

Finding = tuple[str, str]
"""A key, as `cpus[3].siblings`, and what is wrong there and what is expected."""


def check_host(host: Host, source: str) -> None:
    """DevicevmError with everything that makes no sense in a host's document; `source` is the file it is from.

    A domain may be pinned to CPUs, and bound to NUMA nodes, that its host does not have: libvirt lets it be defined so.
    """
    findings = [*_whole(host), *_cpus(host), *_nodes(host), *_holdings(host.holdings)]
    if findings:
        problems = (Problem(source, 0, 0, key, message) for key, message in findings)
        raise DevicevmError(
            "\n".join(map(str, problems)), hint="write it anew on that host: devicevm inventory -o json"
        )


def _whole(host: Host) -> Iterator[Finding]:
    for key, word in (("name", host.name), ("arch", host.arch)):
        if not word or not word.isprintable() or " " in word:
            yield key, f"a word without spaces expected, {word!r:.80} found"
    yield from _negative({"memory": host.memory, "microcode": host.microcode})
    for index, size in enumerate(host.page_sizes):
        if size <= 0:
            yield f"pageSizes[{index}]", f"bytes of a page expected, {size} found"
    for index, device in enumerate(host.node_devices):
        yield from _negative({f"nodeDevices[{index}].mdevTypes.{one}": n for one, n in device.mdev_types.items()})


def _cpus(host: Host) -> Iterator[Finding]:
    there, nodes = {cpu.id for cpu in host.cpus}, {node.id for node in host.nodes}
    yield from _repeated("cpus", "id", [cpu.id for cpu in host.cpus])
    for index, cpu in enumerate(host.cpus):
        key = f"cpus[{index}]"
        yield from _no_cpus(f"{key}.id", (cpu.id,))
        if not {cpu.id} <= set(cpu.siblings) <= there:
            siblings = format_cpuset(cpu.siblings) or "none"
            yield f"{key}.siblings", f"CPU {cpu.id} itself and others of `cpus` expected, {siblings} found"
        if cpu.node not in nodes:
            yield f"{key}.node", f"one of `nodes` expected ({format_cpuset(nodes) or 'none'}), {cpu.node} found"


def _nodes(host: Host) -> Iterator[Finding]:
    there = {cpu.id for cpu in host.cpus}
    yield from _repeated("nodes", "id", [node.id for node in host.nodes])
    for index, node in enumerate(host.nodes):
        key = f"nodes[{index}]"
        yield from _negative({f"{key}.id": node.id, f"{key}.memory": node.memory})
        if missing := set(node.cpus) - there:
            yield f"{key}.cpus", f"some of `cpus` expected, {format_cpuset(missing)} found"
        yield from _huge_pages(key, node)


def _huge_pages(key: str, node: Node) -> Iterator[Finding]:
    for size, count in node.huge_pages.items():
        if not (size.isascii() and size.isdecimal() and int(size[:20])):
            yield f"{key}.hugePages", f"bytes of a page expected as the key, such as 2097152, {size!r:.40} found"
        yield from _negative({f"{key}.hugePages.{size:.40}": count})


def _holdings(holdings: tuple[Holding, ...]) -> Iterator[Finding]:
    yield from _repeated("holdings", "domain", [one.domain for one in holdings])
    for index, one in enumerate(holdings):
        key = f"holdings[{index}]"
        if not one.domain:
            yield f"{key}.domain", "the name of a domain expected, none found"
        numbers = {"vcpus": one.vcpus, "memory": one.memory, "pageSize": one.page_size}
        yield from _negative({f"{key}.{name}": number for name, number in numbers.items()})
        for name, cpus in (("cpus", one.cpus), ("movedTo", one.moved_to)):
            yield from _no_cpus(f"{key}.{name}", cpus)
            if len(set(cpus)) < len(cpus):
                yield f"{key}.{name}", f"each CPU once expected, {', '.join(map(str, cpus)):.80} found"


def _no_cpus(key: str, cpus: Iterable[int]) -> Iterator[Finding]:
    if wrong := [cpu for cpu in cpus if not 0 <= cpu < MAX_CPUS]:
        yield key, f"numbers of CPUs expected, 0 to {MAX_CPUS - 1}, {', '.join(map(str, wrong)):.80} found"


def _negative(numbers: dict[str, int]) -> Iterator[Finding]:
    for key, number in numbers.items():
        if number < 0:
            yield key, f"0 or more expected, {number} found"


def _repeated(key: str, name: str, values: Iterable[int | str]) -> Iterator[Finding]:
    first: dict[int | str, int] = {}
    for index, value in enumerate(values):
        if (before := first.setdefault(value, index)) != index:
            yield f"{key}[{index}].{name}", f"another one than that of {key}[{before}] expected, {value} found"
