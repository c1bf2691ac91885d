"""Domain specifications: a unit or a client, placed on a host, said in full."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from typing import Any

from ..domain import Attachment, CpuPlacement, DomainSpec, ObservedDomain, Role
from ..guest.architecture import ARCHITECTURES, DEFAULT
from ..inventory.host import Host, ImageFacts
from ..manifest.topology import Boot, Client, Start
from ..record import digest_of_values
from . import naming
from .consumers import domain_named
from .grouping import MEMORY_STEP, Unit
from .requests import Home, Want, attachment_of, emulator_of
from .resources import Footing
from .resources.microcode import TRANSLATOR
from .services import links_of, regions_of, services_of, uplink_of

MACHINES = {"x86_64": "pc", "aarch64": "virt"}
"""The machine of device VMs, by architecture: the one that boots fastest."""
CHANGEABLE = (
    "emulators",
    "memory",
    "placement",
    "vcpus",
    "cpu_features",
    "page_size",
    "host_devices",
    "start",
    "services",
    "uplink",
    "links",
    "regions",
)
"""What may become another one in a device VM that stays the same otherwise."""
_CHANGEABLE = attrgetter(*CHANGEABLE)


def unit_memory(unit: Unit) -> int:
    """Bytes for the device VM: what the user declared, what it has if that is enough, else what it needs."""
    if unit.declared and unit.declared.memory:
        return unit.declared.memory
    needed = unit.memory_needed
    if unit.observed and unit.observed.memory >= needed:
        return unit.observed.memory
    return -(-needed // MEMORY_STEP) * MEMORY_STEP


def specify_device_vm(unit: Unit, host: Host, owner: str, footing: Footing, *, upgrade: bool = False) -> DomainSpec:
    """The device VM of a unit. One that is there keeps the build of its image: upgrading is for the user to ask."""
    runtime = host.vmm.runtime_dir
    code = footing.code
    homes = unit.homes()
    wanted = [emulator_of(want, owner, homes[want.id], runtime, code) for want in unit.wants]
    emulators = tuple(sorted([*unit.kept, *wanted], key=lambda emulator: emulator.id))
    arch = footing.arch or host.arch
    name = code.image or unit.image
    old = unit.observed if unit.observed and unit.observed.host == host.name else None
    uplink = uplink_of(unit, owner)
    services = services_of(unit, owner, uplink)
    links = links_of(unit, owner, runtime)
    regions = regions_of(unit, owner, runtime)
    stale = upgrade and old and is_outdated(old, image_named(host, name, arch))
    if old and not code.firmware and keeps_image(old, name, arch) and not stale:
        wanted_now: tuple[Any, ...] = (
            emulators,
            footing.memory,
            footing.placement,
            footing.vcpus,
            footing.features,
            footing.page_size,
            footing.host_devices,
            starts(unit),
            services,
            uplink,
            links,
            regions,
        )
        # The same object where nothing changes: most of a fleet, which is compared by that from here on.
        same = _CHANGEABLE(old) == wanted_now
        return old if same else replace(old, **dict(zip(CHANGEABLE, wanted_now, strict=True)))
    image = None if code.firmware else image_named(host, name, footing.arch)
    has_agent = not code.firmware and (image is None or image.agent)
    return DomainSpec(
        name=unit.name,
        uuid=naming.domain_uuid(owner, unit.name),
        role=Role.DEVICE_VM,
        owner=owner,
        host=host.name,
        vcpus=footing.vcpus,
        memory=footing.memory,
        accelerator=host.accelerator if arch == host.arch else TRANSLATOR,
        arch=arch,
        machine=footing.machine if code.firmware else MACHINES.get(arch, "pc"),
        boot=_boot_of(image) if image else Boot(),
        placement=footing.placement,
        emulators=emulators,
        # Firmware writes to its devices alone.
        control=naming.control_address(runtime, owner, unit.name) if has_agent else "",
        console="" if code.firmware else naming.console_log(host.vmm.log_dir or runtime, unit.name),
        image=_build_of(image) if image else "",
        group=unit.group,
        trust_domain=unit.wants[0].client.trust_domain,
        cpu_features=footing.features,
        page_size=footing.page_size,
        host_devices=footing.host_devices,
        firmware=code.firmware,
        start=starts(unit),
        services=services,
        uplink=uplink,
        links=links,
        regions=regions,
    )


def starts(unit: Unit) -> Start:
    """Who starts a device VM: on request when all its clients are. Those that are not declared are as they were."""
    asked = {want.client.start for want in unit.wants}
    if unit.kept and unit.observed:
        asked.add(unit.observed.start)
    return Start.REQUEST if asked == {Start.REQUEST} else Start.APPLY


def specify_client(
    client: Client, wants: list[Want], homes: dict[str, Home], host: Host, owner: str, placement: CpuPlacement
) -> DomainSpec:
    """A client; `homes` tells where each of its devices is emulated, by `client.device`."""
    runtime = host.vmm.runtime_dir
    attachments = tuple([attachment_of(want, owner, homes[want.id], runtime) for want in wants])
    vm = client.vm
    if vm is None:
        return _specify_outsider(client, attachments, host, owner)
    return DomainSpec(
        name=client.name,
        uuid=naming.domain_uuid(owner, client.name),
        role=Role.CLIENT,
        owner=owner,
        host=host.name,
        vcpus=vm.vcpus,
        memory=vm.memory,
        accelerator=host.accelerator,
        arch=host.arch,
        machine=vm.machine,
        boot=resolve_boot(vm.boot, host),
        placement=placement,
        attachments=attachments,
        console=naming.console_log(host.vmm.log_dir or runtime, client.name),
        trust_domain=client.trust_domain,
        domain_xml=vm.domain_xml,
        start=vm.start,
        autostart=vm.autostart,
    )


def _specify_outsider(client: Client, attachments: tuple[Attachment, ...], host: Host, owner: str) -> DomainSpec:
    """A client that is no VM of devicevm's: what it has of it."""
    there = domain_named(host, client.domain) if client.domain else None
    return DomainSpec(
        name=client.name,
        uuid=there.uuid if there else naming.domain_uuid(owner, client.name),
        role=Role.CLIENT,
        owner=owner,
        host=host.name,
        vcpus=0,
        memory=0,
        accelerator="",
        arch="",
        machine="",
        boot=Boot(),
        attachments=attachments,
        trust_domain=client.trust_domain,
        consumer=client.consumer,
        domain=client.domain,
    )


