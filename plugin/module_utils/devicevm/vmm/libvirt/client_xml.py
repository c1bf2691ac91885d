"""A client VM in libvirt's XML: an ordinary machine whose devices device VMs emulate."""

from __future__ import annotations

from collections import Counter
from xml.etree.ElementTree import Element

from ...channel.registry import channel_kind, check_address
from ...domain import Attachment, DomainSpec
from ...errors import DevicevmError
from ...frontend.frontend import Frontend
from ...frontend.registry import frontend_named
from .device_vm_xml import add_console, add_kernel, pci_bus
from .element import add
from .firmware_xml import X86
from .image_xml import add_image_disk, add_system, overlay_path

SPARE_PORTS = 4
"""PCIe root ports left free on q35: a running client can be given that many devices more."""


def add_machine(domain: Element, spec: DomainSpec) -> None:
    """Firmware and what is booted. A reboot is a reboot here: the client is the user's."""
    add_kernel(add_system(domain, spec), spec)
    if spec.arch in X86:
        features = add(domain, "features")
        add(features, "acpi")
        add(features, "apic")
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        add(domain, event, action)


def add_devices(devices: Element, spec: DomainSpec, overlays: str) -> None:
    """Controllers, console, the image's disk, and a front end for each attachment."""
    chosen = _front_ends(spec)
    _add_controllers(devices, spec, [frontend for attachment, frontend, number in chosen])
    add_console(devices, spec)
    if spec.boot.image:
        add_image_disk(devices, overlay_path(spec, overlays))
    booted = False
    for attachment, frontend, number in chosen:
        boots = attachment.name == spec.boot.device and frontend.protocol == "nbd"
        booted = booted or boots
        for item in frontend.elements(attachment, number):
            if boots:
                add(item, "boot", order="1")
            devices.append(item)
    if spec.boot.device and not booted:
        raise DevicevmError(f"{spec.name} boots from {spec.boot.device!r}, which is no disk of its")
    add(devices, "memballoon", model="none")


def arguments(spec: DomainSpec) -> list[str]:
    """What of a client's devices libvirt has no words for, as QEMU's arguments."""
    bus = pci_bus(spec.machine)
    words: list[str] = []
    for attachment, frontend, number in _front_ends(spec):
        if frontend.arguments:
            words += frontend.arguments(attachment, number, bus, attachment.name == spec.boot.device)
    return words


def _front_ends(spec: DomainSpec) -> list[tuple[Attachment, Frontend, int]]:
    """Each attachment, its front end, and its number among those that are numbered together."""
    counters: Counter[str] = Counter({"vd": 1} if spec.boot.image else {})
    found = []
    for attachment in spec.attachments:
        frontend = frontend_of(spec, attachment)
        number = frontend.first + counters[frontend.numbering]
        counters[frontend.numbering] += 1
        if number > frontend.last:
            room = frontend.last - frontend.first + 1
            raise DevicevmError(
                f"{spec.name}: {attachment.name} is {frontend.name} number {room + 1}, a machine has room for {room}"
            )
        found.append((attachment, frontend, number))
    return found


def frontend_of(spec: DomainSpec, attachment: Attachment) -> Frontend:
    """The front end of an attachment; DevicevmError when there is none that fits its channel."""
    frontend = frontend_named(attachment.frontend)
    channel_kind(attachment.channel.kind)
    check_address(attachment.channel.address)
    if attachment.channel.kind not in frontend.channels:
        raise DevicevmError(
            f"{spec.name}: {attachment.name} is {frontend.name}, which has no {attachment.channel.kind} channel",
            hint=f"it has {', '.join(frontend.channels)}",
        )
    return frontend


def _add_controllers(devices: Element, spec: DomainSpec, frontends: list[Frontend]) -> None:
    needed = dict.fromkeys(pair for frontend in frontends for pair in frontend.controllers)
    if "usb" not in (kind for kind, model in needed):
        add(devices, "controller", type="usb", index="0", model="none")
    if spec.machine == "q35" or spec.machine.startswith("pc-q35-"):
        ports = sum(frontend.ports for frontend in frontends) + len(needed) + bool(spec.boot.image)
        for index in range(1, 1 + ports + SPARE_PORTS):
            add(devices, "controller", type="pci", index=str(index), model="pcie-root-port")
    for kind, model in needed:
        add(devices, "controller", type=kind, index="0", model=model)
