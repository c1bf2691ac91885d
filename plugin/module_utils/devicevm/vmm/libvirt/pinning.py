"""Sets of CPUs as libvirt's pinning calls take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import libvirt


def cpu_count(connection: libvirt.virConnect) -> int:
    """How many CPUs the host has, those included that are offline: a map's length."""
    return int(connection.getCPUMap(0)[0])


def cpu_map(cpus: tuple[int, ...], count: int) -> tuple[bool, ...]:
    """One flag for each of the host's CPUs; an empty set stands for all of them."""
    return tuple(not cpus or number in cpus for number in range(count))
