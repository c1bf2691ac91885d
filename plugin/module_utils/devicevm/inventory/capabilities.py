"""libvirt's capabilities document: the host's processors, memory and the kinds of guests it runs.

Format: https://libvirt.org/formatcaps.html and libvirt's schema capability.rng.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import DevicevmError
from .cpumodels import expand_features
from .cpuset import MAX_CPUS, parse_cpuset
from .document import integer, parse_document, scaled_bytes, stripped
from .host import CacheBank, Cpu, GuestKind, Node
from .processors import UNKNOWN, RawCpu, processors, processors_without_topology

WHAT = "capabilities"
# libvirt calls pure emulation `qemu`; the rest of the world, and devicevm, calls it TCG.
_ACCELERATORS = {"qemu": "tcg"}


@dataclass(frozen=True)
class Capabilities:
    """What a capabilities document says. Memory and page sizes in bytes; `memory` is that of the whole host."""

    arch: str
    memory: int = 0
    cpus: tuple[Cpu, ...] = ()
    nodes: tuple[Node, ...] = ()
    caches: tuple[CacheBank, ...] = ()
    cpu_model: str = ""
    cpu_vendor: str = ""
    cpu_features: tuple[str, ...] = ()
    microcode: int = 0
    page_sizes: tuple[int, ...] = ()
    guests: tuple[GuestKind, ...] = ()


def accelerator_name(domain_type: str) -> str:
    """devicevm's word for a libvirt domain type: qemu -> tcg; kvm, xen, test and others stay."""
    return _ACCELERATORS.get(domain_type, domain_type)


def parse_capabilities(xml: str, *, cpu_count: int = 0, memory: int = 0) -> Capabilities:
    """A capabilities document as plain data.

    `memory` (bytes) is what another source says of the whole host (virNodeGetMemoryStats of all cells, `total`). The
    larger counts: kernels leave hot-plugged memory out of the nodes, Xen's dom0 sees a part, none sees too much.
    The only node of a host has all of it.
    `cpu_count` is used when the document has no cells (libvirt's test driver with a file of its own); without it
    the CPUs come from `<cpu><topology>`. Such a host has one node 0, and each CPU counts as a core, as nothing
    tells the siblings. virNodeGetInfo has the count.
    DevicevmError when `xml` is no capabilities document or its numbers are none.
    """
    host = parse_document(xml, ("capabilities",), WHAT)
    cpu = host.find("host/cpu")
    arch = stripped(host.findtext("host/cpu/arch"))
    if cpu is None or not arch:
        raise DevicevmError(f"{WHAT}: no <host><cpu><arch>", hint="save the output of: virsh capabilities")
    cells = host.findall("host/topology/cells/cell")
    cpus = processors(raw for cell in cells for raw in _raw_cpus(cell))
    nodes = _nodes(cells, cpus)
    if not cpus:
        cpus = processors_without_topology(_bounded(cpu_count) or _counted(cpu), nodes[0].id if nodes else 0)
    memory = max(memory, sum(node.memory for node in nodes))
    if not nodes:
        nodes = (Node(id=0, memory=memory, cpus=tuple(one.id for one in cpus)),)
    elif len(nodes) == 1:
        nodes = (replace(nodes[0], memory=memory),)
    model = stripped(cpu.findtext("model"))
    return Capabilities(
        arch=arch,
        memory=memory,
        cpus=cpus,
        nodes=nodes,
        caches=_caches(host.findall("host/cache/bank")),
        cpu_model=model,
        cpu_vendor=stripped(cpu.findtext("vendor")),
        cpu_features=expand_features(model, feature_names(cpu)),
        microcode=_microcode(cpu),
        page_sizes=tuple(sorted({_page_size(pages) for pages in cpu.findall("pages")})),
        guests=tuple(_guest(guest) for guest in host.findall("guest")),
    )


def feature_names(cpu: ET.Element, policies: tuple[str, ...] = ("", "require", "force")) -> list[str]:
    """The names of a CPU element's features that have one of the policies ("" = none is given)."""
    return [feature.get("name", "") for feature in cpu.findall("feature") if feature.get("policy", "") in policies]


