"""By what the manager knows clients: UUIDs. A domain may be renamed, and its name be another's then."""

from __future__ import annotations

from dataclasses import replace

from ..domain import DomainSpec, Emulator, ObservedDomain
from ..manifest.topology import Consumer
from ..planner.naming import domain_uuid


def identity(client: ObservedDomain) -> str:
    """A client's: its domain's; where that is somebody else's, the one that the client would have."""
    return client.uuid if client.consumer is Consumer.VM else domain_uuid(client.owner, client.name)


def clients_of(device_vm: DomainSpec) -> set[str]:
    """The clients that a device VM has devices for."""
    return {client_id(device_vm, emulator) for emulator in device_vm.emulators}


def client_id(device_vm: DomainSpec, emulator: Emulator) -> str:
    """The client that a device VM has an emulator for."""
    return domain_uuid(device_vm.owner, emulator.client)


def for_client(device_vm: DomainSpec, client: str) -> DomainSpec:
    """A device VM as if it had nothing but that client's emulators, and the services that they need."""
    mine = tuple(one for one in device_vm.emulators if client_id(device_vm, one) == client)
    classes = {emulator.class_ for emulator in mine}
    services = tuple(service for service in device_vm.services if service.name in classes)
    return replace(device_vm, emulators=mine, services=services)


def name_of(client: str, device_vm: DomainSpec) -> str:
    """What a device VM's client is called in the manifests."""
    names = (emulator.client for emulator in device_vm.emulators)
    return next((name for name in names if domain_uuid(device_vm.owner, name) == client), client)
