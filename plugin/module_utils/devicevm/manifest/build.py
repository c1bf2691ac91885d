"""Documents that passed every check, as a Topology."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..inventory.cpuset import parse_cpuset
from ..quantity import parse_bytes
from .declared import Declared
from .document import Document
from .host_devices import part_options, where_of
from .parameters import complete, parameter_schema, service_schema
from .resources import alternatives_of, request_of
from .storage import absolute, base_of, class_storage, declared_storage, secrets_of, store_of
from .topology import (
    DEFAULT_TRUST_DOMAIN,
    Boot,
    ClassMemory,
    ClassService,
    Client,
    ClientVM,
    Consumer,
    Device,
    DeviceClass,
    DeviceVM,
    FloatingDomains,
    HostPolicy,
    PlacementStrategy,
    Program,
    Serves,
    ShareScope,
    Start,
    Topology,
    Uplink,
    UplinkKind,
)


def build_topology(declared: Declared) -> Topology:
    """The topology of sound documents: the user's, and of the built-in classes those that are used."""
    clients = tuple(_client(document, declared) for document in declared.of("Client"))
    device_vms = tuple(_device_vm(document, declared) for document in declared.of("DeviceVM"))
    used = {device.class_ for client in clients for device in client.devices}
    used.update(name for device_vm in device_vms for name in device_vm.serves.classes)
    classes = (document for document in declared.of("DeviceClass") if document.name in used or not document.built_in)
    return Topology(
        clients=clients,
        device_vms=device_vms,
        classes=tuple(_device_class(document) for document in classes),
        hosts=tuple(_host(document) for document in declared.of("Host")),
        placement=next((_placement(document) for document in declared.of("Policy")), Topology.placement),
    )


def build_device(data: dict[str, Any], class_: Document, folder: Path | None) -> Device:
    """One device with its parameters complete, its front end chosen and its storage found."""
    parameters = complete(parameter_schema(class_.spec), data.get("parameters", {}))
    storage = class_storage(class_.spec)
    declared = declared_storage(storage, parameters)
    store = store_of(storage, declared, folder) if storage and declared is not None else None
    in_memory = parse_bytes(declared[storage.size]) if storage and declared is not None and not store else 0
    return Device(
        name=data["name"],
        class_=data["class"],
        parameters=parameters,
        frontend=data.get("frontend", class_.spec["frontends"][0]),
        channel=data.get("channel", ""),
        store=store,
        memory=in_memory,
        path=where_of(data, folder),
        part_options=part_options(data, folder),
        base=base_of(storage, declared, folder) if storage and declared is not None else None,
        faulty=bool(storage and declared is not None and declared.get(storage.faults) is not None),
        secrets=secrets_of(class_.spec, parameters, folder),
    )


def consumers_of(spec: dict[str, Any]) -> list[Consumer]:
    """Who the client of this `spec` says it is: one, when it is right."""
    found = [kind for kind in (Consumer.VM, Consumer.EXISTING, Consumer.VMM) if kind.value in spec]
    # As text, `host` says on which host any client is.
    return [*found, Consumer.HOST] if isinstance(spec.get("host"), dict) else found


def build_program(data: dict[str, Any]) -> Program:
    """A class's program; its command stays a template."""
    return Program(
        command=tuple(data.get("command", ())),
        ready=data.get("ready", "bytes"),
        expect=data.get("expect", ""),
        ask=data.get("ask", ""),
        on_exit=data.get("onExit", "restart"),
    )


def _client(document: Document, declared: Declared) -> Client:
    spec = document.spec
    host = spec.get("host", "")
    return Client(
        name=document.name,
        vm=_client_vm(spec["vm"], document.folder) if "vm" in spec else None,
        devices=tuple(
            build_device(device, declared.sound["DeviceClass"][device["class"]], document.folder)
            for device in spec.get("devices", ())
        ),
        labels=dict(document.data["metadata"].get("labels", {})),
        trust_domain=spec.get("trustDomain", DEFAULT_TRUST_DOMAIN),
        host=host.get("name", "") if isinstance(host, dict) else host,
        host_labels=_host_labels(spec),
        affinity=_match_labels(spec.get("placement", {}), "affinity"),
        anti_affinity=_match_labels(spec.get("placement", {}), "antiAffinity"),
        consumer=consumers_of(spec)[0],
        domain=spec.get("existing", {}).get("domain", ""),
    )