def _raw_cpus(cell: ET.Element) -> Iterable[RawCpu]:
    node = integer(cell.get("id"), 0, f"{WHAT}: cell id")
    for cpu in cell.findall("cpus/cpu"):
        ids = {
            part: max(integer(cpu.get(f"{part}_id"), UNKNOWN, f"{WHAT}: cpu {part}_id"), UNKNOWN)
            for part in ("socket", "die", "cluster", "core")
        }
        number = integer(cpu.get("id"), UNKNOWN, f"{WHAT}: cpu id")
        if not 0 <= number < MAX_CPUS:
            raise DevicevmError(f"{WHAT}: a cpu has the id {cpu.get('id')!r}")
        yield RawCpu(id=number, cell=node, siblings=parse_cpuset(cpu.get("siblings", "")), **ids)


def _nodes(cells: list[ET.Element], cpus: tuple[Cpu, ...]) -> tuple[Node, ...]:
    nodes: dict[int, Node] = {}
    for cell in cells:
        number = integer(cell.get("id"), 0, f"{WHAT}: cell id")
        nodes.setdefault(number, _node(cell, number, tuple(cpu.id for cpu in cpus if cpu.node == number)))
    return tuple(nodes[number] for number in sorted(nodes))


def _node(cell: ET.Element, number: int, cpus: tuple[int, ...]) -> Node:
    memory = cell.find("memory")
    pages = {_page_size(pages): integer(pages.text, 0, f"{WHAT}: pages") for pages in cell.findall("pages")}
    # The smallest page is the ordinary one; the others are pools that were set aside.
    ordinary = min(pages, default=0)
    return Node(
        id=number,
        memory=scaled_bytes(memory.text, memory.get("unit"), f"{WHAT}: cell memory") if memory is not None else 0,
        cpus=cpus,
        distances={
            sibling.get("id", ""): integer(sibling.get("value"), 0, f"{WHAT}: distance")
            for sibling in cell.findall("distances/sibling")
        },
        huge_pages={str(size): count for size, count in sorted(pages.items()) if size != ordinary},
    )


def _page_size(pages: ET.Element) -> int:
    return scaled_bytes(pages.get("size"), pages.get("unit"), f"{WHAT}: page size")


def _microcode(cpu: ET.Element) -> int:
    microcode = cpu.find("microcode")
    return integer(microcode.get("version"), 0, f"{WHAT}: microcode") if microcode is not None else 0


def _counted(cpu: ET.Element) -> int:
    """The number of CPUs by `<topology sockets= dies= cores= threads=>`; 0 when it is not there."""
    topology = cpu.find("topology")
    if topology is None:
        return 0
    count = 1
    for part in ("sockets", "dies", "clusters", "cores", "threads"):
        count = _bounded(count * integer(topology.get(part), 1, f"{WHAT}: topology {part}"))
    return count


def _bounded(count: int) -> int:
    if not 0 <= count <= MAX_CPUS:
        raise DevicevmError(f"{WHAT}: {count} CPUs", hint=f"libvirt knows 0 to {MAX_CPUS}")
    return count


def _caches(banks: list[ET.Element]) -> tuple[CacheBank, ...]:
    return tuple(
        CacheBank(
            id=integer(bank.get("id"), 0, f"{WHAT}: cache id"),
            level=integer(bank.get("level"), 0, f"{WHAT}: cache level"),
            kind=bank.get("type", ""),
            size=scaled_bytes(bank.get("size"), bank.get("unit"), f"{WHAT}: cache size", "b"),
            cpus=parse_cpuset(bank.get("cpus", "")),
        )
        for bank in banks
    )


def _guest(guest: ET.Element) -> GuestKind:
    arch = guest.find("arch")
    if arch is None:
        return GuestKind(arch="", os_type=stripped(guest.findtext("os_type")), accelerators=())
    domains = arch.findall("domain")
    # A domain type may have machines of its own (an emulator with KVM beside one without); any will do here.
    machines = [*arch.findall("machine"), *(machine for one in domains for machine in one.findall("machine"))]
    return GuestKind(
        arch=arch.get("name", ""),
        os_type=stripped(guest.findtext("os_type")),
        accelerators=tuple(dict.fromkeys(accelerator_name(domain.get("type", "")) for domain in domains)),
        emulator=stripped(arch.findtext("emulator") or arch.findtext("domain/emulator")),
        machines=tuple(dict.fromkeys(stripped(machine.text) for machine in machines)),
    )
