"""What is free on a host, and in what words it is told: the one place where holdings are counted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..manifest.topology import HostPolicy
from ..quantity import format_bytes
from .cpuset import format_cpuset
from .host import Cpu, Holding, Host, Node

# Names that a message shows before it says "and N others".
_NAMED = 5


@dataclass(frozen=True)
class CpuUse:
    """A CPU and who is on it. `load`: vCPUs of the domains pinned here, each spread evenly over its pins."""

    id: int
    core: str
    socket: int
    node: int
    reserved: bool = False
    dedicated_to: tuple[str, ...] = ()
    pinned_by: tuple[str, ...] = ()
    load: float = 0.0
    pooled: bool | None = None
    """Whether it is in the host's shared pool; None where there is no pool."""

    @property
    def shareable(self) -> bool:
        """A domain may run here beside others."""
        return not (self.reserved or self.dedicated_to or self.pooled is False)

    @property
    def vacant(self) -> bool:
        """Nobody is pinned here: the CPU can be dedicated. Domains that float may still pass by."""
        return not (self.reserved or self.pinned_by or self.pooled)


@dataclass(frozen=True)
class Free:
    """The planner's view of what is left on a host. Memory in bytes.

    `memory` may be negative: libvirt lets domains be defined beyond the host's memory. `floating` is the
    number of vCPUs without pins, `vcpus` how many more vCPUs the policy's overcommit allows on shareable CPUs.
    """

    host: str
    cpus: tuple[CpuUse, ...]
    memory: int
    memory_total: int
    memory_reserved: int
    vcpus: int
    floating: int
    holdings: tuple[Holding, ...]
    node_memory: dict[int, int]
    node_devices: dict[str, str]
    """Address of a device that is held -> the domain that holds it."""
    memory_set_aside: int = 0

    def vacant_cpus(self) -> tuple[int, ...]:
        """CPUs that can be dedicated one by one, ascending."""
        return tuple(cpu.id for cpu in self.cpus if cpu.vacant)

    def shareable_cpus(self) -> tuple[int, ...]:
        """CPUs that may be used beside others, ascending."""
        return tuple(cpu.id for cpu in self.cpus if cpu.shareable)

    def vacant_cores(self) -> tuple[tuple[int, ...], ...]:
        """The CPUs of each core on which every thread is vacant, by lowest CPU."""
        return self._vacant_groups(lambda cpu: cpu.core)

    def vacant_sockets(self) -> tuple[tuple[int, ...], ...]:
        """The CPUs of each socket on which every CPU is vacant, by lowest CPU."""
        return self._vacant_groups(lambda cpu: str(cpu.socket))

    def memory_on(self, nodes: Iterable[int]) -> int:
        """Bytes left for a domain whose memory is bound to `nodes` (none = anywhere).

        Domains that are not bound count against the host as a whole: nobody knows where their pages are.
        """
        wanted = frozenset(nodes)
        if not wanted:
            return self.memory
        there = sum(self.node_memory.get(node, 0) for node in wanted)
        # Domains bound to several of these nodes are missing in the single nodes' figures.
        several = (one for one in self.holdings if len(one.nodes) > 1 and wanted.issuperset(one.nodes))
        return min(self.memory, there - sum(map(usual_memory, several)))

    def _vacant_groups(self, key: Callable[[CpuUse], str]) -> tuple[tuple[int, ...], ...]:
        groups: dict[str, list[CpuUse]] = {}
        for cpu in self.cpus:
            groups.setdefault(key(cpu), []).append(cpu)
        return tuple(tuple(cpu.id for cpu in group) for group in groups.values() if all(cpu.vacant for cpu in group))


def free(host: Host, policy: HostPolicy | None = None, without: frozenset[str] = frozenset()) -> Free:
    """What is free on `host` under `policy`; domains named in `without` are not counted (they are to be replanned)."""
    policy = policy or HostPolicy(name=host.name)
    holdings = tuple(one for one in host.holdings if one.domain not in without)
    cpus = _cpu_uses(host.cpus, holdings, policy)
    floating = sum(one.vcpus for one in holdings if one.floats)
    # What floats may also run on reserved CPUs, but nothing keeps it there: all of it counts here.
    load = sum(cpu.load for cpu in cpus if cpu.shareable) + floating
    shareable = sum(cpu.shareable for cpu in cpus)
    return Free(
        host=host.name,
        cpus=cpus,
        memory=host.memory - policy.reserved_memory - set_aside(host.nodes) - sum(map(usual_memory, holdings)),
        memory_total=host.memory,
        memory_reserved=policy.reserved_memory,
        # Rounded before it is cut: thirds of vCPUs must not lose a whole one.
        vcpus=max(0, int(round(shareable * policy.cpu_overcommit - load, 6))),
        floating=floating,
        holdings=holdings,
        node_memory=_node_memory(host, holdings),
        node_devices={address: one.domain for one in reversed(holdings) for address in one.node_devices},
        memory_set_aside=set_aside(host.nodes),
    )


