"""A VMM with a manager: clients are on the VMM itself, device VMs on the manager's, and both are seen as one.

For planner, apply and status nothing else is different. `devicevm manager install` makes a VMM such a one, and it stays
one while the manager does not run: what would be planned without it would start device VMs a second time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..domain import Deaths, DomainSpec, Emulator, ObservedDomain, Role
from ..inventory.holdings import holding_from_xml
from ..inventory.host import Host
from ..inventory.supports import ON_REQUEST
from ..manager import wire
from ..manifest.topology import Store
from ..part.keeper import Parts
from ..record import from_data, to_data
from . import console
from .driver import Driver, VmmError
from .libvirt.qemu import QemuDriver
from .places import Places, managers_places

_SECONDS = 30.0
# An operation may wait for one that the manager is at: a boot.
_LONG = 180.0


class ManagedDriver(Driver):
    """Routes by role; what is asked by name goes to whom has it."""

    def __init__(self, places: Places, *, accelerator: str = "auto") -> None:
        self.path = wire.socket_path(places)
        self.supports = (*map(str, self._ask("hello")), ON_REQUEST)
        self.clients = QemuDriver(replace(places, logs=managers_places(places).logs), accelerator=accelerator)
        self._device_vms: set[str] = set()

    def host(self) -> Host:
        found = self.clients.host()
        cpus = frozenset(cpu.id for cpu in found.cpus)
        holdings = [holding_from_xml(definition, live, cpus) for definition, live in self._ask("documents")]
        holdings += found.holdings
        return replace(
            found,
            holdings=tuple(sorted(holdings, key=lambda one: (one.domain, one.uuid))),
            vmm=replace(found.vmm, supports=self.supports),
        )

    def observe(self) -> tuple[ObservedDomain, ...]:
        seen = [_as_observed(data) for data in self._ask("observe")]
        return tuple(sorted((*seen, *self.clients.observe()), key=lambda one: one.name))

    def domain_names(self) -> frozenset[str]:
        return self.clients.domain_names() | self._names()

    def render(self, spec: DomainSpec) -> str:
        return self.clients.render(spec)

    def define(self, spec: DomainSpec) -> None:
        if spec.role is Role.CLIENT:
            self.clients.define(spec)
            return
        if spec.name in self.clients.domain_names():
            raise VmmError(f"cannot define {spec.name}: a domain of this name is there already")
        self._ask("define", spec=to_data(spec))

    def start(self, name: str) -> None:
        if self._is_device_vm(name):
            self._ask("start", name=name)
        else:
            self.clients.start(name)

    def stop(self, name: str) -> None:
        if self._is_device_vm(name):
            self._ask("stop", name=name)
        else:
            self.clients.stop(name)

    def rejoin(self, uuid: str, owner: str, addresses: tuple[str, ...]) -> None:
        self.clients.rejoin(uuid, owner, addresses)

    def resume(self, name: str) -> bool:
        return bool(self._ask("resume", name=name)) if self._is_device_vm(name) else self.clients.resume(name)

    def undefine(self, name: str) -> None:
        if self._is_device_vm(name):
            self._ask("undefine", name=name)
            self._device_vms.discard(name)
        else:
            self.clients.undefine(name)

    def is_active(self, name: str) -> bool:
        return bool(self._ask("active", name=name)) if self._is_device_vm(name) else self.clients.is_active(name)

    def attach_emulator(self, name: str, emulator: Emulator) -> None:
        self._ask("attach", name=name, emulator=to_data(emulator))

    def detach_emulator(self, name: str, emulator: Emulator) -> None:
        self._ask("detach", name=name, emulator=to_data(emulator))

    def open_ports(self, name: str) -> frozenset[str]:
        return frozenset(map(str, self._ask("ports", name=name)))

    def mark(self, spec: DomainSpec) -> None:
        if spec.role is Role.CLIENT:
            self.clients.mark(spec)
        else:
            self._ask("mark", spec=to_data(spec))

    def pin(self, spec: DomainSpec) -> None:
        if spec.role is Role.CLIENT:
            self.clients.pin(spec)
        else:
            self._ask("pin", spec=to_data(spec))

    def repin(self, name: str, uuid: str, cpus: tuple[int, ...], owner: str) -> None:
        # The manager's VMM has nobody's domains but devicevm's own.
        self.clients.repin(name, uuid, cpus, owner)

    def attach_client(self, spec: DomainSpec) -> None:
        self.clients.attach_client(spec)

    def detach_client(self, client: str, owner: str, uuid: str) -> None:
        self.clients.detach_client(client, owner, uuid)

    def deaths(self) -> dict[str, Deaths]:
        return {str(name): from_data(Deaths, data) for name, data in self._ask("deaths").items()}

    @property
    def parts(self) -> Parts:
        # The manager's VMM has its state where the clients' has it: both mean the same processes.
        return self.clients.parts

    def ensure_store(self, store: Store) -> bool:
        return self.clients.ensure_store(store)

    def delete_store(self, store: Store) -> None:
        self.clients.delete_store(store)

    def console_tail(self, spec: DomainSpec, lines: int) -> tuple[str, ...]:
        return console.tail(spec.console, lines)

    def close(self) -> None:
        self.clients.close()

    def _ask(self, operation: str, **parameters: Any) -> Any:
        waits = operation in ("start", "stop", "define", "undefine")
        return wire.ask(self.path, operation, _LONG if waits else _SECONDS, **parameters)

    def _names(self) -> frozenset[str]:
        return frozenset(map(str, self._ask("names")))

    def _is_device_vm(self, name: str) -> bool:
        if name not in self._device_vms:
            self._device_vms = set(self._names())
        return name in self._device_vms


def _as_observed(data: Any) -> ObservedDomain:
    seen = from_data(ObservedDomain, data)
    # What is unchanged is one object, as the planner compares.
    return replace(seen, active_spec=seen.spec) if seen.active_spec == seen.spec else seen
