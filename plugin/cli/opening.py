"""The VMM that the options mean: opened, locked, asked for a domain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..domain import DomainSpec, ObservedDomain
from ..errors import DevicevmError
from ..guest.store import default_store
from ..manifest.topology import Consumer
from ..vmm.driver import Driver
from ..vmm.lock import lock
from ..vmm.places import overlays_of_all, places_of
from ..vmm.registry import default_uri, open_driver
from .options import Vmm


def open_vmm(vmm: Vmm, wait: float = 5.0) -> Driver:
    """The driver of the VMM that is meant; `wait` seconds for an embedded one that another process has open."""
    return open_driver(vmm.uri, images=store_of(vmm), accelerator=vmm.accelerator, wait=wait)


@contextmanager
def locked_vmm(vmm: Vmm, wait: float) -> Iterator[Driver]:
    """The driver; nobody else changes the VMM meanwhile. DevicevmError names who does, after `wait` seconds."""
    uri = vmm.uri or default_uri()
    with lock(uri, wait), open_vmm(replace(vmm, uri=uri), wait) as driver:
        yield driver


def store_of(vmm: Vmm) -> Path:
    """The folder of the images that device VMs on this VMM boot."""
    return vmm.images or default_store()


def overlays_of(vmm: Vmm) -> tuple[Path, ...]:
    """The folders of copy-on-write disks that may rest on such images."""
    return overlays_of_all(places_of(vmm.uri or default_uri()))


def find_domain(driver: Driver, name: str) -> ObservedDomain:
    """The domain of devicevm's with this name, of any owner; DevicevmError that names those there are."""
    domains = {domain.name: domain for domain in driver.observe() if domain.consumer is Consumer.VM}
    if name in domains:
        return domains[name]
    if name in driver.domain_names():
        raise DevicevmError(f"{name} is a domain, but not one of devicevm's", hint=f"virsh console {name}")
    raise DevicevmError(f"there is no domain {name}", hint=f"there are: {', '.join(domains) or 'none'}")


def specification(domain: ObservedDomain) -> DomainSpec:
    """What the domain was made from; DevicevmError when its metadata cannot be read."""
    spec = domain.active_spec or domain.spec
    if spec is None:
        raise DevicevmError(
            f"{domain.name}: its metadata cannot be read: {domain.broken}", hint="devicevm apply makes it anew"
        )
    return spec
