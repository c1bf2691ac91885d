"""The documents of a live VMM from which inventory/offline.py makes a Host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...inventory.capabilities import parse_capabilities
from ...inventory.host import Host, ImageFacts, Vmm
from ...inventory.offline import host_from_documents, offered_accelerators
from ..accelerator import ProbeGuest, boots_with, choose_accelerator, verdict_key
from ..images import images_in
from .connection import binding, vmm_words
from .device_vm_xml import CONTROL_PORT
from .domain_xml import DOMAIN_TYPES

if TYPE_CHECKING:
    import libvirt

    from .driver import LibvirtDriver

PROBE_MEMORY = 192
"""MiB for the guest that shows which accelerator works."""


def host(driver: LibvirtDriver) -> Host:
    """The inventory of the host that `driver` is connected to."""
    connection = driver.connection
    with vmm_words(f"cannot take the inventory of {driver.places.uri}"):
        capabilities = connection.getCapabilities()
        found = parse_capabilities(capabilities, cpu_count=_cpu_count(connection), memory=_memory(connection))
        images = images_in(driver.places.images)
        offered = offered_accelerators(found)
        return host_from_documents(
            capabilities,
            name=connection.getHostname(),
            domain_capabilities=_domain_capabilities(connection, found.arch, offered),
            node_devices=_node_devices(connection),
            domains=_domains(connection),
            images=images,
            vmm=_vmm(driver),
            accelerator=_accelerator(driver, offered, images),
            cpu_count=_cpu_count(connection),
            memory=_memory(connection),
        )
