"""No processor core is shared across trust domains, unless that is declared.

What runs on one thread of a core can learn of what runs on its siblings, and more of what takes turns on one thread.
So device VMs are on one core only if the trust domains that one serves are among those of the other: who declares a
device VM of the scope `host` has declared that those share. `shareAcrossTrustDomains` of a Host declares it for all,
and `sharedCpus` for the cores of its pool.

What is not known is not kept apart: domains that are not devicevm's, and what is not pinned to any processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from ..domain import DomainSpec, Role
from ..inventory.cpuset import format_cpuset
from ..inventory.host import Host
from ..manifest.topology import Client, HostPolicy
from .grouping import Unit

_ANY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Trusts:
    """The trust domains that domains serve: the owner's `own` by name, wherever they are going to be; those of `others`
    by host and name, since one of the owner's may be called so elsewhere."""

    own: dict[str, frozenset[str]] = field(default_factory=dict)
    others: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.own or self.others)

    @cached_property
    def all(self) -> frozenset[frozenset[str]]:
        """What domains serve, each once."""
        return frozenset((*self.own.values(), *self.others.values()))

    def of(self, host: str, name: str) -> frozenset[str]:
        """What a domain of that name on a host serves, or would there; nothing where that is not known."""
        return self.others.get((host, name)) or self.own.get(name, _ANY)


class Thread(Protocol):
    """A thread of a core, and who is pinned to it."""

    @property
    def id(self) -> int: ...

    @property
    def pinned_by(self) -> list[str]: ...
    @property
    def pooled(self) -> bool | None: ...


@dataclass
class Parting:
    """Who may be beside whom on a host's cores. `asking` are the trust domains of whom processors are looked for."""

    host: str
    trusts: Trusts = field(default_factory=Trusts)
    asking: frozenset[str] = _ANY

    @property
    def parts(self) -> bool:
        """Whether there is anybody beside whom the one that asks may not be, as far as is known without looking."""
        return bool(self.asking and self.trusts)

    def asks(self, name: str) -> None:
        """From now on processors are looked for on behalf of this domain."""
        self.asking = self.trusts.of(self.host, name)

    def strangers(self, core: tuple[Thread, ...], asking: frozenset[str] | None = None) -> list[str]:
        """Who is on a core beside whom the one that asks may not be."""
        mine = self.asking if asking is None else asking
        if not mine or not self.trusts or all(thread.pooled for thread in core):
            return []
        found = {name for thread in core for name in thread.pinned_by}
        return sorted(name for name in found if not compatible(mine, self.trusts.of(self.host, name)))

    def reluctant(self, cores: Iterable[tuple[Thread, ...]]) -> frozenset[int]:
        """The threads to leave to others, where that can be: each trust domain has its share of the cores."""
        if not self.parts:
            return frozenset()
        allowed = [core for core in cores if not self.strangers(core)]
        own = [
            core
            for core in allowed
            if any(self.trusts.of(self.host, name) for thread in core for name in thread.pinned_by)
        ]
        domains = len(frozenset[str]().union(*self.trusts.all))
        if len(own) < max(1, sum(1 for core in cores) // max(1, domains)):
            return frozenset()
        return frozenset(thread.id for core in allowed if core not in own for thread in core)

    def told(self, cores: Iterable[tuple[Thread, ...]], asking: frozenset[str]) -> str:
        """Which cores another trust domain has: `CPUs 0-1 are on cores of trust domain red (storage-red)`."""
        taken: dict[tuple[str, ...], list[int]] = {}
        for core in cores:
            if names := self.strangers(core, asking):
                taken.setdefault(tuple(names), []).extend(thread.id for thread in core)
        parts = []
        for there, cpus in taken.items():
            whose = ", ".join(
                sorted(frozenset[str]().union(*(self.trusts.of(self.host, one) for one in there)) - asking)
            )
            parts.append(f"CPU {format_cpuset(cpus)} on cores of trust domain {whose} ({', '.join(there)})")
        if not parts:
            return ""
        return f"{', '.join(parts)}: cores are shared only where shareAcrossTrustDomains of the Host says so"


def compatible(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether who serves these trust domains and who serves those may be on one core."""
    return one <= other or other <= one


def trusts_of(
    specs: Iterable[tuple[str, DomainSpec]], owner: str, units: Iterable[Unit], clients: Iterable[Client]
) -> Trusts:
    """Whom every domain of devicevm's serves: any owner's that are there (`specs`, with their hosts), and the plan's
    own as they are to be. Nothing where there is one trust domain, and so nobody to part."""
    clients, specs = tuple(clients), tuple(specs)
    if len({spec.trust_domain for host, spec in specs}.union([client.trust_domain for client in clients])) < 2:
        return Trusts()
    of_client = {(host, spec.owner, spec.name): spec.trust_domain for host, spec in specs if spec.role is Role.CLIENT}
    there = {spec.name: spec.trust_domain for host, spec in specs if spec.role is Role.CLIENT and spec.owner == owner}
    found: dict[str, frozenset[str]] = {}
    others: dict[tuple[str, str], frozenset[str]] = {}
    for host, spec in specs:
        served = {of_client.get((host, spec.owner, one.client), spec.trust_domain) for one in spec.emulators}
        # Clients without processors of their own run anywhere that is not somebody's.
        if spec.role is Role.DEVICE_VM or spec.placement.dedicated:
            serves = frozenset(served) or frozenset((spec.trust_domain,))
            if spec.owner == owner:
                found[spec.name] = serves
            else:
                others[host, spec.name] = serves
    for client in clients:
        found.pop(client.name, None)
        there[client.name] = client.trust_domain
        if client.cpus:
            found[client.name] = frozenset((client.trust_domain,))
    for unit in units:
        # Of who has no domain, what serves it tells.
        other = unit.observed.trust_domain if unit.observed else ""
        kept = {there.get(one.client, other) for one in unit.kept}
        wanted = {want.client.trust_domain for want in unit.wants}
        found[unit.name] = frozenset(wanted | kept)
    return Trusts(found, others)


def crossings(
    specs: Iterable[DomainSpec], hosts: Iterable[Host], policies: Mapping[str, HostPolicy], trusts: Trusts
) -> Iterator[tuple[str, str, str, int]]:
    """Two domains of different trust domains on one core, with the host and the core's first CPU, once for each two."""
    if len(trusts.all) < 2:
        return
    here: dict[str, list[DomainSpec]] = {}
    for spec in specs:
        here.setdefault(spec.host, []).append(spec)
    for host in hosts:
        policy = policies.get(host.name)
        if policy and policy.share_across_trust_domains:
            continue
        first = {cpu.id: min((cpu.id, *cpu.siblings)) for cpu in host.cpus}
        on: dict[int, set[str]] = {}
        for spec in here.get(host.name, ()):
            placement = spec.placement
            cpus = {cpu for pin in (*placement.vcpus, placement.idle) for cpu in pin}
            for cpu in cpus.difference(policy.shared_cpus if policy else ()):
                on.setdefault(first.get(cpu, cpu), set()).add(spec.name)
        seen: set[tuple[str, str]] = set()
        for core in sorted(on):
            names = sorted(on[core])
            for index, one in enumerate(names):
                for other in names[index + 1 :]:
                    if (one, other) in seen or compatible(trusts.of(host.name, one), trusts.of(host.name, other)):
                        continue
                    seen.add((one, other))
                    yield host.name, one, other, core
