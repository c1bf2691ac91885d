"""Whose data is where: two devices must not write the same storage, and nothing that is in use is deleted."""

from __future__ import annotations

from ..domain import ObservedDomain
from ..manifest.topology import Store

Identity = tuple[str, str, str]


def identity(store: Store) -> Identity:
    """What makes two stores the same: a path, or a pool and a volume of it."""
    return ("volume", store.pool, store.volume) if store.kind == "volume" else ("path", "", store.path)


def describe_store(store: Store) -> str:
    """`/data/a.img`, or `volume POOL/NAME`."""
    return f"volume {store.pool}/{store.volume}" if store.kind == "volume" else store.path


def stores_of_others(observed: tuple[ObservedDomain, ...], owner: str) -> dict[Identity, str]:
    """The writable stores that other owners' device VMs hold, and for whom."""
    return {
        identity(emulator.store): f"{emulator.client}/{emulator.name} of owner {domain.owner}"
        for domain in observed
        if domain.owner != owner and domain.spec
        for emulator in domain.spec.emulators
        if emulator.store and not emulator.store.read_only
    }


def may_delete(store: Store) -> bool:
    """A block device is the host's, not ours to delete; what is read only was never ours to write."""
    return store.kind != "block" and not store.read_only and store.reclaim == "delete"
