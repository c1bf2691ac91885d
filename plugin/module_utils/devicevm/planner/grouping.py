"""Which device VM emulates which device.

A device stays in the device VM that emulates it now as long as the declarations still lead there.
A new device joins the first device VM of its group that has room: a place among `max_devices`,
and, where the device VM runs already, memory, and a VMM that can add devices live. Otherwise the
group gets one more device VM, so adding a device never disturbs those that run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count

from ..channel.stream import controllers_for
from ..domain import Channel, DomainSpec, Emulator
from ..manifest.topology import DEFAULT_TRUST_DOMAIN, DeviceClass, DeviceVM, ResourceRequest, ShareScope
from ..quantity import parse_bytes
from . import naming
from .apart import classes_clash, kept_apart
from .code import most_devices
from .requests import Home, Want

Alternatives = tuple[tuple[ResourceRequest, ...], ...]

MEBIBYTE = 2**20
# Device VMs are sized in these steps: what is left over lets a small device be added live.
MEMORY_STEP = 32 * MEBIBYTE


@dataclass
class Unit:
    """One device VM in the making: what it must emulate, and what it is now, if it is.

    `group` says whose devices it may emulate (Group.key); it is kept in the domain, so a device VM
    is never taken for another group's because of its name.
    """

    name: str
    group: str
    declared: DeviceVM | None
    observed: DomainSpec | None
    kept: list[Emulator] = field(default_factory=list)
    wants: list[Want] = field(default_factory=list)

    @property
    def image(self) -> str:
        """The image's name; every device of a unit asks for the same. Empty when nothing new is asked."""
        return self.wants[0].image if self.wants else ""

    @property
    def size(self) -> int:
        """How many devices it emulates."""
        return len(self.kept) + len(self.wants)

    @property
    def memory_needed(self) -> int:
        """Bytes: the largest base of its classes, and what each device accounts for; a link that nobody has yet as much
        as one that a device has. Regions count here, once, whoever shares them."""
        base = max([want.class_.memory.base for want in self.wants], default=0)
        devices = sum([emulator.memory for emulator in self.kept]) + sum([want.memory for want in self.wants])
        linked = [want.memory for want in self.wants if want.linked]
        regions = sum([size for name, size in self.regions])
        return base + devices + regions + (max(linked) * (self.links - self._linked) if linked else 0)

    @property
    def links(self) -> int:
        """How many links it has: where it is declared for several clients, as many as may come while it runs."""
        needed = self._linked
        if needed <= len(self._there):
            return len(self._there)
        joined = self.declared and self.declared.scope in (ShareScope.TRUST_DOMAIN, ShareScope.HOST)
        return max(needed, self.declared.max_devices if self.declared and joined else 0)

    @property
    def regions(self) -> tuple[tuple[str, int], ...]:
        """Its regions, in their order: the classes whose they are, and their bytes. What it has it keeps, as large as
        it is where somebody has it who is not declared."""
        wanted = {want.class_.name: region_size(want.class_, self.declared) for want in self.wants if want.mapped}
        there = {one.port: one.size for one in self.observed.regions} if self.observed else {}
        if not wanted and not there:
            return ()
        kept = {one.class_ for one in self.kept}
        sizes = {name: size if name in kept else wanted.get(name, size) for name, size in there.items()}
        return (*sizes.items(), *sorted((name, size) for name, size in wanted.items() if name not in sizes))

    def joins(self, want: Want) -> bool:
        """Whether it has the network, or the region, that the others of a device's class are on."""
        if want.linked:
            return self._linked > 0
        return want.mapped and any(name == want.class_.name for name, size in self.regions)

    @property
    def _linked(self) -> int:
        return sum([want.linked for want in self.wants]) + sum([one.channel in self._there for one in self.kept])

    @property
    def _there(self) -> tuple[Channel, ...]:
        return self.observed.links if self.observed else ()

    def homes(self) -> dict[str, Home]:
        """Where each of its wants is emulated, by id. A device keeps its link; a new one has the first that is free."""
        linked = [want.id for want in self.wants if want.linked]
        mapped = {name: Home(self.name, number, size) for number, (name, size) in enumerate(self.regions)}
        homes = {want.id: mapped[want.class_.name] if want.mapped else Home(self.name) for want in self.wants}
        if not linked:
            return homes
        there = {channel: number for number, channel in enumerate(self._there)}
        now = {one.id: one.channel for one in self.observed.emulators} if there and self.observed else {}
        mine = {name: there[now[name]] for name in linked if now.get(name) in there}
        taken = {*mine.values(), *(there[one.channel] for one in self.kept if one.channel in there)}
        free = (number for number in count() if number not in taken)
        numbers = {name: mine[name] if name in mine else next(free) for name in sorted(linked)}
        return homes | {name: Home(self.name, number) for name, number in numbers.items()}

    @property
    def resources(self) -> Alternatives:
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
    """Whose devices belong together: `key` identifies it, `label` is where its device VMs have their names from."""

    key: str
    label: str
    declared: DeviceVM | None

    @property
    def capacity(self) -> int:
        """How many devices one device VM of the group serves at most."""
        return self.declared.max_devices if self.declared else DeviceVM.max_devices


