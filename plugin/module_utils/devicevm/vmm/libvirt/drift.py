"""Drift: is everything that was asked for still there? Pure.

libvirt adds defaults, addresses and aliases of its own, so this is containment: each element asked for must be found,
with the same text and attributes. Devices are matched by what identifies them (target, port, type and index), so that
the message can say what changed and not only that something did.
"""

from __future__ import annotations

from collections import Counter
from xml.etree.ElementTree import Element

from ...errors import DevicevmError
from ...inventory.cpuset import parse_cpuset
from ...quantity import format_bytes
from .device_vm_xml import QEMU_NAMESPACE
from .hostdev_xml import hostdev_address

UNITS = {"b": 1, "bytes": 1, "KB": 10**3, "k": 2**10, "KiB": 2**10, "MB": 10**6, "M": 2**20, "MiB": 2**20}
UNITS |= {"GB": 10**9, "G": 2**30, "GiB": 2**30, "TB": 10**12, "T": 2**40, "TiB": 2**40}
ELSEWHERE = ("metadata", "devices", "name", "uuid")
"""Not compared here: metadata has its digest, and the domain was found by its name and UUID."""
_WHERE = {"rng": ("backend/source", "path", "rng on"), "interface": ("mac", "address", "interface")}
"""What identifies devices of a tag: an attribute of an element below them, and the words before it."""
AT_START = ("os", "sysinfo", "title", "description", "cpu", f"{{{QEMU_NAMESPACE}}}commandline")


def drift(rendered: Element, actual: Element, *, live: bool = False) -> tuple[str, ...]:
    """What of `rendered` (the domain asked for) is not so in `actual` (the domain as the VMM has it), readably.

    `live`: `actual` is a running domain; what counts at the next start only (boot, firmware, title) is left out, and
    so is the CPU, of which libvirt then tells what QEMU made of it.
    """
    found: list[str] = []
    for want in rendered:
        if want.tag in ELSEWHERE or (live and want.tag in AT_START):
            continue
        check = _CHECKS.get(want.tag, _check_generic)
        found += check(want, actual.find(want.tag))
    wanted, present = rendered.find("devices"), actual.find("devices")
    if wanted is not None:
        found += _check_devices(wanted, present if present is not None else Element("devices"), live)
    return tuple(found)


def memory_bytes(item: Element | None) -> int:
    """Bytes of a `<memory unit='KiB'>`; 0 for none, -1 for an unreadable one."""
    if item is None:
        return 0
    text = (item.text or "").strip()
    unit = UNITS.get(item.get("unit", "KiB"))
    return int(text) * unit if unit and text.isdecimal() and len(text) < 20 else -1


def _check_memory(want: Element, have: Element | None) -> list[str]:
    wanted, present = memory_bytes(want), memory_bytes(have)
    return [] if wanted == present else [f"memory is {format_bytes(max(present, 0))}, declared {format_bytes(wanted)}"]


def _check_vcpu(want: Element, have: Element | None) -> list[str]:
    # `current` is how many of the vCPUs are there now: virsh setvcpus changes that one.
    present = "" if have is None else have.get("current", have.text or "").strip()
    return [] if want.text == present else [f"vcpus are {present or 'none'}, declared {want.text}"]


def _check_cputune(want: Element, have: Element | None) -> list[str]:
    found = []
    pins = {_pin_name(item): item.get("cpuset", "") for item in (have if have is not None else ())}
    for item in want:
        name, wanted = _pin_name(item), item.get("cpuset", "")
        present = pins.get(name, "")
        if not _same_cpus(wanted, present):
            found.append(f"{name} is pinned to {present or 'nothing'}, declared {wanted}")
    return found


def _pin_name(item: Element) -> str:
    return f"vcpu {item.get('vcpu')}" if item.tag == "vcpupin" else item.tag.removesuffix("pin")


def _same_cpus(wanted: str, present: str) -> bool:
    if wanted == present:
        return True
    try:
        return parse_cpuset(wanted) == parse_cpuset(present)
    except DevicevmError:
        return False


def _check_numatune(want: Element, have: Element | None) -> list[str]:
    wanted = want.find("memory")
    present = have.find("memory") if have is not None else None
    nodes = "" if present is None else present.get("nodeset", "")
    if wanted is None or _same_cpus(wanted.get("nodeset", ""), nodes):
        return []
    return [f"memory is on NUMA nodes {nodes or 'any'}, declared {wanted.get('nodeset')}"]


