"""What a domain holds of its host, read from its XML: devicevm's domains and anybody's alike.

Format: https://libvirt.org/formatdomain.html. Observing many domains costs little more than libvirt's XML
itself: each text is parsed once and only the few elements that matter are looked up.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace

from .cpuset import parse_cpuset
from .document import integer, parse_document, pci_address, scaled_bytes, stripped
from .host import Holding
from .moved import floating_threads, is_settled, moved_from_element, without_moves

NAMESPACE = "urn:devicevm:v1"
DOMAIN_TAG = f"{{{NAMESPACE}}}domain"
ALLOCATION_TAG = f"{{{NAMESPACE}}}allocation"
# In these modes the memory comes from the nodes of the set and from no other.
_BINDING_MODES = ("strict", "restrictive")


def holding_from_xml(definition: str, live: str = "", host_cpus: frozenset[int] = frozenset()) -> Holding:
    """The Holding of a domain's XML; `live` is empty for one that does not run. See holding_from_element."""
    defined = holding_from_element(parse_document(definition, ("domain",), "domain"), bool(live), host_cpus)
    if not live:
        return defined
    return _together(defined, holding_from_element(parse_document(live, ("domain",), "domain"), True, host_cpus))


def holding_from_element(root: ET.Element, active: bool, host_cpus: frozenset[int] = frozenset()) -> Holding:
    """What the domain may take at most: all its vCPUs, and `memory` rather than `currentMemory`.

    A pin on all of `host_cpus` (or more) is none, unless devicevm dedicated them to the domain; where the
    host's CPUs are not given, every pin counts.
    The domain floats when one of its vCPUs has no pin. DevicevmError names the domain whose XML makes no sense.
    """
    name = stripped(root.findtext("name"))
    what = f"domain {name}"
    vcpus = _vcpus(root.find("vcpu"), what)
    ours, moved = _ours(root), moved_from_element(root)
    there, root = root, without_moves(root, moved)
    cpus, floats = _pins(root, vcpus, frozenset() if ours.dedicated else host_cpus, what, ours.emulator_elsewhere)
    if ours.floats:
        cpus, floats = (), True
    settled = moved and is_settled(there, moved, floating_threads(root, vcpus, host_cpus))
    return Holding(
        domain=name,
        uuid=stripped(root.findtext("uuid")),
        active=active,
        vcpus=vcpus,
        memory=max(_memory(root.find("memory"), what), _memory(root.find("currentMemory"), what)),
        cpus=tuple(sorted({*cpus, *ours.idle})) if ours.idle else cpus,
        floats=floats,
        dedicated=ours.dedicated,
        nodes=_memory_nodes(root.find("numatune")),
        node_devices=_node_devices(root.find("devices"), what),
        owner=ours.owner,
        page_size=_page_size(root, what),
        moved_by=moved.owner if moved else "",
        moved_to=moved.cpus if moved and settled else (),
    )


def _together(defined: Holding, now: Holding) -> Holding:
    """What a running domain holds: what it has now, which may have been changed while it runs, and what it would take
    at its next start. Its memory is where it is now."""
    return replace(
        now,
        vcpus=max(defined.vcpus, now.vcpus),
        memory=max(defined.memory, now.memory),
        cpus=tuple(sorted({*defined.cpus, *now.cpus})),
        floats=defined.floats or now.floats,
        dedicated=defined.dedicated or now.dedicated,
        node_devices=tuple(sorted({*defined.node_devices, *now.node_devices})),
        owner=defined.owner or now.owner,
        moved_by=defined.moved_by or now.moved_by,
        moved_to=now.moved_to if now.moved_to == defined.moved_to else (),
    )


def _vcpus(vcpu: ET.Element | None, what: str) -> int:
    return max(integer(vcpu.text, 1, f"{what}: vcpu"), 1) if vcpu is not None else 1


