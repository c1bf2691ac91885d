"""Whose data is where: nobody writes what somebody else has, and nothing that is in use is deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..domain import DomainSpec, Emulator, ObservedDomain
from ..manifest.topology import Store

Identity = tuple[str, str, str]


@dataclass(frozen=True)
class Use:
    """That a device has a store, or one as its base. `reads`: it does not write it. `host` is empty where there is one
    host alone: what was made there is there, whatever the host was called then."""

    owner: str
    host: str
    client: str
    name: str
    reads: bool

    def at(self, host: str) -> bool:
        """Whether it is on that host."""
        return self.host in ("", host)

    @property
    def device(self) -> str:
        """`web/data`."""
        return f"{self.client}/{self.name}"


def identity(store: Store) -> Identity:
    """What makes two stores of one host the same: a path, or a pool and a volume of it."""
    return ("volume", store.pool, store.volume) if store.kind == "volume" else ("path", "", store.path)


def describe_store(store: Store) -> str:
    """`/data/a.img`, or `volume POOL/NAME`."""
    return f"volume {store.pool}/{store.volume}" if store.kind == "volume" else store.path


def stores_of(emulator: Emulator) -> Iterator[Store]:
    """What a device has on its host: its store, and what that is a copy of."""
    if emulator.store:
        yield emulator.store
    if emulator.base:
        yield emulator.base


def uses(specs: Iterable[DomainSpec], *, one_host: bool = False) -> dict[Identity, list[Use]]:
    """Who has which store, each device once for each of its stores, in the order of `specs`."""
    found: dict[Identity, dict[Use, None]] = {}
    for spec in specs:
        for emulator in spec.emulators:
            for store in stores_of(emulator):
                host = "" if one_host else spec.host
                use = Use(spec.owner, host, emulator.client, emulator.name, store.read_only)
                found.setdefault(identity(store), {})[use] = None
    return {key: list(some) for key, some in found.items()}


def specs_of(observed: Iterable[ObservedDomain]) -> Iterator[DomainSpec]:
    """What domains are defined as, and what they run where that is something else."""
    for domain in observed:
        if domain.spec:
            yield domain.spec
        if domain.active_spec and domain.active_spec is not domain.spec:
            yield domain.active_spec


def may_delete(store: Store) -> bool:
    """A block device is the host's, not ours to delete; what is read only was never ours to write."""
    return store.kind != "block" and not store.read_only and store.reclaim == "delete"
