"""Devices of devicevm's in a domain that is somebody else's: which they are, and what is to be added and removed. Pure.

Each has an alias that starts with its client's own beginning; the controllers that they need have one that says they
are devicevm's, of all its owners. Nothing else of the domain is ever touched. What was asked for stands in the
domain's metadata, in a namespace of its own, an element for each client: several owners may have devices in one domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from xml.etree.ElementTree import Element, register_namespace

from ...domain import Attachment, DomainSpec, ObservedDomain, Role
from ...errors import DevicevmError
from ...frontend.frontend import Frontend
from ...frontend.registry import FRONTENDS
from ...manifest.topology import Boot, Consumer
from ...record import digest
from . import metadata
from .client_xml import frontend_of
from .drift import contains
from .element import add, element

NAMESPACE = "urn:devicevm:attached:v1"
PREFIX = "devicevm-attached"
_TAG = f"{{{NAMESPACE}}}clients"
_CONTROLLER = "ua-devicevm-_"
"""How aliases of controllers begin: no client's begin so (`beginning`)."""
_PCI = {"type": "pci", "domain": "0x0000", "slot": "0x00", "function": "0x0"}

register_namespace(PREFIX, NAMESPACE)


# The mark


def marks(domain: Element) -> list[Element]:
    """What is said of each client in a domain's XML, without namespace."""
    found = domain.find(f"metadata/{_TAG}")
    return [] if found is None else [_plain(child) for child in found]


def marked(domain: Element, owner: str, client: str, spec: DomainSpec | None) -> Element | None:
    """The metadata's element with what `spec` says of the client, or nothing of it; None when nobody is left in it."""
    clients = element("clients")
    clients.extend(mark for mark in marks(domain) if (mark.get("owner"), mark.get("name")) != (owner, client))
    if spec is not None:
        clients.append(_mark_of(spec))
    return clients if len(clients) else None


def observed_clients(uuid: str, inactive: Element, live: Element | None) -> list[ObservedDomain]:
    """The clients that have devices in the domain of this UUID; `live` when it runs. What a clone says is its
    original's, and not believed."""
    return [_observed(mark, uuid, inactive, live) for mark in marks(inactive) if mark.get("uuid") == uuid]


def _mark_of(spec: DomainSpec) -> Element:
    mark = metadata.unqualified(spec)
    mark.tag = "client"
    mark.set("name", spec.name)
    mark.set("uuid", spec.uuid)
    for allocation in mark.findall("allocation"):
        mark.remove(allocation)  # nothing is allocated to it
    return mark


def _plain(item: Element) -> Element:
    copy = Element(item.tag.rpartition("}")[2], item.attrib)
    copy.text = item.text if item.text and item.text.strip() else None
    copy.extend(_plain(child) for child in item)
    return copy


def _observed(mark: Element, uuid: str, inactive: Element, live: Element | None) -> ObservedDomain:
    name, owner = mark.get("name", ""), mark.get("owner", "")
    kept = metadata.read(mark, name, uuid)
    unknown = [one.frontend for one in kept.spec.attachments if one.frontend not in FRONTENDS] if kept.spec else []
    if unknown:
        kept = replace(
            kept, spec=None, broken=f"its metadata names a front end {unknown[0]!r} that this devicevm has not"
        )
    # Of what cannot be read, as much is known as it takes to put it right or to remove it.
    host = mark.get("host", "")
    unread = DomainSpec(
        name, uuid, Role.CLIENT, owner, host, 0, 0, "", "", "", Boot(), consumer=Consumer.EXISTING, domain=""
    )
    spec = kept.spec or unread
    start = beginning(owner, name)
    drift = [f"{what} in its definition" for what in _wrong(spec, inactive, start, spec.attachments)]
    active_spec: DomainSpec | None = None
    waiting: tuple[str, ...] = ()
    if live is not None:
        plugged = tuple(one for one in spec.attachments if FRONTENDS[one.frontend].live)
        there = tuple(one for one in plugged if not list(_problems(spec, one, live, start)))
        rest = tuple(one for one in spec.attachments if one not in plugged)
        active_spec = spec if there == plugged else replace(spec, attachments=_ordered(spec, (*there, *rest)))
        drift += [f"{what} while it runs" for what in _left_over(spec, live, start)]
        waiting = tuple(f"{one.name} ({one.frontend}) is not there" for one in rest if _missing(spec, one, live, start))
    return ObservedDomain(
        name=name,
        uuid=uuid,
        owner=owner,
        role=Role.CLIENT,
        active=live is not None,
        spec=spec,
        active_spec=active_spec,
        drift=tuple(drift),
        live_drift=waiting,
        broken=kept.broken,
        consumer=Consumer.EXISTING,
    )


