"""A DomainSpec as libvirt's domain XML. Pure: the same spec gives the same document, byte for byte.

Format: https://libvirt.org/formatdomain.html; every document validates against libvirt's domain.rng (tests).
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from ...domain import CpuPlacement, DomainSpec, Role
from ...errors import DevicevmError
from ...inventory.cpuset import format_cpuset
from . import client_xml, device_vm_xml, fragment, metadata, title
from .element import add, element

DOMAIN_TYPES = {"tcg": "qemu", "kvm": "kvm", "test": "test"}
"""Accelerator (inventory) -> the domain's type in libvirt's words."""


HEAD = 4
"""Elements before `<metadata>`: name, UUID, title and description, which is where people look for it."""


def domain_xml(spec: DomainSpec, state: str) -> Element:
    """The whole `<domain>`: what devicevm asks for, the user's own fragment merged into it.

    `state` is the VMM's state directory on the host (places.py): overlays are in it.
    """
    domain = base_xml(spec, state)
    kept = element("metadata")
    kept.append(metadata.qualified(spec))
    domain.insert(HEAD, kept)
    if spec.domain_xml:
        fragment.merge(domain, fragment.parse_fragment(spec.domain_xml, spec.name))
    return domain


def base_xml(spec: DomainSpec, state: str) -> Element:
    """The `<domain>` without the user's fragment and without metadata: what drift is measured by."""
    if spec.accelerator not in DOMAIN_TYPES:
        raise DevicevmError(
            f"{spec.name}: accelerator {spec.accelerator!r} is unknown to this driver",
            hint=f"known accelerators: {', '.join(sorted(DOMAIN_TYPES))}",
        )
    domain = element("domain", type=DOMAIN_TYPES[spec.accelerator])
    add(domain, "name", spec.name)
    add(domain, "uuid", spec.uuid)
    add(domain, "title", title.title(spec))
    add(domain, "description", title.description(spec))
    add(domain, "memory", str(-(-spec.memory // 1024)), unit="KiB")
    if spec.page_size:
        pages = add(add(domain, "memoryBacking"), "hugepages")
        add(pages, "page", size=str(spec.page_size // 1024), unit="KiB")
    add(domain, "vcpu", str(spec.vcpus), placement="static")
    _add_placement(domain, spec.placement)
    if spec.role is Role.DEVICE_VM:
        device_vm_xml.add_machine(domain, spec)
        device_vm_xml.add_devices(add(domain, "devices"), spec, f"{state}/clients")
    else:
        if spec.host_devices:
            raise DevicevmError(
                f"{spec.name} is a client: devices of the host are for device VMs",
                hint="give a client one by a <hostdev> in its domainXML",
            )
        client_xml.add_machine(domain, spec)
        client_xml.add_devices(add(domain, "devices"), spec, f"{state}/clients")
    if spec.accelerator != "test":  # where no QEMU runs
        words = device_vm_xml.arguments if spec.role is Role.DEVICE_VM else client_xml.arguments
        device_vm_xml.add_arguments(domain, words(spec))
    return domain


def _add_placement(domain: Element, placement: CpuPlacement) -> None:
    if any(placement.vcpus) or placement.emulator:
        tune = add(domain, "cputune")
        for number, cpus in enumerate(placement.vcpus):
            if cpus:
                add(tune, "vcpupin", vcpu=str(number), cpuset=format_cpuset(cpus))
        if placement.emulator:
            add(tune, "emulatorpin", cpuset=format_cpuset(placement.emulator))
    if placement.nodes:
        # strict: memory of another node would be a silent breach of what the plan promised.
        add(add(domain, "numatune"), "memory", mode="strict", nodeset=format_cpuset(placement.nodes))