def _memory(element: ET.Element | None, what: str) -> int:
    """Bytes, rounded up to KiB: libvirt's own unit for domains (virDomainParseMemory)."""
    if element is None:
        return 0
    return -(-scaled_bytes(element.text, element.get("unit"), f"{what}: memory") // 1024) * 1024


def _pins(
    root: ET.Element, vcpus: int, host_cpus: frozenset[int], what: str, emulator_elsewhere: bool
) -> tuple[tuple[int, ...], bool]:
    """All CPUs that threads of the domain are pinned to, and whether a vCPU is left without a pin.

    `<vcpu cpuset=>` is the pin of every thread that has none of its own. With `emulator_elsewhere`, those of the VMM's
    own threads are left out.
    """
    vcpu = root.find("vcpu")
    general = _pin(vcpu.get("cpuset") if vcpu is not None else None, host_cpus)
    tune = root.find("cputune")
    if tune is None:
        return tuple(sorted(general)), not general
    own = {integer(pin.get("vcpu"), 0, what): _pin(pin.get("cpuset"), host_cpus) for pin in tune.findall("vcpupin")}
    threads = [pin for number, pin in own.items() if number < vcpus]
    if len(threads) < vcpus:
        threads.append(general)
    apart = () if emulator_elsewhere else (*tune.findall("emulatorpin"), *tune.findall("iothreadpin"))
    others = [_pin(pin.get("cpuset"), host_cpus) for pin in apart]
    cpus = frozenset[int]().union(*threads, *others)
    return tuple(sorted(cpus)), not all(threads)


def _pin(cpuset: str | None, host_cpus: frozenset[int]) -> frozenset[int]:
    cpus = frozenset(parse_cpuset(cpuset)) if cpuset else frozenset[int]()
    return frozenset() if host_cpus and cpus >= host_cpus else cpus


def _memory_nodes(numatune: ET.Element | None) -> tuple[int, ...]:
    """The NUMA nodes that all memory of the domain comes from; empty when it may come from anywhere."""
    if numatune is None:
        return ()
    general = numatune.find("memory")
    rules = [general] if general is not None else numatune.findall("memnode")
    if not rules or any(rule.get("mode", "strict") not in _BINDING_MODES for rule in rules):
        return ()
    return tuple(sorted({node for rule in rules for node in parse_cpuset(rule.get("nodeset", ""))}))


def _node_devices(devices: ET.Element | None, what: str) -> tuple[str, ...]:
    """Addresses of the host's devices that the domain is given, written as NodeDevice.address."""
    if devices is None:
        return ()
    # A PCI function can also be given as a network interface or as an NVMe disk.
    sources = [*devices.findall("hostdev/source"), *devices.findall("interface[@type='hostdev']/source")]
    sources += devices.findall("disk[@type='nvme']/source")
    found = (_device_address(address, what) for source in sources for address in source.findall("address"))
    return tuple(sorted({address for address in found if address}))


def _device_address(address: ET.Element, what: str) -> str:
    if "uuid" in address.attrib:
        return address.get("uuid", "").lower()
    if "slot" in address.attrib:
        return pci_address(address, what)
    if "device" in address.attrib:
        bus, device = (integer(address.get(part), 0, f"{what}: USB {part}") for part in ("bus", "device"))
        return f"usb:{bus}:{device}"
    return ""


def _page_size(root: ET.Element, what: str) -> int:
    """Bytes of the huge pages of the domain's memory; 0 where it has none, or the host's default size."""
    page = root.find("memoryBacking/hugepages/page")
    return 0 if page is None else scaled_bytes(page.get("size"), page.get("unit", "KiB"), f"{what}: page size")


@dataclass(frozen=True)
class _Ours:
    """What devicevm's metadata says: owner, dedication, CPUs that stay empty, whether the VMM's own threads run on
    CPUs that are not the domain's, and whether its pins only keep it off others'."""

    owner: str = ""
    dedicated: bool = False
    idle: tuple[int, ...] = ()
    emulator_elsewhere: bool = False
    floats: bool = False


def _ours(root: ET.Element) -> _Ours:
    ours = root.find(f"metadata/{DOMAIN_TAG}")
    if ours is None:
        return _Ours()
    allocation = ours.find(ALLOCATION_TAG)
    if allocation is None:
        return _Ours(ours.get("owner", ""))
    return _Ours(
        ours.get("owner", ""),
        allocation.get("dedicated") == "yes",
        tuple(parse_cpuset(allocation.get("idle", ""))),
        allocation.get("emulator") == "elsewhere",
        allocation.get("floats") == "yes",
    )
