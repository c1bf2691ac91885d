"""Whose data is where: nobody writes what somebody else has, and nothing that is in use is deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..domain import DomainSpec, ObservedDomain, Role
from ..manifest.topology import Store

Identity = tuple[str, str, str]


@dataclass(frozen=True)
class Use:
    """That a client's device has a store, or one as its base, or that the client boots it. `reads`: it does not write
    it."""

    owner: str
    host: str
    client: str
    name: str
    reads: bool

    @property
    def device(self) -> str:
        """`web/data`."""
        return f"{self.client}/{self.name}"


@dataclass(frozen=True)
class Users:
    """Who has a store: those who write it, and those who only read it."""

    writers: dict[Use, None] = field(default_factory=dict)
    readers: dict[Use, None] = field(default_factory=dict)

    def beside(self, *, reads: bool) -> list[Use]:
        """Those beside whom nobody can be who only reads it, or who writes it."""
        return [*self.writers] if reads else [*self.writers, *self.readers]


def identity(store: Store) -> Identity:
    """What makes two stores of one host the same: a path, or a pool and a volume of it."""
    return ("volume", store.pool, store.volume) if store.kind == "volume" else ("path", "", store.path)


def describe_store(store: Store) -> str:
    """`/data/a.img`, or `volume POOL/NAME`."""
    return f"volume {store.pool}/{store.volume}" if store.kind == "volume" else store.path


def uses_of(spec: DomainSpec) -> Iterator[tuple[Identity, Use]]:
    """What a domain has on its host: the stores of devices, what those are copies of, and the image that a client
    boots."""
    found = [(one.client, one.name, store) for one in spec.emulators for store in (one.store, one.base) if store]
    if spec.role is Role.CLIENT and spec.boot.disk:
        found.append((spec.name, "boot.image", spec.boot.disk))
    for client, name, store in found:
        yield identity(store), Use(spec.owner, spec.host, client, name, store.read_only)


def uses(specs: Iterable[DomainSpec]) -> dict[Identity, Users]:
    """Who has which store, each device once for each of its stores, in the order of `specs`."""
    found: dict[Identity, Users] = {}
    for spec in specs:
        for key, use in uses_of(spec):
            users = found.setdefault(key, Users())
            (users.readers if use.reads else users.writers)[use] = None
    return found


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
