"""What documents must keep to among each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import Problem
from .build import build_device
from .class_rules import class_problems
from .client_rules import client_problems, sound_device_problems
from .declared import Declared
from .document import Document, Place, shown
from .images import image_problems
from .resource_rules import pool_problems, resource_problems
from .service import service_problems
from .storage import absolute
from .topology import Boot, Store
from .wording import nearest

_BOOTED = "boot image"


def rule_problems(declared: Declared) -> list[Problem]:
    """Every problem across documents. Classes and clients with problems are discarded from `declared`."""
    problems = []
    for check, kind in ((class_problems, "DeviceClass"), (client_problems, "Client")):
        for document in declared.of(kind):
            # A class that comes with devicevm is right: tests see to that.
            found = [] if document.built_in else list(check(document, declared))
            problems += found
            if found:
                declared.discard(document)
    for document, known in declared.broken:
        if document.kind == "Client":
            problems += sound_device_problems(document, known, declared)
    for document in declared.of("DeviceVM"):
        problems += _device_vm_problems(document, declared)
    for kind in ("DeviceVM", "DeviceClass"):
        for document in declared.of(kind):
            problems += resource_problems(document, declared)
    for document in declared.of("Image"):
        problems += image_problems(document)
    for document in declared.of("Host"):
        problems += pool_problems(document)
    problems += _policy_problems(declared)
    problems += _domain_problems(declared)
    problems += _store_problems(declared)
    problems += _mac_problems(declared)
    return problems


def _policy_problems(declared: Declared) -> Iterator[Problem]:
    policies = list(declared.of("Policy"))
    for document in policies[1:]:
        where = policies[0].where(("kind",))
        yield document.problem(("kind",), f"there is a Policy already, in {where}", "one holds for all: join the two")


def _device_vm_problems(document: Document, declared: Declared) -> Iterator[Problem]:
    client = declared.names["Client"].get(document.name)
    if client:
        where = client.where(("metadata", "name"))
        message = f"{document.name} is the name of a Client too, in {where}"
        yield document.problem(("metadata", "name"), message, "both become domains of the VMM: rename one")
    serves = document.spec.get("serves", {})
    yield from _unknown(document, ("serves", "classes"), serves.get("classes", ()), "DeviceClass", declared)
    apart = document.spec.get("share", {}).get("antiAffinity", {}).get("classes", ())
    yield from _unknown(document, ("share", "antiAffinity", "classes"), apart, "DeviceClass", declared)
    yield from _parameter_problems(document, declared)
    clients = serves.get("clients", ())
    if isinstance(clients, list):
        yield from _unknown(document, ("serves", "clients"), clients, "Client", declared)


def _parameter_problems(document: Document, declared: Declared) -> Iterator[Problem]:
    """What a device VM says to the services of classes."""
    given = document.spec.get("parameters", {})
    served = document.spec.get("serves", {}).get("classes", [])
    for name, parameters in given.items():
        place: Place = ("spec", "parameters", name)
        class_ = declared.find("DeviceClass", name)
        if name not in declared.names["DeviceClass"]:
            hint = nearest(name, declared.names_of("DeviceClass"))
            yield document.problem(place, f"device class {shown(name)} is unknown", hint, key=True)
        elif served and name not in served:
            message = f"it does not serve class {name}"
            yield document.problem(place, message, "add it to serves.classes, or take its parameters away", key=True)
        elif class_ and "service" not in class_.spec:
            message = f"class {name} has nothing that device VMs could set"
            yield document.problem(place, message, "its devices have parameters, in their clients", key=True)
        elif class_:
            yield from service_problems(document, place, class_, parameters)


def _domain_problems(declared: Declared) -> Iterator[Problem]:
    """What is in an existing domain is told by one client."""
    seen: dict[str, list[Document]] = {}
    for document in declared.of("Client"):
        name = document.spec.get("existing", {}).get("domain", "")
        for other in seen.setdefault(name, []) if name else ():
            if not _apart(document, other):
                message = f"domain {name} is already client {other.name}'s, in {other.where(('spec', 'existing'))}"
                yield document.problem(("spec", "existing", "domain"), message, "declare all of its devices there")
                break
        seen.setdefault(name, []).append(document)


def _unknown(document: Document, key: Place, names: list[str], kind: str, declared: Declared) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name not in declared.names[kind]:
            what = "device class" if kind == "DeviceClass" else "client"
            place: Place = ("spec", *key, index)
            yield document.problem(place, f"{what} {shown(name)} is unknown", nearest(name, declared.names_of(kind)))


@dataclass(frozen=True)
class _Kept:
    """Something on its host that a document declares a client to have: `what` that is to it."""

    document: Document
    place: Place
    what: str
    store: Store


def _store_problems(declared: Declared) -> Iterator[Problem]:
    """Two writers on one store destroy what is in it, and who writes what others are copies of, those copies."""
    seen: dict[tuple[str, str, bool], list[_Kept]] = {}
    for one in _kept(declared):
        where = (one.store.pool, one.store.volume or one.store.path)
        # Who only reads it may be beside all who do.
        others = [*seen.get((*where, False), ()), *(() if one.store.read_only else seen.get((*where, True), ()))]
        other = next((other for other in others if not _apart(one.document, other.document)), None)
        if other:
            whose, how = "that", "only read-only devices can share a store: set readOnly on both"
            if one.what != other.what:
                whose = f"the {other.what}"
                how = "nobody may write what a copy is of: set readOnly on the device that has it as its store"
            whom = other.document.name if other.what == _BOOTED else f"a device of {other.document.name}"
            message = f"its {one.what} is also {whose} of {whom} in {other.document.where(other.place)}"
            yield one.document.problem(one.place, message, how)
        seen.setdefault((*where, one.store.read_only), []).append(one)


def _kept(declared: Declared) -> Iterator[_Kept]:
    """What clients have on their hosts: the stores of devices, what those are copies of, and what is booted."""
    for document in declared.of("Client"):
        for index, device in enumerate(document.spec.get("devices", ())):
            if class_ := declared.find("DeviceClass", device["class"]):
                built = build_device(device, class_, document.folder)
                place = ("spec", "devices", index)
                if built.store:
                    yield _Kept(document, place, "store", built.store)
                if built.base:
                    yield _Kept(document, place, "base", built.base)
        image = document.spec.get("vm", {}).get("boot", {}).get("image", "")
        booted = Boot(image=absolute(image, document.folder)).disk if image else None
        if booted:
            yield _Kept(document, ("spec", "vm", "boot", "image"), _BOOTED, booted)


def _mac_problems(declared: Declared) -> Iterator[Problem]:
    """Two NICs with one hardware address would take each other's frames, wherever they meet."""
    seen: dict[str, tuple[Document, Place]] = {}
    for document in declared.of("Client"):
        for index, device in enumerate(document.spec.get("devices", ())):
            class_ = declared.find("DeviceClass", device["class"])
            mac = device.get("parameters", {}).get("mac")
            if not mac or class_ is None or class_.spec["protocol"] != "ethernet":
                continue
            place = ("spec", "devices", index, "parameters", "mac")
            other, there = seen.setdefault(mac, (document, place))
            if (other, there) != (document, place):
                message = f"{other.name} has a NIC with {mac} already, in {other.where(there)}"
                yield document.problem(place, message, "leave it out: each NIC has an address that is always the same")


def _apart(one: Document, other: Document) -> bool:
    """Whether two clients are certain to be on different hosts, where one path is two files."""
    hosts = _host_of(one), _host_of(other)
    return bool(hosts[0] and hosts[1] and hosts[0] != hosts[1])


def _host_of(document: Document) -> str:
    host = document.spec.get("host", "")
    name: str = host.get("name", "") if isinstance(host, dict) else host
    return name