def resolve_boot(boot: Boot, host: Host) -> Boot:
    """A boot from an image of devicevm's own, as kernel, initrd and command line on the host."""
    image = image_named(host, boot.guest_image) if boot.guest_image else None
    if image is None:
        return boot
    return _from_image(boot, image.kernel, image.initramfs, image.command_line)


@lru_cache(maxsize=2**10)
def _from_image(boot: Boot, kernel: str, initrd: str, command_line: str) -> Boot:
    return replace(boot, kernel=kernel, initrd=initrd, command_line=f"{command_line} {boot.command_line}".strip())


def _boot_of(image: ImageFacts) -> Boot:
    """How a device VM boots an image."""
    if image.disk:
        return Boot(image=image.disk, firmware=image.firmware)
    return Boot(kernel=image.kernel, initrd=image.initramfs, command_line=image.command_line)


def keeps_image(spec: DomainSpec, image: str, arch: str) -> bool:
    """Whether a device VM boots some build of the image of that name already, for that architecture."""
    named = not spec.image or spec.image.rpartition("-")[0] == image
    return named and spec.arch == arch and spec.firmware is None


def is_outdated(spec: DomainSpec, image: ImageFacts | None) -> bool:
    """Whether a device VM boots another build of an image than the one that is there now."""
    return image is not None and spec.image not in ("", _build_of(image))


def _build_of(image: ImageFacts) -> str:
    return f"{image.name}-{image.digest[:12]}"


def image_named(host: Host, name: str, arch: str = "") -> ImageFacts | None:
    """The host's image of that name for `arch` (the host's own if not given), if it is there.

    Where that is none that images are built for, as the i686 of libvirt's test driver, it is x86_64.
    """
    arch = arch or host.arch
    arch = arch if arch in ARCHITECTURES else DEFAULT
    return next((image for image in host.images if (image.name, image.arch) == (name, arch)), None)


def state_digest(hosts: tuple[Host, ...], observed: tuple[ObservedDomain, ...]) -> str:
    """What a plan was made from, on the VMM's side."""
    # Of files, what is planned with is in the domains, and looked at once more when they start.
    hosts = tuple(replace(host, files=()) if host.files else host for host in hosts)
    return digest_of_values([hosts, observed])
