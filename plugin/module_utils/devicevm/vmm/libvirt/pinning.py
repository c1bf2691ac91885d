"""Pinning: sets of CPUs as libvirt's calls take them, and domains of others that are moved off dedicated CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from ...inventory.moved import NAMESPACE, PREFIX, Moved, floating_threads, mark_of, moved_from_element, without_moves
from ..driver import VmmError
from .element import to_text
from .metadata import find

if TYPE_CHECKING:
    import libvirt

    from .driver import LibvirtDriver


def cpu_count(connection: libvirt.virConnect) -> int:
    """How many CPUs the host has, those included that are offline: a map's length."""
    # libvirt's test driver says 8 to the first and 16 to the second.
    return max(int(connection.getCPUMap(0)[0]), int(connection.getInfo()[2]))


def cpu_map(cpus: tuple[int, ...], count: int) -> tuple[bool, ...]:
    """One flag for each of the host's CPUs; an empty set stands for all of them."""
    return tuple(not cpus or number in cpus for number in range(count))


def repin(driver: LibvirtDriver, domain: libvirt.virDomain, tree: Element, cpus: tuple[int, ...], owner: str) -> None:
    """Move the floating threads of a domain whose XML is `tree`: the running ones, and those of its next start.

    The mark goes first and comes off last, so that an interrupted move is known for one.
    """
    name = domain.name()
    if find(tree) is not None:
        raise VmmError(f"domain {name} is devicevm's own, and is moved by its own plan")
    old = moved_from_element(tree)
    if old and old.owner != owner and any(one.owner == old.owner for one in driver.observe()):
        raise VmmError(f"domain {name} was moved by owner {old.owner!r}, not by {owner!r}, and is left alone")
    if not cpus and not old:
        return
    count = cpu_count(driver.connection)
    if strange := [number for number in cpus if not 0 <= number < count]:
        raise VmmError(
            f"domain {name} cannot be moved to CPU {strange[0]}: the host has CPU 0-{count - 1}",
            hint="make the plan anew",
        )
    vcpus = int(tree.findtext("vcpu", "1"))
    threads = floating_threads(without_moves(tree, old), vcpus, frozenset(range(count)))
    states = _states(driver, domain)
    if cpus:
        was = old.cpus if old and old.cpus != cpus else ()
        moved = Moved(owner, cpus, was, threads.vcpus, threads.emulator, threads.iothreads)
        _mark(driver, domain, to_text(mark_of(moved)), sum(states))
    for state in states:
        live = state == driver.libvirt.VIR_DOMAIN_AFFECT_LIVE
        there = {info[0] for info in domain.vcpus()[0]} if live else set(range(vcpus))
        for number in threads.vcpus:
            if number in there:
                driver.pin_vcpu(domain, number, cpu_map(cpus, count), live=live)
        for number in threads.iothreads:
            driver.pin_iothread(domain, number, cpu_map(cpus, count), live=live)
        if threads.emulator:
            driver.pin_emulator(domain, cpu_map(cpus, count), live=live)
    if not cpus:
        _mark(driver, domain, None, sum(states))


def _states(driver: LibvirtDriver, domain: libvirt.virDomain) -> list[int]:
    """The flags of what there is of a domain: its definition, and its running self."""
    libvirt = driver.libvirt
    states = [libvirt.VIR_DOMAIN_AFFECT_CONFIG] if domain.isPersistent() else []
    return [*states, *([libvirt.VIR_DOMAIN_AFFECT_LIVE] if domain.isActive() else [])]


def _mark(driver: LibvirtDriver, domain: libvirt.virDomain, text: str | None, flags: int) -> None:
    domain.setMetadata(driver.libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, PREFIX if text else None, NAMESPACE, flags)