def _client_vm(data: dict[str, Any], folder: Path | None) -> ClientVM:
    boot = data["boot"]
    paths = {key: absolute(boot[key], folder) if key in boot else "" for key in ("kernel", "initrd", "image")}
    return ClientVM(
        vcpus=data.get("vcpus", 1),
        memory=parse_bytes(data["memory"]),
        boot=Boot(
            **paths,
            command_line=boot.get("commandLine", ""),
            device=boot.get("device", ""),
            firmware=data.get("firmware", "bios"),
            guest_image=boot.get("guestImage", ""),
        ),
        machine=data.get("machine", "q35"),
        domain_xml=data.get("domainXML", ""),
        cpus=request_of("thread", {**data["cpus"], "count": data.get("vcpus", 1)}) if "cpus" in data else None,
        start=Start(data.get("start", ClientVM.start.value)),
        autostart=data.get("autostart"),
    )


def _device_vm(document: Document, declared: Declared) -> DeviceVM:
    spec = document.spec
    share = spec.get("share", {})
    return DeviceVM(
        name=document.name,
        serves=_serves(spec.get("serves", {})),
        scope=ShareScope(share.get("scope", DeviceVM.scope.value)),
        max_devices=share.get("maxDevices", DeviceVM.max_devices),
        resources=alternatives_of(spec.get("resources", ()), document.folder),
        memory=parse_bytes(spec.get("memory", 0)),
        host=spec.get("host", ""),
        host_labels=_host_labels(spec),
        same_labels=_unique(share.get("affinity", {}).get("matchLabelKeys", ())),
        classes_apart=_unique(share.get("antiAffinity", {}).get("classes", ())),
        clients_apart=_match_labels(share.get("antiAffinity", {}), "clients"),
        parameters={
            name: complete(service_schema(class_.spec), given)
            for name, given in spec.get("parameters", {}).items()
            if (class_ := declared.find("DeviceClass", name))
        },
        uplink=_uplink(spec["uplink"]) if "uplink" in spec else None,
    )


def _uplink(data: dict[str, Any]) -> Uplink:
    (kind,) = data.keys() - {"mac"}
    return Uplink(UplinkKind(kind), data[kind], data.get("mac", ""))


def _host_labels(spec: dict[str, Any]) -> dict[str, str]:
    return _match_labels(spec, "hostSelector")


def _match_labels(data: dict[str, Any], key: str) -> dict[str, str]:
    """The labels of a selector, empty where there is none."""
    return dict(data.get(key, {}).get("matchLabels", {}))


def _serves(data: dict[str, Any]) -> Serves:
    clients = data.get("clients", ())
    selector = clients["matchLabels"] if isinstance(clients, dict) else {}
    names = () if selector else clients
    return Serves(_unique(data.get("classes", ())), _unique(names), dict(selector))


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _device_class(document: Document) -> DeviceClass:
    spec = document.spec
    memory = spec["memory"]
    return DeviceClass(
        name=document.name,
        protocol=spec["protocol"],
        frontends=tuple(dict.fromkeys(spec["frontends"])),
        channels=tuple(dict.fromkeys(spec.get("channels", ("stream",)))),
        image=spec.get("image", "base"),
        program=build_program(spec["program"]),
        memory=ClassMemory(base=parse_bytes(memory["base"]), per_device=memory.get("perDevice", 0)),
        resources=alternatives_of(spec.get("resources", ({"thread": {}},)), document.folder),
        parameters=parameter_schema(spec),
        storage=class_storage(spec),
        service=_service(spec) if "service" in spec else None,
    )


def _service(spec: dict[str, Any]) -> ClassService:
    return ClassService(tuple(spec["service"]["command"]), complete(service_schema(spec), {}))


def _placement(document: Document) -> PlacementStrategy:
    return PlacementStrategy(document.spec.get("placement", Topology.placement.value))


def _host(document: Document) -> HostPolicy:
    spec = document.spec
    headroom = spec.get("headroom", {})
    return HostPolicy(
        name=document.name,
        reserved_cpus=cpus_named(spec.get("reservedCpus", ())),
        reserved_memory=parse_bytes(spec.get("reservedMemory", 0)),
        cpu_overcommit=float(spec.get("cpuOvercommit", HostPolicy.cpu_overcommit)),
        accelerator=spec.get("accelerator", "auto"),
        trust_domains=_unique(spec.get("trustDomains", ())),
        labels=dict(document.data["metadata"].get("labels", {})),
        maintenance=spec.get("maintenance", False),
        headroom_memory=parse_bytes(headroom.get("memory", 0)),
        headroom_vcpus=headroom.get("vcpus", 0),
        shared_cpus=cpus_named(spec.get("sharedCpus", ())),
        share_across_trust_domains=spec.get("shareAcrossTrustDomains", False),
        floating_domains=FloatingDomains(spec.get("floatingDomains", HostPolicy.floating_domains.value)),
    )


def cpus_named(data: str | Iterable[int]) -> tuple[int, ...]:
    """CPUs as a manifest names them, `0-1,4` or a list of numbers, ascending."""
    return parse_cpuset(data) if isinstance(data, str) else tuple(sorted(set(data)))
