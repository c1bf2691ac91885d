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


def repin(driver: LibvirtDriver, domain: libvirt.virDomain, cpus: tuple[int, ...], owner: str) -> None:
    """Move the floating threads of a domain: those of its next start, and the running ones.

    Which these are is seen in each for itself: what was pinned while it runs is not in the definition.
    """
    name = domain.name()
    states = [(False, driver.xml_of(domain, live=False))] if domain.isPersistent() else []
    states += [(True, driver.xml_of(domain, live=True))] if domain.isActive() else []
    if any(find(tree) is not None for live, tree in states):
        raise VmmError(f"domain {name} is devicevm's own, and is moved by its own plan")
    others = {old.owner for live, tree in states if (old := moved_from_element(tree)) and old.owner != owner}
    if theirs := sorted(one.owner for one in driver.observe() if one.owner in others) if others else ():
        raise VmmError(f"domain {name} was moved by owner {theirs[0]!r}, not by {owner!r}, and is left alone")
    count = cpu_count(driver.connection)
    if strange := [number for number in cpus if not 0 <= number < count]:
        raise VmmError(
            f"domain {name} cannot be moved to CPU {strange[0]}: the host has CPU 0-{count - 1}",
            hint="make the plan anew",
        )
    for live, tree in states:
        _repin(driver, domain, live, tree, cpus, owner, count)


def _repin(
    driver: LibvirtDriver,
    domain: libvirt.virDomain,
    live: bool,
    tree: Element,
    cpus: tuple[int, ...],
    owner: str,
    count: int,
) -> None:
    """The same of a definition, or of what runs. The mark goes first and comes off last, so that an interrupted move is
    known for one."""
    old = moved_from_element(tree)
    if not cpus and not old:
        return
    vcpus = int(tree.findtext("vcpu", "1"))
    threads = floating_threads(without_moves(tree, old), vcpus, frozenset(range(count)))
    if cpus:
        was = old.cpus if old and old.cpus != cpus else ()
        moved = Moved(owner, cpus, was, threads.vcpus, threads.emulator, threads.iothreads)
        _mark(driver, domain, to_text(mark_of(moved)), live)
    there = {info[0] for info in domain.vcpus()[0]} if live else set(range(vcpus))
    for number in threads.vcpus:
        if number in there:
            driver.pin_vcpu(domain, number, cpu_map(cpus, count), live=live)
    for number in threads.iothreads:
        driver.pin_iothread(domain, number, cpu_map(cpus, count), live=live)
    if threads.emulator:
        driver.pin_emulator(domain, cpu_map(cpus, count), live=live)
    if not cpus:
        _mark(driver, domain, None, live)


def _mark(driver: LibvirtDriver, domain: libvirt.virDomain, text: str | None, live: bool) -> None:
    libvirt = driver.libvirt
    flag = libvirt.VIR_DOMAIN_AFFECT_LIVE if live else libvirt.VIR_DOMAIN_AFFECT_CONFIG
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, text, PREFIX if text else None, NAMESPACE, flag)
