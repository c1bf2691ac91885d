"""The user's own piece of domain XML (`spec.vm.domainXML`), merged into the domain that devicevm made.

Rules (docs/vmm-drivers.md): a child of `<domain>` that is there already is merged, attribute by attribute and child
by child; one that is not is added; `<devices>` only grows, except that a controller replaces devicevm's of
the same type and index. Identity and metadata stay devicevm's.
"""

from __future__ import annotations

from copy import deepcopy
from xml.etree.ElementTree import Element

from ...errors import DevicevmError
from .device_vm_xml import QEMU_NAMESPACE
from .element import parse

OURS = ("name", "uuid", "metadata")
MANY = frozenset({
    "vcpupin", "iothreadpin", "vcpusched", "memnode", "feature", "entry", "initarg", "boot", "timer",
    f"{{{QEMU_NAMESPACE}}}arg", f"{{{QEMU_NAMESPACE}}}env",
})  # fmt: skip
"""Elements that may occur several times below one parent: they are added, never merged."""


def parse_fragment(text: str, name: str) -> Element:
    """The fragment's root; DevicevmError with the line when it is malformed, or says what only devicevm can say."""
    what = f"domainXML of {name}"
    root = parse(text, what)
    if root.tag != "domain":
        raise DevicevmError(f"{what}: <domain> expected, <{root.tag}> found", hint="wrap it in <domain>...</domain>")
    for tag in OURS:
        if root.find(tag) is not None:
            raise DevicevmError(f"{what}: <{tag}> cannot be set", hint="devicevm gives a domain its name and metadata")
    return root


def merge(domain: Element, fragment: Element) -> None:
    """Merge `fragment` into `domain`, in place."""
    for key, value in fragment.attrib.items():
        domain.set(key, value)
    for child in fragment:
        mine = domain.find(child.tag)
        if child.tag == "devices" and mine is not None:
            _merge_devices(mine, child)
        elif mine is None or child.tag in MANY:
            domain.append(deepcopy(child))
        else:
            _merge_element(mine, child)


def without_overridden(domain: Element, fragment: Element) -> None:
    """Take from `domain`, in place, what the fragment has its own say about: only the rest can be checked for drift."""
    touched = {child.tag for child in fragment if child.tag != "devices"}
    for child in [child for child in domain if child.tag in touched]:
        domain.remove(child)
    theirs = fragment.find("devices")
    mine = domain.find("devices")
    if theirs is not None and mine is not None:
        _drop_replaced(mine, theirs)


def _merge_devices(mine: Element, theirs: Element) -> None:
    _drop_replaced(mine, theirs)
    mine.extend(deepcopy(list(theirs)))


def _drop_replaced(mine: Element, theirs: Element) -> None:
    replaced = {_controller(item) for item in theirs.iter("controller")}
    singletons = {item.tag for item in theirs if item.tag in ("memballoon", "emulator")}
    for item in list(mine):
        if item.tag in singletons or (item.tag == "controller" and _controller(item) in replaced):
            mine.remove(item)


def _controller(item: Element) -> tuple[str, str]:
    return item.get("type", ""), item.get("index", "0")


def _merge_element(mine: Element, theirs: Element) -> None:
    for key, value in theirs.attrib.items():
        mine.set(key, value)
    if theirs.text and theirs.text.strip():
        mine.text = theirs.text
    for child in theirs:
        same = mine.find(child.tag)
        if same is None or child.tag in MANY:
            mine.append(deepcopy(child))
        else:
            _merge_element(same, child)
