"""libvirt's test driver: everything but guests' own behaviour, in this process, with no privileges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...domain import DomainSpec, Emulator
from ...inventory.supports import VOLUMES
from ...manifest.topology import Store
from ..driver import VmmError
from .driver import LibvirtDriver

if TYPE_CHECKING:
    import libvirt


class TestDriver(LibvirtDriver):
    """Domains have states and XML but run nothing. Files of the host are left alone."""

    __test__ = False  # pytest: the name is no test's

    @property
    def supports(self) -> tuple[str, ...]:
        return (VOLUMES,)

    def pin_vcpu(self, domain: libvirt.virDomain, number: int, cpus: tuple[bool, ...]) -> None:
        # Here the call that takes flags takes none.
        domain.pinVcpu(number, cpus)

    def attach_emulator(self, name: str, emulator: Emulator) -> None:
        raise VmmError(f"cannot attach {emulator.id} to {name}: libvirt's test driver has no live devices")

    def detach_emulator(self, name: str, emulator: Emulator) -> None:
        raise VmmError(f"cannot detach {emulator.id} from {name}: libvirt's test driver has no live devices")

    def ensure_store(self, store: Store) -> bool:
        return super().ensure_store(store) if store.kind == "volume" else False

    def delete_store(self, store: Store) -> None:
        if store.kind == "volume":
            super().delete_store(store)

    def console_tail(self, spec: DomainSpec, lines: int) -> tuple[str, ...]:
        return ()
