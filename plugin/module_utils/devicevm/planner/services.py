"""What a device VM is as a whole, and not for one of its devices: what it runs once, its uplink, links and regions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..channel.region import guest_path
from ..domain import Channel, Service
from ..manifest.template import expand, service_values
from ..manifest.topology import Uplink
from . import naming
from .grouping import Unit
from .requests import Home, link_channel, region_channel


def uplink_of(unit: Unit, owner: str) -> Uplink | None:
    """The declared uplink, with its hardware address; of a device VM that nobody asks anything new of, what it has."""
    if not unit.wants:
        return unit.observed.uplink if unit.observed else None
    uplink = unit.declared.uplink if unit.declared else None
    return replace(uplink, mac=uplink.mac or naming.hardware_address(owner, unit.name, "uplink")) if uplink else None


def links_of(unit: Unit, owner: str, runtime_dir: str) -> tuple[Channel, ...]:
    """Its links, in their order."""
    return tuple(link_channel(owner, Home(unit.name, number), runtime_dir) for number in range(unit.links))


def regions_of(unit: Unit, owner: str, runtime_dir: str) -> tuple[Channel, ...]:
    """Its regions, in their order."""
    return tuple(region_channel(owner, unit.name, name, size, runtime_dir) for name, size in unit.regions)


def services_of(unit: Unit, owner: str, uplink: Uplink | None) -> tuple[Service, ...]:
    """The services of the classes of a unit's devices, by name. Those of devices that are not declared any more
    go on as they are."""
    kept = {emulator.class_ for emulator in unit.kept}
    found = {one.name: one for one in (unit.observed.services if unit.observed else ()) if one.name in kept}
    regions = {name: guest_path(number) for number, (name, size) in enumerate(unit.regions)}
    for class_ in {want.class_.name: want.class_ for want in unit.wants}.values():
        if class_.service:
            declared = unit.declared.parameters.get(class_.name) if unit.declared else None
            mac = naming.hardware_address(owner, unit.name)
            given = declared or class_.service.defaults
            above = uplink.mac if uplink else ""
            values = service_values(given, unit.name, mac, above, regions.get(class_.name, ""))
            found[class_.name] = Service(class_.name, expand(class_.service.command, values))
    return tuple(found[name] for name in sorted(found))


def shared_across(units: Iterable[Unit]) -> list[str]:
    """A warning for each region that trust domains share, which takes a device VM that is declared for all of a host:
    who has it, and who writes to it."""
    warnings = []
    for unit in units:
        for name, _size in unit.regions:
            wants = sorted([want for want in unit.wants if want.class_.name == name], key=lambda want: want.id)
            domains = sorted({want.client.trust_domain for want in wants})
            if len(domains) > 1:
                who = [f"{one.client.name} {'reads' if one.read_only else 'reads and writes'}" for one in wants]
                warnings.append(
                    f"trust domains {', '.join(domains)} share the memory of {name} in {unit.name}, as its share.scope "
                    f"says: {', '.join(who)}"
                )
    return warnings


def parted(units: Iterable[Unit]) -> list[str]:
    """A warning for each group whose devices are in several device VMs, though a service is for all of them: as many
    networks as device VMs, where one was meant."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        if unit.declared and any(want.class_.service for want in unit.wants):
            groups.setdefault(unit.group, []).append(unit)
    return [
        f"{', '.join(unit.name for unit in group)} know nothing of each other: their devices are more than one device "
        f"VM takes (share.maxDevices of {group[0].declared.name} is {group[0].declared.max_devices})"
        for group in groups.values()
        if len(group) > 1 and group[0].declared
    ]
