"""A host's inventory as people read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..inventory.blocks import KINDS, BlockRequest, match_blocks
from ..inventory.cpuset import format_cpuset
from ..inventory.free import CpuUse, Free, free
from ..inventory.host import Holding, Host, NodeDevice
from . import output

ACCELERATORS = "0x12"
"""PCI class of processing accelerators, FPGAs among them."""


def show_host(host: Host) -> None:
    """The whole inventory on standard output."""
    view = free(host)
    _show_facts(host, view)
    _show_cores(view)
    _show_nodes(host, view)
    _section(
        "Domains that hold something",
        ("domain", "owner", "state", "cpus", "memory", "devices"),
        map(_holding, host.holdings),
    )
    _section("Images", ("image", "digest", "kernel"), [(i.name, i.digest[:12], i.kernel_version) for i in host.images])
    _section(
        "Blocks",
        ("block", "kind", "vendor:product", "class", "node", "group", "held by"),
        [row for kind in KINDS for row in _blocks(host, view, kind)],
    )
    devices = [device for device in host.node_devices if device.vendor or device.mdev_types]
    _section(
        "Devices",
        ("device", "address", "vendor:product", "class", "driver", "group", "held by"),
        [_device(device, view) for device in devices],
    )


def _show_facts(host: Host, view: Free) -> None:
    versions = [f"{host.vmm.driver} {host.vmm.version}".strip()]
    if host.vmm.libvirt_version:
        versions.append(f"libvirt {host.vmm.libvirt_version}")
    model = " ".join(filter(None, (host.cpu_vendor, host.cpu_model)))
    facts = {
        "Host": f"{host.name} ({host.arch})",
        "VMM": f"{host.vmm.uri or 'recorded'}, {', '.join(versions)}",
        "Accelerator": host.accelerator or "not probed",
        "Supports": ", ".join(host.vmm.supports) or "unknown",
        "Processor": f"{model or 'unknown'}, {len(host.cpu_features)} features",
        "CPUs": f"{len(view.cpus)}; vacant: {len(view.vacant_cpus())} CPUs, {len(view.vacant_cores())} whole cores, "
        f"{len(view.vacant_sockets())} whole sockets; not pinned: {view.floating} vCPUs",
        "Memory": f"{output.size(host.memory)}, {output.size(view.memory)} not promised to any domain",
    }
    if host.microcode:
        facts["Microcode"] = hex(host.microcode)
    width = max(map(len, facts)) + 1
    for name, value in facts.items():
        output.line(f"{name + ':':<{width}} {value}")
    output.line()


def _show_cores(view: Free) -> None:
    """Cores of one socket that the same domains use are one row: a big host has hundreds."""
    cores: dict[tuple[int, int, str], list[CpuUse]] = {}
    for cpu in view.cpus:
        cores.setdefault((cpu.node, cpu.socket, cpu.core), []).append(cpu)
    alike: dict[tuple[int, int, int, str], list[list[CpuUse]]] = {}
    for (node, socket, _), cpus in cores.items():
        alike.setdefault((node, socket, len(cpus), _use(cpus)), []).append(cpus)
    rows = [
        (
            str(node),
            str(socket),
            str(len(group)),
            str(threads),
            format_cpuset(cpu.id for cpus in group for cpu in cpus),
            use,
        )
        for (node, socket, threads, use), group in sorted(alike.items(), key=lambda item: item[1][0][0].id)
    ]
    _section("Cores", ("node", "socket", "cores", "threads each", "cpus", "used by"), rows)


def _show_nodes(host: Host, view: Free) -> None:
    rows = [
        (
            str(node.id),
            format_cpuset(node.cpus),
            output.size(node.memory),
            output.size(view.memory_on((node.id,))),
            ", ".join(f"{count} of {output.size(int(size))}" for size, count in node.huge_pages.items() if count),
        )
        for node in host.nodes
    ]
    _section("NUMA nodes", ("node", "cpus", "memory", "free", "huge pages"), rows)


def _use(cpus: list[CpuUse]) -> str:
    words = set()
    for cpu in cpus:
        if cpu.reserved:
            words.add("reserved")
        elif cpu.dedicated_to:
            words.add(f"{', '.join(cpu.dedicated_to)} alone")
        elif cpu.pinned_by:
            words.add(", ".join(cpu.pinned_by))
    return "; ".join(sorted(words)) or "nobody"


def _holding(one: Holding) -> tuple[str, ...]:
    cpus = format_cpuset(one.cpus) + (" alone" if one.dedicated else "") if one.cpus else f"{one.vcpus} vCPUs anywhere"
    state = "running" if one.active else "stopped"
    return one.domain, one.owner, state, cpus, output.size(one.memory), ", ".join(one.node_devices)


def _device(device: NodeDevice, view: Free) -> tuple[str, ...]:
    ids = ":".join(filter(None, (device.vendor, device.product)))
    group = str(device.iommu_group) if device.iommu_group >= 0 else ""
    holder = view.node_devices.get(device.address, "nobody")
    return device.name, device.address, ids, device.class_code, device.driver, group, holder


def _blocks(host: Host, view: Free, kind: str) -> list[tuple[str, ...]]:
    """The reconfigurable blocks of a kind: free ones with all that goes along, the others with why they cannot be had.

    Of PCI functions only those that say of themselves that they are accelerators: every one could be given away.
    """
    class_code = "" if kind == "mdev" else ACCELERATORS
    answer = match_blocks(host.node_devices, BlockRequest(kind=kind, class_code=class_code), view.node_devices)
    found = [(block.matched[0], ", ".join(block.addresses), block.node, "nobody") for block in answer.blocks]
    found += [(refusal.address, refusal.address, -1, refusal.reason) for refusal in answer.refusals]
    by_address = {device.address: device for device in host.node_devices if device.address}
    rows = []
    for address, addresses, node, state in found:
        device = by_address[address]
        ids = ":".join(filter(None, (device.vendor, device.product)))
        numbers = (max(node, device.node), device.iommu_group)
        places = (str(number) if number >= 0 else "" for number in numbers)
        rows.append((addresses, kind, ids, device.class_code, *places, state.removeprefix("is held by ")))
    return rows


def _section(heading: str, headings: tuple[str, ...], rows: Iterable[Sequence[str]]) -> None:
    found = list(rows)
    if not found:
        return
    output.line(heading, "bold")
    output.table(headings, found)
    output.line()
