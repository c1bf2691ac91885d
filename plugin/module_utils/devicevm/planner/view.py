"""What a plan is made from besides what is declared: what the user wants of it, the hosts, and what is on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..domain import DomainSpec, ObservedDomain, Role
from ..inventory.cpuset import format_cpuset
from ..inventory.host import Host
from ..inventory.supports import LIVE_DEVICES
from ..manifest.topology import Client, Consumer, HostPolicy, Topology
from ..manifest.wording import nearest
from . import naming
from .floating import unconfined
from .storage import Identity, Users, specs_of, uses

if TYPE_CHECKING:
    from .draft import Draft


@dataclass(frozen=True)
class Intent:
    """What the user wants beyond what is declared.

    `owner` names the manifest set. `remove` are clients to remove though nothing says so in the
    manifests; `prune` removes every client of the owner's that is not declared. `delete_data`
    deletes the backing storage of what is removed, too. `rebalance` moves what runs where that is better
    (rebalance.py); without it what runs stays. `upgrade` has device VMs boot the newest build of their image
    (rolling.py); without it they keep the one that they have. `retain` is storage that is kept whatever is deleted, and
    whatever was said of it when it was made.
    """

    owner: str
    prune: bool = False
    remove: frozenset[str] = frozenset()
    delete_data: bool = False
    rebalance: bool = False
    upgrade: bool = False
    retain: frozenset[Identity] = frozenset()


class View:
    """What a plan is made from besides what is declared: the hosts, and what is on them.

    `origin`: the view of what is really there, when this one is of what would be.
    """

    def __init__(
        self,
        hosts: tuple[Host, ...],
        observed: tuple[ObservedDomain, ...],
        intent: Intent,
        origin: View | None = None,
    ) -> None:
        if len(hosts) == 1:
            # What is on a host that is alone is there, whatever that was called when it was made.
            observed = tuple(_at(one, hosts[0].name) for one in observed)
        self.hosts, self.observed, self.intent = hosts, observed, intent
        self._origin = origin
        self.mine = {domain.name: domain for domain in observed if domain.owner == intent.owner}
        self.specs = {name: unconfined(domain.spec) for name, domain in self.mine.items() if domain.spec}
        self.live = bool(hosts) and all(LIVE_DEVICES in host.vmm.supports for host in hosts)
        self.made_on = {host.name: self._made_on(host) for host in hosts}
        """The owner's domains on each host: existing ones, in which there are only devices of it, are left out."""
        self.awake = frozenset((host.name, one.uuid) for host in hosts for one in host.holdings if one.active)
        """The domains that run, anybody's: their hosts and UUIDs."""

    @property
    def origin(self) -> View:
        """The view of what is really there."""
        return self._origin or self

    @cached_property
    def running(self) -> dict[str, DomainSpec]:
        """The owner's domains that run."""
        return {name: spec for name, spec in self.specs.items() if self.mine[name].active}

    @cached_property
    def outside(self) -> dict[str, str]:
        """The host on which each client is served that is no domain of the owner's, as its device VMs tell."""
        return {
            emulator.client: spec.host
            for spec in self.specs.values()
            for emulator in spec.emulators
            if emulator.consumer is not Consumer.VM
        }

    @cached_property
    def uuids(self) -> dict[str, dict[str, str]]:
        """The name of each domain, anybody's, by its UUID and host."""
        found: dict[str, dict[str, str]] = {}
        for host in self.hosts:
            for one in host.holdings:
                found.setdefault(one.uuid, {})[host.name] = one.domain
        return found

    @cached_property
    def serving(self) -> dict[str, list[str]]:
        """The owner's device VMs that serve each client now."""
        found: dict[str, list[str]] = {}
        for name, spec in self.specs.items():
            for client in dict.fromkeys(emulator.client for emulator in spec.emulators):
                found.setdefault(client, []).append(name)
        return found

    @cached_property
    def _served_alone(self) -> frozenset[str]:
        """The clients of whom only device VMs tell: they are no domain of the owner's, or theirs is not there, since
        somebody has undefined it or an apply ended before it was made."""
        return frozenset(self.serving.keys() - {name for name, one in self.specs.items() if one.role is Role.CLIENT})

    @cached_property
    def there(self) -> list[tuple[str, DomainSpec]]:
        """The domains that are there, any owner's, with their hosts."""
        return [(one.spec.host, one.spec) for one in self.observed if one.spec]

    @cached_property
    def uses(self) -> dict[Identity, Users]:
        """Who has which store, anybody's."""
        return uses(specs_of(self.observed))

    @cached_property
    def held(self) -> dict[str, list[tuple[Identity, bool]]]:
        """What each client of the owner's has, and whether it only reads that."""
        found: dict[str, list[tuple[Identity, bool]]] = {}
        for key, users in self.uses.items():
            for use in users.beside(reads=False):
                if use.owner == self.intent.owner:
                    found.setdefault(use.client, []).append((key, use.reads))
        return found

    @cached_property
    def _taken_names(self) -> dict[str, dict[str, str]]:
        """The names of domains that are not the owner's, by host, with whose each is (empty: not devicevm's)."""
        found: dict[str, dict[str, str]] = {}
        for host in self.hosts:
            for one in host.holdings:
                if one.domain not in self.made_on[host.name]:
                    found.setdefault(one.domain, {})[host.name] = one.owner
        return found

    def _made_on(self, host: Host) -> frozenset[str]:
        """The owner's domains on a host, of which one whose specification cannot be read may be on any."""
        names = [one.domain for one in host.holdings if one.domain in self.mine]
        made = [self.mine[name] for name in names if self.mine[name].consumer is Consumer.VM]
        return frozenset(one.name for one in made if one.spec is None or one.spec.host == host.name)

    def after(self, draft: Draft) -> View:
        """What there is once a draft is carried out."""
        gone = {one.name for one in draft.doomed}
        mine = {
            name: one
            for name, one in self.mine.items()
            if name not in gone and (one.role is Role.CLIENT or not one.spec)
        }
        resting = {spec.name for spec in draft.kept if spec.name not in self.running}
        for spec in draft.desired:
            runs = spec.name not in resting
            live = spec if runs else None
            seen = ObservedDomain(spec.name, spec.uuid, spec.owner, spec.role, runs, spec, live, consumer=spec.consumer)
            parts = tuple(emulator.id for emulator in spec.emulators if emulator.part)
            mine[spec.name] = replace(seen, parts=parts) if parts and runs else seen
        hosts = tuple(
            replace(host, holdings=tuple(one for one in host.holdings if one.domain not in self.made_on[host.name]))
            for host in self.hosts
        )
        others = [one for one in self.observed if one.owner != self.intent.owner]
        there = tuple(sorted([*mine.values(), *others], key=lambda one: one.name))
        return View(hosts, there, self.intent, self.origin)

    def undeclared(self, topology: Topology) -> list[ObservedDomain]:
        """The owner's clients that the manifests do not speak of."""
        declared = {client.name for client in topology.clients}
        return [one for one in self.mine.values() if one.role is Role.CLIENT and one.name not in declared]

    def undeclared_outside(self, topology: Topology) -> frozenset[str]:
        """The clients of whom only device VMs tell, and that the manifests do not speak of."""
        return self._served_alone - {client.name for client in topology.clients}

    def leaving(self, topology: Topology) -> frozenset[str]:
        """The clients that are not declared and are to go."""
        names = self._not_declared(topology)
        return names if self.intent.prune else names & self.intent.remove

    def staying(self, topology: Topology) -> frozenset[str]:
        """The clients that are not declared and stay."""
        return self._not_declared(topology) - self.leaving(topology)

    def _not_declared(self, topology: Topology) -> frozenset[str]:
        return self.undeclared_outside(topology).union(one.name for one in self.undeclared(topology))

    def why_not_called(self, name: str) -> dict[str, str]:
        """On which hosts a domain of this owner's cannot have that name, and why: nothing of another's is ever
        touched."""
        found = {}
        for host, holder in self.uuids.get(naming.domain_uuid(self.intent.owner, name), {}).items():
            if holder != name:
                found[host] = f"the domain {holder} has its UUID: rename it back, or undefine it"
        for host, owner in self._taken_names.get(name, {}).items():
            whose = f"owner {owner}'s" if owner else "not devicevm's"
            found[host] = f"a domain of this name is there already and is {whose}"
        return found

    def why_no_client(self, client: Client) -> str:
        """Why a client of this owner's cannot have its name, wherever it is."""
        there = self.mine.get(client.name)
        if there and there.role is Role.DEVICE_VM:
            return "a device VM of this owner's has this name"
        if there and there.consumer is not client.consumer:
            was, wanted = there.consumer.value, client.consumer.value
            return f"a client of this name is there for {was}, not {wanted}: remove that first, or rename this one"
        return ""

    def warnings(self, policies: tuple[HostPolicy, ...]) -> list[str]:
        """What the user should know of hosts as they are declared, and of domains that are there."""
        unsaid = {host.name for host in self.hosts}.difference(policy.name for policy in policies)
        texts = [text for policy in policies for text in self._ignored(policy, unsaid)]
        texts += [f"{one.name}: {one.broken}" for one in self.mine.values() if one.broken]
        texts += [
            f"{domain.name} was changed while it runs, until it is restarted: {'; '.join(domain.live_drift)}"
            for domain in self.mine.values()
            if domain.live_drift
        ]
        return texts

    def _ignored(self, policy: HostPolicy, unsaid: set[str]) -> Iterator[str]:
        """What a Host says that no host is; of the hosts `unsaid` no Host says anything."""
        host = next((one for one in self.hosts if one.name == policy.name), None)
        if host is None:
            # One set of manifests serves many hosts, one after the other: a name is wrong where a host misses its Host.
            if unsaid:
                known = nearest(policy.name, unsaid)
                yield f"Host {policy.name}: there is no such host, and what is said of it holds for none ({known})"
            return
        there = {cpu.id for cpu in host.cpus}
        for what, cpus in (("reservedCpus", policy.reserved_cpus), ("sharedCpus", policy.shared_cpus)):
            if missing := set(cpus) - there:
                has = f"it has {format_cpuset(there)}" if there else "nothing is known of its CPUs"
                yield f"Host {policy.name}: {what} has CPU {format_cpuset(missing)}, which is not there: {has}"


def _at(domain: ObservedDomain, host: str) -> ObservedDomain:
    """The domain as one of that host."""
    spec, active = domain.spec, domain.active_spec
    if all(one is None or one.host == host for one in (spec, active)):
        return domain
    there = replace(spec, host=host) if spec else None
    # What is one object stays one.
    running = there if active is spec else replace(active, host=host) if active else None
    return replace(domain, spec=there, active_spec=running)