def _check_os(want: Element, have: Element | None) -> list[str]:
    found = []
    for item in want:
        present = have.find(item.tag) if have is not None else None
        if item.tag == "type":
            found += _check_machine(item, present)
        elif item.tag != "firmware":
            found += _differences(item, present, f"os {item.tag}")
    if want.get("firmware") and have is not None and have.get("firmware") != want.get("firmware"):
        found.append(f"firmware is {have.get('firmware', 'bios')}, declared {want.get('firmware')}")
    return found


def _check_machine(want: Element, have: Element | None) -> list[str]:
    wanted, present = want.get("machine", ""), "" if have is None else have.get("machine", "")
    # libvirt writes the versioned machine that an alias stands for: pc -> pc-i440fx-7.2, q35 -> pc-q35-7.2.
    versions = ("pc-i440fx-",) if wanted == "pc" else (f"{wanted}-", f"pc-{wanted}-")
    found = [] if present == wanted or present.startswith(versions) else [f"machine is {present}, declared {wanted}"]
    arch = "" if have is None else have.get("arch", "")
    return found if arch == want.get("arch") else [*found, f"arch is {arch}, declared {want.get('arch')}"]


def _check_generic(want: Element, have: Element | None) -> list[str]:
    return _differences(want, have, want.tag)


_CHECKS = {
    "memory": _check_memory,
    "vcpu": _check_vcpu,
    "cputune": _check_cputune,
    "numatune": _check_numatune,
    "os": _check_os,
}


def _check_devices(wanted: Element, present: Element, live: bool) -> list[str]:
    found: list[str] = []
    by_key = {key: item for item in present if (key := device_key(item))}
    ports: Counter[str] = Counter(item.get("model", "") for item in present if item.get("type") == "pci")
    asked: Counter[str] = Counter()
    for want in wanted:
        if want.tag == "controller" and (live or want.get("type") == "pci"):
            asked[want.get("model", "")] += want.get("type") == "pci"
            continue
        key = device_key(want)
        have = by_key.get(key) if key else next((item for item in present if contains(item, want)), None)
        found += _differences(_without_target(want) if live else want, have, key or want.tag)
    for model, count in asked.items():
        if ports[model] < count and not live:
            found.append(f"{model} controllers are {ports[model]}, declared {count}")
    return found


def device_key(item: Element) -> str:
    """What identifies a device in words; empty for a kind that has nothing of the sort."""
    target = item.find("target")
    if item.tag == "disk" and item.find("serial") is not None:
        return f"disk with serial number {item.findtext('serial')}"
    if item.tag == "disk" and target is not None:
        return f"disk {target.get('dev')}"
    if item.tag == "channel" and target is not None:
        return f"channel {target.get('name')}"
    if item.tag == "serial":
        # The test driver leaves ports as they are, and a port that is not said is 0.
        return f"serial {'0' if target is None else target.get('port', '0')}"
    if item.tag == "controller":
        return f"{item.get('type')} controller {item.get('index', '0')}"
    if item.tag in _WHERE:
        below, attribute, words = _WHERE[item.tag]
        found = item.find(below)
        return "" if found is None else f"{words} {found.get(attribute)}"
    if item.tag == "hostdev":
        address = hostdev_address(item)
        return f"host device {address}" if address else ""
    return item.tag if item.tag == "memballoon" else ""


def _without_target(want: Element) -> Element:
    """A disk that was attached while the domain ran took the target, and its name, that were free then."""
    if want.tag != "disk":
        return want
    copy = Element(want.tag, want.attrib)
    copy.extend(child for child in want if child.tag not in ("target", "address"))
    return copy


def contains(have: Element, want: Element) -> bool:
    """Whether `have` has all of `want`: its attributes, its text, and each child in one of its children."""
    return not _differences(want, have, "")


def _differences(want: Element, have: Element | None, where: str) -> list[str]:
    if have is None or have.tag != want.tag:
        return [f"{where} is missing"]
    found = [
        f"{where}: {key} is {have.get(key, 'not set')}, declared {value}"
        for key, value in want.attrib.items()
        if have.get(key) != value
    ]
    wanted, present = (want.text or "").strip(), (have.text or "").strip()
    if wanted and wanted != present:
        found.append(f"{where} is {_short(present)}, declared {_short(wanted)}")
    for child in want:
        same = [item for item in have if item.tag == child.tag]
        if not any(contains(item, child) for item in same):
            found += _differences(child, same[0] if len(same) == 1 else None, f"{where} {child.tag}".strip())
    return found


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