def group_of(want: Want, declared: tuple[DeviceVM, ...]) -> Group:
    """The group of a device: of the first declared device VM that serves it, else its client's own.

    Nothing but the scope `host` puts devices of two trust domains together.
    """
    client = want.client
    for device_vm in declared:
        if not _serves(device_vm, want):
            continue
        default = client.trust_domain == DEFAULT_TRUST_DOMAIN
        parts = {
            ShareScope.DEVICE: (client.name, want.device.name),
            ShareScope.CLIENT: (client.name,),
            ShareScope.TRUST_DOMAIN: () if default else (client.trust_domain,),
            ShareScope.HOST: (),
        }[device_vm.scope]
        trust = "" if device_vm.scope is ShareScope.HOST else client.trust_domain
        alike = tuple(f"{key}={client.labels.get(key, '')}" for key in device_vm.same_labels)
        key = "/".join((device_vm.name, device_vm.scope.value, trust, *parts, *alike))
        return Group(key, naming.label(device_vm.name, *parts), device_vm)
    return Group(f"/client/{client.trust_domain}/{client.name}", naming.label(client.name, "dvm"), None)


@dataclass(frozen=True)
class Company:
    """Which clients can share a device VM, as far as that depends on hosts.

    `places` are the hosts on which clients are, or are declared to be. Who found no place together is of several
    `parties` (numbers; what is there is of party 0), which share nothing (draft.py). To hosts that are `resting` nobody
    new comes.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    parties: Mapping[str, int] = field(default_factory=dict)
    resting: frozenset[str] = frozenset()

    def allows(self, unit: Unit, want: Want) -> bool:
        """Whether a device may join a unit, for all that is known of where its client is to be."""
        if unit.joins(want):
            return True  # who is on two device VMs is on two networks
        name = want.client.name
        party = self.parties.get(name, 0)
        if (unit.kept and party) or any(self.parties.get(other.client.name, 0) != party for other in unit.wants):
            return False
        here = self.places.get(name, "")
        if not here and not self.resting:
            return True
        there = unit.observed.host if unit.observed else ""
        hosts = (there, *(self.places.get(other.client.name, "") for other in unit.wants))
        return all(host in ("", here) for host in hosts) if here else self.resting.isdisjoint(hosts)


@dataclass(frozen=True)
class Seating:
    """What seating devices needs to know: the homes that devices have now, which names can be had, whether the VMM
    adds devices to a running device VM, what each class asks for, and whose clients are where."""

    units: dict[str, Unit]
    homes: dict[str, str]
    free_name: Callable[[str], bool]
    live: bool
    classes: Mapping[str, Alternatives]
    company: Company

    def seat(self, want: Want, group: Group) -> None:
        """Put a device in a unit of its group: where it is, else where there is room, else in a new one."""
        home = self.units.get(self.homes.get(want.id, ""))
        if home and home.group == group.key and _fits(home, want, group):
            unit = home
        else:
            rooms = (
                unit
                for unit in self._units_of(group, want)
                if _fits(unit, want, group) and self._joinable(unit, want, group) and self.company.allows(unit, want)
            )
            unit = next(rooms, None) or self._new_unit(group)
        unit.declared = group.declared
        unit.wants.append(want)

    def _units_of(self, group: Group, want: Want) -> list[Unit]:
        # The network, or region, of its kind before all others. By length first: storage-10 comes after storage-9.
        return sorted(
            self._by_group.get(group.key, ()),
            key=lambda unit: (want.joined and not unit.joins(want), len(unit.name), unit.name),
        )

    @cached_property
    def _by_group(self) -> dict[str, list[Unit]]:
        found: dict[str, list[Unit]] = {}
        for unit in self.units.values():
            found.setdefault(unit.group, []).append(unit)
        return found

    def _new_unit(self, group: Group) -> Unit:
        names = (group.label if number == 1 else naming.label(group.label, str(number)) for number in count(1))
        name = next(name for name in names if name not in self.units and self.free_name(name))
        unit = Unit(name, group.key, group.declared, None)
        self._by_group.setdefault(group.key, []).append(unit)
        self.units[name] = unit
        return unit

    def _joinable(self, unit: Unit, want: Want, group: Group) -> bool:
        """Whether a device that is not there yet can be added without disturbing those that are."""
        if unit.observed is None:
            return True
        if want.linked:
            # A network is not parted: where no link is left it is restarted, and its links go on when it is back.
            return bool(unit.observed.links)
        if want.mapped:
            # Nor is a region; and none can be added while its device VM runs.
            return any(one.port == want.class_.name for one in unit.observed.regions)
        if not unit.observed.has_agent:
            return False  # there is nobody to tell
        served = {emulator.client for emulator in unit.observed.emulators}
        if want.client.name not in served and asks_nearness(group.declared, want):
            return False  # where it is now it may be near its clients, and not near one more
        if not unit.wants and not (group.declared and group.declared.resources):
            # It goes on as it is for others, whose class, where it is known, asks for what it has.
            asked = want.class_.resources
            if any(self.classes.get(emulator.class_, asked) != asked for emulator in unit.kept):
                return False
        # With it: its class may need a larger base than those that are there.
        grown = replace(unit, wants=[*unit.wants, want])
        # Controllers cannot be added to a running device VM.
        ports = controllers_for(len(grown.kept) + len(grown.wants)) <= controllers_for(len(unit.observed.emulators))
        return self.live and ports and grown.memory_needed <= unit.observed.memory


def group(
    wants: tuple[Want, ...],
    declared: tuple[DeviceVM, ...],
    observed: dict[str, DomainSpec],
    kept: frozenset[str],
    free_name: Callable[[str], bool],
    live: bool,
    classes: Mapping[str, Alternatives],
    company: Company | None = None,
) -> list[Unit]:
    """Every device of `wants`, and every observed one of the clients `kept`, in a unit; sorted by name.

    `observed` are the device VMs there are, by name; `free_name` tells whether a domain can be called so; `live`
    whether the VMM adds devices to a running device VM; `classes` what each class asks for, as far as it is known;
    `company` who can be together, as far as that depends on hosts.
    """
    units = {
        name: Unit(name, spec.group, None, spec, [emulator for emulator in spec.emulators if emulator.client in kept])
        for name, spec in observed.items()
    }
    homes = {emulator.id: name for name, spec in observed.items() for emulator in spec.emulators}
    seating = Seating(units, homes, free_name, live, classes, company or Company())
    # Those that stay are seated first, or a newcomer could take their place.
    for want in sorted(wants, key=lambda want: (want.id not in homes, want.id)):
        seating.seat(want, group_of(want, declared))
    return [units[name] for name in sorted(units) if units[name].kept or units[name].wants]


def _fits(unit: Unit, want: Want, group: Group) -> bool:
    """Whether a device may be in a unit: there is a place, and it asks for the same image and resources."""
    # In this order: a group has many units, and most of them are full.
    if unit.size >= group.capacity or unit.size >= _most_devices(group, want):
        return False
    classes = [*(emulator.class_ for emulator in unit.kept), *(other.class_.name for other in unit.wants)]
    if classes_clash(group.declared, want.class_.name, classes):
        return False
    if any(kept_apart(group.declared, want.client, other.client) for other in unit.wants):
        return False
    if unit.kept and unit.observed and not _may_boot(unit.observed, want, group):
        return False
    if not unit.wants:
        return True
    chosen = bool(group.declared and group.declared.resources)
    return unit.image == want.image and (chosen or unit.resources == want.class_.resources)


def _may_boot(observed: DomainSpec, want: Want, group: Group) -> bool:
    """Whether the image that a device VM goes on with, for others, is one that a device may have: its class's own, or
    one that an alternative brings along. Where images are not told, that is not known."""
    name = observed.image.rpartition("-")[0]
    brought = (request.options.get("image") for some in _alternatives(group.declared, want) for request in some)
    return name in ("", want.image) or name in brought


def _most_devices(group: Group, want: Want) -> int:
    """How many devices a device VM can have, whichever alternative it gets: firmware has a machine's serial ports."""
    alternatives = _alternatives(group.declared, want)
    return max((most_devices(alternative, group.capacity) for alternative in alternatives), default=group.capacity)


def region_size(class_: DeviceClass, declared: DeviceVM | None) -> int:
    """Bytes of the region that a class's devices share in a device VM."""
    given = declared.parameters.get(class_.name) if declared else None
    defaults = class_.service.defaults if class_.service else {}
    return parse_bytes((given or defaults)["size"])


def asks_nearness(declared: DeviceVM | None, want: Want) -> bool:
    """Whether the device VM of a device may be one that is to be near its clients."""
    return any("near" in request.options for some in _alternatives(declared, want) for request in some)


def _alternatives(declared: DeviceVM | None, want: Want) -> Alternatives:
    return (declared.resources if declared else ()) or want.class_.resources


def _serves(device_vm: DeviceVM, want: Want) -> bool:
    serves = device_vm.serves
    return (
        (not serves.classes or want.class_.name in serves.classes)
        and (not serves.clients or want.client.name in serves.clients)
        and all(want.client.labels.get(key) == value for key, value in serves.match_labels.items())
    )