def _ordered(spec: DomainSpec, some: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    return tuple(one for one in spec.attachments if one in some)


def _wrong(spec: DomainSpec, tree: Element, start: str, attachments: Iterable[Attachment]) -> Iterator[str]:
    for attachment in attachments:
        yield from _problems(spec, attachment, tree, start)
    yield from _left_over(spec, tree, start)


def _problems(spec: DomainSpec, attachment: Attachment, tree: Element, start: str) -> Iterator[str]:
    there = ours(tree, start)
    for want in _elements(spec, attachment, FRONTENDS[attachment.frontend].first, start):
        have = there.get(alias_of(want))
        if have is None:
            yield f"{attachment.name} ({attachment.frontend}) is missing"
        elif not _fulfils(have, want):
            yield f"{attachment.name} ({attachment.frontend}) is not as declared"


def _missing(spec: DomainSpec, attachment: Attachment, tree: Element, start: str) -> bool:
    return any(_problems(spec, attachment, tree, start))


def _left_over(spec: DomainSpec, tree: Element, start: str) -> Iterator[str]:
    wanted = {
        alias_of(item)
        for one in spec.attachments
        for item in _elements(spec, one, FRONTENDS[one.frontend].first, start)
    }
    for alias, item in ours(tree, start).items():
        if alias not in wanted and is_pluggable(item):
            yield f"{item.tag} {alias} is left over"


# Devices


def beginning(owner: str, client: str) -> str:
    """How the aliases of a client's devices begin; libvirt keeps aliases that start with `ua-`."""
    return f"ua-devicevm-{digest([owner, client], 8)}-"


def alias_of(item: Element) -> str:
    """A device's alias, empty when it has none."""
    alias = item.find("alias")
    return "" if alias is None else alias.get("name", "")


def ours(tree: Element, start: str) -> dict[str, Element]:
    """The devices of one client, by alias."""
    return {alias_of(item): item for item in tree.iterfind("devices/*") if alias_of(item).startswith(start)}


def is_pluggable(item: Element) -> bool:
    """Whether a device can leave a running domain. The front ends that cannot are called as libvirt calls their bus."""
    target = item.find("target")
    kinds = set() if target is None else {target.get("bus"), target.get("type")}
    return kinds.isdisjoint(name for name, frontend in FRONTENDS.items() if not frontend.live)


def devices_of(spec: DomainSpec, trees: Iterable[Element]) -> dict[str, list[Element]]:
    """The devices of each of the client's attachments, with names and numbers that nobody else has in `trees`.

    DevicevmError when there is none left."""
    start = beginning(spec.owner, spec.name)
    others = [item for tree in trees for item in tree.iterfind("devices/*") if not alias_of(item).startswith(start)]
    taken = {place for item in others if (place := _place(item))}
    made: dict[str, list[Element]] = {}
    for attachment in spec.attachments:
        frontend = frontend_of(spec, attachment)
        for number in range(frontend.first, frontend.last + 1):
            items = _elements(spec, attachment, number, start)
            places = {place for item in items if (place := _place(item))}
            if places.isdisjoint(taken):
                break
        else:
            raise DevicevmError(
                f"domain {spec.domain} has no place for {attachment.name}: no {frontend.name} is left",
                hint="choose another front end",
            )
        taken |= places
        made[attachment.name] = items
    return made


def _elements(spec: DomainSpec, attachment: Attachment, number: int, start: str) -> list[Element]:
    items = FRONTENDS[attachment.frontend].elements(attachment, number)
    for item in items:
        alias = item.find("alias")
        if alias is not None:
            alias.set("name", start + alias.get("name", "").removeprefix("ua-"))
    return items


def _place(item: Element) -> tuple[str, str] | None:
    """What only one device of a domain can have: a disk's name, a serial port's number."""
    target = item.find("target")
    key = {"disk": "dev", "serial": "port"}.get(item.tag, "")
    return None if target is None or not key else (item.tag, target.get(key, "0"))


def _fulfils(have: Element, want: Element) -> bool:
    """Whether a device is as it was asked for; which name or number it got there is the domain's own affair."""
    want = deepcopy(want)
    target, there = want.find("target"), have.find("target")
    if target is not None and there is not None:
        for key in ("dev", "port"):
            if key in target.attrib:
                target.set(key, there.get(key, ""))
    return contains(have, want)


# What is to be done


@dataclass
class Change:
    """What is to be done to a definition or a running domain: aliases that go, in that order, then elements that
    come, in theirs."""

    remove: list[str] = field(default_factory=list)
    add: list[Element] = field(default_factory=list)


def change(tree: Element, start: str, spec: DomainSpec | None, made: dict[str, list[Element]], *, live: bool) -> Change:
    """From `tree`, a definition or (`live`) a running domain, to one with the devices `made` and no others of ours.

    DevicevmError when a running domain has no room for one: nothing has been done then.
    """
    there = ours(tree, start)
    frontends = {one.name: FRONTENDS[one.frontend] for one in spec.attachments} if spec else {}
    wanted = {
        alias_of(item): item for name, items in made.items() if not live or frontends[name].live for item in items
    }
    right = {alias for alias, item in there.items() if alias in wanted and _fulfils(item, wanted[alias])}
    result = Change()
    result.remove = [alias for alias, item in there.items() if alias not in right and (not live or is_pluggable(item))]
    result.remove += _idle_controllers(tree, set(result.remove), live=live)
    room = _Room(tree, set(result.remove), spec.domain if spec else "", live=live)
    for name, items in made.items():
        missing = [item for item in items if alias_of(item) in wanted and alias_of(item) not in right]
        if missing:
            for kind, model in _controllers(items, frontends[name]):
                result.add += room.controller(kind, model)
            for item in missing[: frontends[name].ports]:
                result.add += room.slot(item, name)
            result.add += missing
    return result


def _controllers(items: list[Element], frontend: Frontend) -> Iterable[tuple[str, str]]:
    """The kinds and models of controllers that devices need: those too that libvirt would add without being asked."""
    sata = any(item.find("target[@bus='sata']") is not None for item in items)
    return (*frontend.controllers, ("sata", "")) if sata else frontend.controllers


class _Room:
    """Where new devices go. On PCI Express each needs a port: in a definition one of ours, which is added where none is
    idle; a running domain has those that it has. Elsewhere libvirt finds a place without adding anything."""

    def __init__(self, tree: Element, gone: set[str], domain: str, *, live: bool) -> None:
        self.domain, self.live = domain, live
        self.controllers = [item for item in tree.iterfind("devices/controller") if alias_of(item) not in gone]
        self.express = any(item.get("model") == "pcie-root" for item in self.controllers)
        used = _places_used(tree, gone)
        ports = [item for item in self.controllers if item.get("model") == "pcie-root-port"]
        usable = ports if live else [item for item in ports if alias_of(item).startswith(_CONTROLLER)]
        self.free = sorted(port for item in usable if ("pci", port := _index(item)) not in used)
        self.last = max((_index(item) for item in self.controllers if item.get("type") == "pci"), default=0)

    def controller(self, kind: str, model: str) -> list[Element]:
        """What it takes for there to be a controller of that kind."""
        known = [item for item in self.controllers if item.get("type") == kind]
        if any(item.get("model") != "none" for item in known):
            return []
        if known or (self.live and kind != "scsi"):
            raise DevicevmError(
                f"domain {self.domain} has no {kind} controller, and cannot be given one"
                + (" while it runs" if not known else ""),
                hint="choose another front end",
            )
        made = element("controller", type=kind, index="0", **({"model": model} if model else {}))
        add(made, "alias", name=f"{_CONTROLLER}{kind}")
        self.controllers.append(made)
        return [*self.slot(made, f"a {kind} controller"), made]

    def slot(self, item: Element, name: str) -> list[Element]:
        """Give a device its place on the bus; the port to add for it, if any."""
        if not self.express:
            return []
        if self.live and not self.free:
            raise DevicevmError(
                f"domain {self.domain} has no free PCI Express port for {name} while it runs",
                hint="give its definition more pcie-root-port controllers and restart it, then apply again",
            )
        if self.free:
            add(item, "address", **_PCI, bus=f"{self.free.pop(0):#04x}")
            return []
        self.last += 1
        port = element("controller", type="pci", index=str(self.last), model="pcie-root-port")
        add(port, "model", name="pcie-root-port")
        add(port, "target", chassis=str(self.last), port=f"{self.last:#x}")
        add(port, "alias", name=f"{_CONTROLLER}port-{self.last}")
        add(item, "address", **_PCI, bus=f"{self.last:#04x}")
        return [port]


def _idle_controllers(tree: Element, gone: set[str], *, live: bool) -> list[str]:
    """devicevm's controllers on which nothing is left once `gone` is gone, in an order in which they can go.

    Of PCI ports only the last ones go: libvirt fills gaps in their row by ports of its own. In a running domain nothing
    but SCSI controllers can go.
    """
    controllers = list(tree.iterfind("devices/controller"))
    used = _places_used(tree, gone)
    found = [
        alias
        for item in controllers
        if (alias := alias_of(item)).startswith(_CONTROLLER)
        and item.get("type") != "pci"
        and (item.get("type") == "scsi" or not live)
        and (item.get("type", ""), _index(item)) not in used
    ]
    row = sorted((item for item in controllers if item.get("type") == "pci"), key=_index)
    while not live and row and alias_of(row[-1]).startswith(_CONTROLLER):
        last = row.pop()
        if ("pci", _index(last)) in _places_used(tree, gone.union(found)):
            break
        found.append(alias_of(last))
    return found


def _places_used(tree: Element, gone: set[str]) -> set[tuple[str, int]]:
    """The controllers that something is on once `gone` is gone."""
    return {place for item in tree.iterfind("devices/*") if alias_of(item) not in gone for place in _used(item)}


def _used(item: Element) -> Iterator[tuple[str, int]]:
    """The controllers that a device is on."""
    target = item.find("target")
    if item.find("target[@type='virtio']") is not None:
        # libvirt's test driver tells no place: all are on the first.
        place = item.find("address[@type='virtio-serial']")
        yield "virtio-serial", 0 if place is None else _number(place.get("controller"))
    for address in item.findall("address"):
        kind = address.get("type", "")
        if kind == "drive" and target is not None:
            yield target.get("bus", ""), _number(address.get("controller"))
        elif kind in ("pci", "usb"):
            yield kind, _number(address.get("bus"))


def _index(item: Element) -> int:
    return _number(item.get("index"))


def _number(text: str | None) -> int:
    try:
        return int(text or "0", 0)
    except ValueError:
        return 0
