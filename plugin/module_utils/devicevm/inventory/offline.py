"""A Host from documents: the same function for saved files and for a live VMM's answers. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from .capabilities import Capabilities, parse_capabilities
from .domcapabilities import parse_domain_capabilities
from .holdings import holding_from_xml
from .host import GuestKind, Holding, Host, ImageFacts, NodeDevice, Vmm
from .nodedevices import parse_node_device

_DRIVERS = {"xen": "Xen", "test": "Test"}


def host_from_documents(  # noqa: PLR0913 - each is a document of its own, by keyword
    capabilities: str,
    *,
    name: str,
    domain_capabilities: Iterable[str] = (),
    node_devices: Iterable[str] = (),
    domains: Iterable[tuple[str, str] | Holding] = (),
    images: Iterable[ImageFacts] = (),
    vmm: Vmm | None = None,
    accelerator: str = "",
    cpu_count: int = 0,
    memory: int = 0,
) -> Host:
    """The inventory of a host from libvirt's XML documents.

    `domains` holds (definition, live XML) of every domain, the latter empty for one that does not run; or a Holding
    where the caller has parsed the XML already (give holding_from_element the host's CPUs then, as this function does).
    `cpu_count` and `memory` (bytes) add what the capabilities leave out: see parse_capabilities. Without `vmm` the
    driver is guessed from the accelerators. `accelerator` is what was seen to work (vmm/accelerator.py); "" = not
    probed.
    DevicevmError when a document is not what it should be. Lists come out sorted: order of input does not matter.
    """
    found = parse_capabilities(capabilities, cpu_count=cpu_count, memory=memory)
    host_cpus = frozenset(cpu.id for cpu in found.cpus)
    holdings = (one if isinstance(one, Holding) else holding_from_xml(*one, host_cpus) for one in domains)
    support = (parse_domain_capabilities(xml) for xml in domain_capabilities)
    return Host(
        name=name,
        arch=found.arch,
        memory=found.memory,
        vmm=vmm or Vmm(uri="", driver=_driver(found.guests)),
        cpus=found.cpus,
        nodes=found.nodes,
        caches=found.caches,
        cpu_model=found.cpu_model,
        cpu_vendor=found.cpu_vendor,
        cpu_features=found.cpu_features,
        microcode=found.microcode,
        page_sizes=found.page_sizes,
        guests=found.guests,
        support=tuple(sorted(support, key=lambda one: (one.arch, one.machine, one.accelerator, one.emulator))),
        accelerator=accelerator,
        node_devices=_merged(parse_node_device(xml) for xml in node_devices),
        images=tuple(sorted(images, key=lambda image: (image.name, image.digest))),
        holdings=tuple(sorted(holdings, key=lambda one: (one.domain, one.uuid))),
    )


def offered_accelerators(found: Host | Capabilities, arch: str = "") -> tuple[str, ...]:
    """The accelerators that the VMM reports for guests of `arch` (default: the host's), sorted. No proof: see
    vmm/accelerator.py."""
    kinds = (kind for kind in found.guests if kind.arch == (arch or found.arch))
    return tuple(sorted({accelerator for kind in kinds for accelerator in kind.accelerators}))


def _driver(guests: tuple[GuestKind, ...]) -> str:
    accelerators = {accelerator for kind in guests for accelerator in kind.accelerators}
    return next((driver for accelerator, driver in _DRIVERS.items() if accelerator in accelerators), "QEMU")


def _merged(devices: Iterable[NodeDevice]) -> tuple[NodeDevice, ...]:
    """By name; a device listed twice (under two of its capabilities) is one."""
    named = {device.name: device for device in devices}
    return tuple(named[name] for name in sorted(named))
