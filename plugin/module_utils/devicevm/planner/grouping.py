"""Which device VM emulates which device.

A device stays in the device VM that emulates it now as long as the declarations still lead there.
A new device joins the first device VM of its group that has room: a place among `max_devices`,
and, where the device VM runs already, memory, and a VMM that can add devices live. Otherwise the
group gets one more device VM, so adding a device never disturbs those that run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from ..domain import DomainSpec, Emulator
from ..manifest.topology import DeviceVM, ResourceRequest, ShareScope
from . import naming
from .requests import Want

MEBIBYTE = 2**20
# Device VMs are sized in these steps: what is left over lets a small device be added live.
MEMORY_STEP = 32 * MEBIBYTE


@dataclass
class Unit:
    """One device VM in the making: what it must emulate, and what it is now, if it is."""

    name: str
    declared: DeviceVM | None
    observed: DomainSpec | None
    kept: list[Emulator] = field(default_factory=list)
    wants: list[Want] = field(default_factory=list)

    @property
    def image(self) -> str:
        """The image's name; every device of a unit asks for the same. Empty when nothing new is asked."""
        return self.wants[0].class_.image if self.wants else ""

    @property
    def memory_needed(self) -> int:
        """Bytes: the largest base of its classes, and what each device accounts for."""
        base = max((want.class_.memory.base for want in self.wants), default=0)
        devices = sum(emulator.memory for emulator in self.kept) + sum(want.memory for want in self.wants)
        return base + devices

    @property
    def resources(self) -> tuple[tuple[ResourceRequest, ...], ...]:
        """The alternatives that can run it: what was declared, else what all of its classes ask for."""
        if self.declared and self.declared.resources:
            return self.declared.resources
        return self.wants[0].class_.resources if self.wants else ()

    @property
    def clients(self) -> frozenset[str]:
        """The clients it serves."""
        return frozenset(emulator.client for emulator in self.kept) | {want.client.name for want in self.wants}


@dataclass(frozen=True)
class Group:
    """Where a device belongs: the group's name, and the declaration that says so, if any."""

    name: str
    declared: DeviceVM | None

    @property
    def capacity(self) -> int:
        """How many devices one device VM of the group serves at most."""
        return self.declared.max_devices if self.declared else DeviceVM.max_devices


def group_of(want: Want, declared: tuple[DeviceVM, ...]) -> Group:
    """The group of a device: the first declared device VM that serves it, else its client's own."""
    client = want.client
    for device_vm in declared:
        if not _serves(device_vm, want):
            continue
        scope = {
            ShareScope.DEVICE: (client.name, want.device.name),
            ShareScope.CLIENT: (client.name,),
            ShareScope.TRUST_DOMAIN: (client.trust_domain,) if client.trust_domain != "default" else (),
            ShareScope.HOST: (),
        }[device_vm.scope]
        return Group(naming.label(device_vm.name, *scope), device_vm)
    return Group(naming.label(client.name, "dvm"), None)


def group(
    wants: tuple[Want, ...],
    declared: tuple[DeviceVM, ...],
    observed: dict[str, DomainSpec],
    kept: frozenset[str],
    taken: frozenset[str],
    live: bool,
) -> list[Unit]:
    """Every device of `wants`, and every observed one of the clients `kept`, in a unit; sorted by name.

    `observed` are the device VMs there are, by name, `taken` the domain names that are not to be
    had, `live` tells whether the VMM adds devices to a running device VM.
    """
    units = {
        name: Unit(name, None, spec, [emulator for emulator in spec.emulators if emulator.client in kept])
        for name, spec in observed.items()
    }
    homes = {emulator.id: name for name, spec in observed.items() for emulator in spec.emulators}
    # Those that stay are seated first, or a newcomer could take their place.
    for want in sorted(wants, key=lambda want: (want.id not in homes, want.id)):
        _seat(want, group_of(want, declared), units, homes, taken, live)
    return [units[name] for name in sorted(units) if units[name].kept or units[name].wants]


def _seat(
    want: Want, group: Group, units: dict[str, Unit], homes: dict[str, str], taken: frozenset[str], live: bool
) -> None:
    for number in count(1):
        name = group.name if number == 1 else naming.label(group.name, str(number))
        if name in taken:
            continue
        unit = units.get(name) or Unit(name, group.declared, None)
        if homes.get(want.id) == name or (_home_lost(want, group, homes) and _has_room(unit, want, group, live)):
            unit.declared = group.declared
            unit.wants.append(want)
            units[name] = unit
            return


def _home_lost(want: Want, group: Group, homes: dict[str, str]) -> bool:
    """Whether the device is in no device VM of its group now: then it may be seated anywhere in it."""
    home = homes.get(want.id, "")
    number = home.removeprefix(f"{group.name}-")
    return home != group.name and not (home.startswith(f"{group.name}-") and number.isdigit())


def _has_room(unit: Unit, want: Want, group: Group, live: bool) -> bool:
    if len(unit.wants) + len(unit.kept) >= group.capacity:
        return False
    if unit.wants and not _alike(unit, want):
        return False
    if unit.observed is None:
        return True
    unit.wants.append(want)
    fits = unit.memory_needed <= unit.observed.memory
    unit.wants.pop()
    return live and fits


def _alike(unit: Unit, want: Want) -> bool:
    """Whether a device can share the unit's image and resources."""
    chosen = bool(unit.declared and unit.declared.resources)
    return unit.image == want.class_.image and (chosen or unit.resources == want.class_.resources)


def _serves(device_vm: DeviceVM, want: Want) -> bool:
    serves = device_vm.serves
    return (
        (not serves.classes or want.class_.name in serves.classes)
        and (not serves.clients or want.client.name in serves.clients)
        and all(want.client.labels.get(key) == value for key, value in serves.match_labels.items())
    )
