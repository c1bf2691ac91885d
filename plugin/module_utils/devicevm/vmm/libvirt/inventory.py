"""The documents of a live VMM from which inventory/offline.py makes a Host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...guest.boot_config import CONTROL_PORT
from ...inventory.capabilities import parse_capabilities
from ...inventory.host import Host, ImageFacts, Vmm
from ...inventory.offline import host_from_documents, offered_accelerators
from ..accelerator import ProbeGuest, boots_with, choose_accelerator, verdict_key
from ..images import images_in
from ..places import verdicts
from .connection import binding, vmm_words
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
            domains=domain_documents(driver),
            images=images,
            vmm=_vmm(driver),
            accelerator=_accelerator(
                driver, offered, tuple(image for image in images if image.kernel and image.arch == found.arch)
            ),
            cpu_count=_cpu_count(connection),
            memory=_memory(connection),
        )


def _vmm(driver: LibvirtDriver) -> Vmm:
    connection = driver.connection
    return Vmm(
        uri=driver.places.uri,
        driver={"QEMU": "QEMU", "TEST": "Test"}.get(connection.getType().upper(), connection.getType()),
        version=_version(connection.getVersion()),
        libvirt_version=_version(connection.getLibVersion()),
        supports=driver.supports,
        runtime_dir=str(driver.places.runtime),
        log_dir="" if driver.places.logs == driver.places.runtime else str(driver.places.logs),
    )


def _version(number: int) -> str:
    """libvirt's way to write a version as a number: 7002019 -> `7.2.19`."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _accelerator(driver: LibvirtDriver, offered: tuple[str, ...], images: tuple[ImageFacts, ...]) -> str:
    """The accelerator that works. `images` are of the host's own architecture: without one there is nothing to try kvm
    with, and then it is not believed in."""
    if "test" in offered:
        return "test"
    if driver.accelerator == "auto" and not images:
        offered = tuple(name for name in offered if name != "kvm") or offered
    version = _version(driver.connection.getVersion())
    return choose_accelerator(
        driver.accelerator, offered, lambda name: _boots(name, images), verdicts(), verdict_key(version)
    )


def _boots(accelerator: str, images: tuple[ImageFacts, ...]) -> bool:
    if not images:
        return True  # nothing to try it with: the user's word counts
    image = next((image for image in images if image.name == "base"), images[0])
    guest = ProbeGuest(
        kernel=Path(image.kernel),
        initramfs=Path(image.initramfs),
        command_line=image.command_line,
        port=CONTROL_PORT,
        ask=b'{"id":1,"op":"status"}\n',
        memory=PROBE_MEMORY,
    )
    return boots_with(accelerator, guest)


def _cpu_count(connection: libvirt.virConnect) -> int:
    return int(connection.getInfo()[2])


def _memory(connection: libvirt.virConnect) -> int:
    """Bytes of the whole host; virNodeGetInfo, where there are no memory statistics, counts in MiB."""
    libvirt = binding()
    try:
        return int(connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)["total"]) * 1024
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return int(connection.getInfo()[1]) * 2**20


def _domain_capabilities(connection: libvirt.virConnect, arch: str, offered: tuple[str, ...]) -> list[str]:
    """One document for each accelerator; none where the driver has no such call (libvirt's test driver)."""
    libvirt = binding()
    types = [DOMAIN_TYPES[name] for name in offered if name in DOMAIN_TYPES]
    try:
        return [connection.getDomainCapabilities(None, arch, None, kind) for kind in types]
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return []


def _node_devices(connection: libvirt.virConnect) -> list[str]:
    """The host's devices that can be given to a domain; none where libvirt has no node device driver (embedded)."""
    libvirt = binding()
    kinds = ("PCI_DEV", "USB_DEV", "MDEV", "NET", "CCW_DEV", "VDPA", "AP_QUEUE")
    wanted = sum(getattr(libvirt, f"VIR_CONNECT_LIST_NODE_DEVICES_CAP_{kind}", 0) for kind in kinds)
    try:
        return [device.XMLDesc(0) for device in connection.listAllDevices(wanted)]
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_NODE_DEVICE):
            raise
        return []


def domain_documents(driver: LibvirtDriver) -> list[tuple[str, str]]:
    """(definition, live XML) of every domain; the latter is empty for one that does not run."""
    libvirt = binding()
    found = []
    for domain in driver.connection.listAllDomains(0):
        try:
            live = driver.live_xml(domain) if domain.ID() != -1 else ""
            found.append((domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), live))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found
