"""Which domains hold what others are to have, and so in which order they let go of it."""

from __future__ import annotations

from ..domain import DomainSpec, ObservedDomain
from .sequence import each_after
from .storage import Identity, uses_of

_NOBODY: frozenset[str] = frozenset()


class Holders:
    """Which domains hold which emulators, stores and devices of the host now."""

    def __init__(self, observed: dict[str, ObservedDomain]) -> None:
        self._by_id: dict[str, set[str]] = {}
        self._by_store: dict[Identity, list[tuple[str, bool]]] = {}
        """The domains, and whether each only reads it."""
        self._by_device: dict[tuple[str, str], set[str]] = {}
        for name, domain in observed.items():
            if domain.spec is None:
                continue
            for device in domain.spec.host_devices:
                self._by_device.setdefault((domain.spec.host, device.address), set()).add(name)
            for emulator in domain.spec.emulators:
                self._by_id.setdefault(emulator.id, set()).add(name)
            for key, use in uses_of(domain.spec):
                self._by_store.setdefault(key, []).append((name, use.reads))

    def before(self, spec: DomainSpec) -> set[str]:
        """The other domains that now hold an emulator, storage or a device of the host that `spec` is to have."""
        found: set[str] = set()
        for device in spec.host_devices:
            found |= self._by_device.get((spec.host, device.address), _NOBODY)
        for emulator in spec.emulators:
            found |= self._by_id.get(emulator.id, _NOBODY)
        for key, use in uses_of(spec):
            there = self._by_store.get(key, ())
            found.update(name for name, reads in there if not (reads and use.reads))
        return found - {spec.name}


def in_order_of_release(device_vms: list[DomainSpec], holders: Holders) -> list[DomainSpec]:
    """Device VMs so that each comes after those that it takes over from; in a circle, by name."""
    by_name = {spec.name: spec for spec in device_vms}
    order = each_after(sorted(by_name), lambda name: sorted(holders.before(by_name[name]) & by_name.keys()))
    return [by_name[name] for name in order]