def describe_taken(view: Free, asked: int, unit: str = "core") -> str:
    """The arithmetic of a refusal: `4 cores asked, 3 free: 0-1 reserved, 6 held by web-dvm`.

    `unit` is core, processor (a socket) or thread, counted as they can be dedicated. The numbers are CPUs.
    """
    count = {
        "core": lambda: len(view.vacant_cores()),
        "processor": lambda: len(view.vacant_sockets()),
        "thread": lambda: len(view.vacant_cpus()),
    }[unit]()
    head = f"{asked} {unit}{'' if asked == 1 else 's'} asked, {count} free"
    reasons = describe_holders(view)
    return f"{head}: {reasons}" if reasons else f"{head} of CPUs {format_cpuset(cpu.id for cpu in view.cpus) or 'none'}"


def describe_holders(view: Free) -> str:
    """Which CPUs are not vacant and why: `0-1 reserved, 6 held by web-dvm, 8 shared by db`; empty when all are."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for cpu in view.cpus:
        if cpu.reserved:
            groups.setdefault(("reserved", ()), []).append(cpu.id)
        elif cpu.pooled:
            groups.setdefault(("in the shared pool", ()), []).append(cpu.id)
        elif cpu.dedicated_to:
            groups.setdefault(("held by", cpu.dedicated_to), []).append(cpu.id)
        elif cpu.pinned_by:
            groups.setdefault(("shared by", cpu.pinned_by), []).append(cpu.id)
    return ", ".join(
        f"{format_cpuset(cpus)} {word}{' ' if names else ''}{_some(list(names))}"
        for (word, names), cpus in groups.items()
    )


def describe_memory(view: Free, asked: int) -> str:
    """The arithmetic of memory: `8GiB asked, 3GiB free of 16GiB: 1GiB reserved, 12GiB held by db`."""
    parts = [f"{_size(view.memory_reserved)} reserved"] if view.memory_reserved else []
    parts += [f"{_size(view.memory_set_aside)} huge pages"] if view.memory_set_aside else []
    held = sorted((one for one in view.holdings if usual_memory(one)), key=lambda one: (-one.memory, one.domain))
    parts += [f"{_size(one.memory)} held by {one.domain}" for one in held[:_NAMED]]
    if held[_NAMED:]:
        rest = sum(one.memory for one in held[_NAMED:])
        parts.append(f"{_size(rest)} by {len(held) - _NAMED} others")
    left = _size(view.memory) if view.memory > 0 else "none"
    head = f"{_size(asked)} asked, {left} free of {_size(view.memory_total)}"
    return f"{head}: {', '.join(parts)}" if parts else head


def _cpu_uses(cpus: tuple[Cpu, ...], holdings: tuple[Holding, ...], policy: HostPolicy) -> tuple[CpuUse, ...]:
    users: dict[int, list[tuple[Holding, float]]] = {cpu.id: [] for cpu in cpus}
    for one in holdings:
        pins = [cpu for cpu in one.cpus if cpu in users]
        for cpu in pins:
            # What floats is counted once, for the whole host.
            users[cpu].append((one, 0.0 if one.floats else one.vcpus / len(pins)))
    reserved, pool = frozenset(policy.reserved_cpus), frozenset(policy.shared_cpus)
    return tuple(
        _cpu_use(cpu, users[cpu.id], cpu.id in reserved, cpu.id in pool if pool else None)
        for cpu in sorted(cpus, key=lambda cpu: cpu.id)
    )


def _cpu_use(cpu: Cpu, users: list[tuple[Holding, float]], reserved: bool, pooled: bool | None) -> CpuUse:
    return CpuUse(
        id=cpu.id,
        core=cpu.core,
        socket=cpu.socket,
        node=cpu.node,
        reserved=reserved,
        pooled=pooled,
        dedicated_to=tuple(one.domain for one, load in users if one.dedicated),
        pinned_by=tuple(one.domain for one, load in users),
        load=sum(load for one, load in users),
    )


def _node_memory(host: Host, holdings: tuple[Holding, ...]) -> dict[int, int]:
    """Bytes of each node less its huge pages and the domains that are bound to it alone."""
    memory = {node.id: node.memory - set_aside((node,)) for node in host.nodes}
    for one in holdings:
        if len(one.nodes) == 1 and one.nodes[0] in memory:
            memory[one.nodes[0]] -= usual_memory(one)
    return memory


def set_aside(nodes: Iterable[Node]) -> int:
    """Bytes that these nodes keep as huge pages: nobody gets them who does not ask for such pages."""
    return sum(int(size) * count for node in nodes for size, count in node.huge_pages.items())


def usual_memory(holding: Holding) -> int:
    """Bytes that a domain takes of the usual memory: none when its memory is huge pages."""
    return 0 if holding.page_size else holding.memory


def _some(names: list[str]) -> str:
    others = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {others} others" if others > 0 else "")


def _size(size: int) -> str:
    """Exact where that reads well, otherwise whole MiB, rounded down: hosts have odd amounts of memory."""
    whole = 2**20
    return format_bytes(size if size < whole else size // whole * whole)
