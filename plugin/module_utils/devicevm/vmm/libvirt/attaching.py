"""Giving an existing domain a client's devices, and taking them out again.

The mark goes into the domain first and comes off last, and everything between is idempotent: whoever comes after an
interruption finds what was begun, and goes on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from ...domain import DomainSpec
from ...inventory.supports import LIVE_DEVICES
from ..driver import VmmError
from .attached import (
    NAMESPACE,
    PREFIX,
    Change,
    beginning,
    change,
    devices_of,
    marked,
    ours,
)
from .element import to_text
from .metadata import find

if TYPE_CHECKING:
    import libvirt

    from .driver import LibvirtDriver

REMOVAL_LIMIT = 30.0
"""Seconds that a guest may take to let a device go."""


def attach(driver: LibvirtDriver, domain: libvirt.virDomain, spec: DomainSpec) -> None:
    """Make the domain have the devices of `spec` and no others of that client's."""
    definition, live = _trees(driver, domain)
    if find(definition) is not None:
        raise VmmError(f"domain {spec.domain} is devicevm's own", hint="declare it as vm")
    start = beginning(spec.owner, spec.name)
    trees = [definition, *([live] if live is not None else [])]
    # Whether a running domain has room is seen before anything is done.
    now = change(live, start, spec, devices_of(spec, trees), live=True) if live is not None else Change()
    _mark(driver, domain, definition, spec.owner, spec.name, spec)
    if domain.isPersistent():
        driver.change_definition(domain, change(definition, start, spec, devices_of(spec, trees), live=False))
    _change_live(driver, domain, now, start)


def detach(driver: LibvirtDriver, domain: libvirt.virDomain, owner: str, client: str) -> None:
    """Take a client's devices out of a domain, and what was said of them."""
    definition, live = _trees(driver, domain)
    start = beginning(owner, client)
    if live is not None:
        _change_live(driver, domain, change(live, start, None, {}, live=True), start)
    if domain.isPersistent():
        driver.change_definition(domain, change(definition, start, None, {}, live=False))
    _mark(driver, domain, definition, owner, client, None)


def change_definition(driver: LibvirtDriver, domain: libvirt.virDomain, wanted: Change) -> None:
    """Change a definition by libvirt's own calls, which leave the rest of it as it is."""
    config = driver.libvirt.VIR_DOMAIN_AFFECT_CONFIG
    for alias in wanted.remove:
        domain.detachDeviceAlias(alias, config)
    for item in wanted.add:
        domain.attachDeviceFlags(to_text(item), config)


def _trees(driver: LibvirtDriver, domain: libvirt.virDomain) -> tuple[Element, Element | None]:
    """The definition, and the running domain where devices can be added to that."""
    running = domain.isActive() and LIVE_DEVICES in driver.supports
    return driver.xml_of(domain, live=False), driver.xml_of(domain, live=True) if running else None


def _change_live(driver: LibvirtDriver, domain: libvirt.virDomain, wanted: Change, start: str) -> None:
    flag = driver.libvirt.VIR_DOMAIN_AFFECT_LIVE
    for alias in wanted.remove:
        try:
            domain.detachDeviceAlias(alias, flag)
        except driver.libvirt.libvirtError as error:
            # It was asked for before, and the guest has not answered yet.
            if "process of unplug" not in str(error):
                raise
        _wait_until_gone(driver, domain, alias, start)
    for item in wanted.add:
        domain.attachDeviceFlags(to_text(item), flag)


def _wait_until_gone(driver: LibvirtDriver, domain: libvirt.virDomain, alias: str, start: str) -> None:
    end = time.monotonic() + REMOVAL_LIMIT
    while domain.isActive() and alias in ours(driver.xml_of(domain, live=True), start):
        if time.monotonic() >= end:
            raise VmmError(
                f"domain {domain.name()} still holds {alias} after {REMOVAL_LIMIT:.0f} s: its guest does not let it go",
                hint="a guest that boots, or has no driver for hot-plug, does not answer; apply again, or shut it down",
            )
        time.sleep(0.1)


def _mark(
    driver: LibvirtDriver,
    domain: libvirt.virDomain,
    definition: Element,
    owner: str,
    client: str,
    spec: DomainSpec | None,
) -> None:
    """Say in the domain what it is given, or nothing any more. A definition is enough: a start copies it."""
    libvirt = driver.libvirt
    states = [libvirt.VIR_DOMAIN_AFFECT_CONFIG] if domain.isPersistent() else [libvirt.VIR_DOMAIN_AFFECT_LIVE]
    if spec is None and domain.isPersistent() and domain.isActive():
        states.append(libvirt.VIR_DOMAIN_AFFECT_LIVE)
    for state in states:
        live = state == libvirt.VIR_DOMAIN_AFFECT_LIVE
        before = driver.xml_of(domain, live=True) if live else definition
        wanted = marked(before, owner, client, spec)
        if wanted is None and marked(before, "", "", None) is None:
            continue
        driver.set_metadata(domain, wanted, PREFIX, NAMESPACE, state)
    if spec is None and domain.isPersistent():
        _without_empty_metadata(driver, domain)


def _without_empty_metadata(driver: LibvirtDriver, domain: libvirt.virDomain) -> None:
    """Take the last trace out of a definition: libvirt leaves an empty element behind when metadata is removed."""
    libvirt = driver.libvirt
    tree = driver.xml_of(domain, live=False, flags=libvirt.VIR_DOMAIN_XML_SECURE)
    kept = tree.find("metadata")
    if kept is not None and not len(kept):
        tree.remove(kept)
        driver.connection.defineXML(to_text(tree))
