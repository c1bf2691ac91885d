"""A host and a device VM as OpenStack Nova has them, and what Nova is asked of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from devicevm.inventory.host import Host
from devicevm.manifest.topology import HostPolicy

from .fleets import MIB

PAGE = 2 * MIB
TARGET = 0.1
"""What devicevm's time is to be of Nova's."""
SEED = 1
REPEAT = 5
"""How often in a row a side is asked the same: schedulers ask about one host after the other."""
FITTING = "Nova's numa_fit_instance_to_host"
BOOKING = f"{FITTING}, numa_usage_from_instance_numa"


@dataclass(frozen=True)
class Nova:
    """What is used of Nova."""

    hardware: Any
    objects: Any


@cache
def nova() -> Nova:
    """Nova, when it is installed."""
    try:
        from nova import objects
        from nova.objects import instance_numa, numa  # noqa: F401 (they register themselves)
        from nova.virt import hardware
    except ImportError as error:
        raise SystemExit(f"{error}: this benchmark needs OpenStack Nova: pip install 'devicevm[bench]'") from error
    return Nova(hardware, objects)


def nova_host(host: Host, policy: HostPolicy) -> Any:
    """The host as Nova's NUMATopology. Memory in MiB, pages in KiB."""
    return nova().objects.NUMATopology(cells=[_nova_cell(host, node.id, policy) for node in host.nodes])


def _nova_cell(host: Host, number: int, policy: HostPolicy) -> Any:
    node = next(node for node in host.nodes if node.id == number)
    usable = set(node.cpus) - set(policy.reserved_cpus)
    here = [one for one in host.holdings if one.nodes == (number,)]
    page_count = node.huge_pages.get(str(PAGE), 0)
    huge = sum(one.memory for one in here if one.page_size == PAGE)
    used = sum(one.memory for one in here)
    topology = nova().objects.NUMAPagesTopology
    small = topology(size_kb=4, total=(node.memory - page_count * PAGE) // 4096, used=(used - huge) // 4096, reserved=0)
    large = topology(size_kb=PAGE // 1024, total=page_count, used=huge // PAGE, reserved=0)
    return nova().objects.NUMACell(
        id=number,
        cpuset=usable,
        pcpuset=usable,
        memory=node.memory // MIB,
        memory_usage=used // MIB,
        cpu_usage=0,
        pinned_cpus={cpu for one in here for cpu in one.cpus},
        siblings=[set(group) for group in {cpu.siblings for cpu in host.cpus if cpu.node == number}],
        # A host without huge pages has its usual ones listed all the same, as libvirt lists them.
        mempages=[small, large] if page_count else [small],
        socket=number,
    )


def nova_instance(count: int, smt: str, memory: int, pages: bool) -> Any:
    """The device VM as Nova's InstanceNUMATopology of one cell."""
    cell = nova().objects.InstanceNUMACell(
        id=0,
        cpuset=set(),
        pcpuset=set(range(count)),
        memory=memory // MIB,
        pagesize=PAGE // 1024 if pages else None,
        cpu_policy="dedicated",
        cpu_thread_policy=smt,
    )
    return nova().objects.InstanceNUMATopology(cells=[cell])


def nova_answer(host: Any, instance: Any) -> Any:
    """The instance's topology on the host, or None."""
    return nova().hardware.numa_fit_instance_to_host(host, instance, {})


def nova_book(host: Any, instance: Any) -> Any:
    """The host with the instance on it, when it fits."""
    fitted = nova_answer(host, instance)
    return nova().hardware.numa_usage_from_instance_numa(host, fitted) if fitted else host
