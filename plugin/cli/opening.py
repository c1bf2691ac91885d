"""The VMM that the options mean: opened, locked, asked for a domain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DevicevmError
from ..guest.store import default_store
from ..planner.domain import ObservedDomain
from ..vmm.driver import Driver
from ..vmm.lock import lock
from ..vmm.registry import open_driver
from .options import Vmm


def open_vmm(vmm: Vmm, wait: float = 5.0) -> Driver:
    """The driver of the VMM that is meant; an embedded one that another process has open is waited for, `wait` seconds."""
    return open_driver(vmm.uri, images=store_of(vmm), accelerator=vmm.accelerator, wait=wait)


def store_of(vmm: Vmm) -> Path:
    """The folder of the images that device VMs on this VMM boot."""
    return vmm.images or default_store()


@contextmanager
def locked(driver: Driver, wait: float) -> Iterator[None]:
    """Within, no other devicevm changes this VMM; DevicevmError names who does when `wait` seconds are not enough."""
    with lock(driver.host().vmm.uri, wait):
        yield


def find_domain(driver: Driver, name: str) -> ObservedDomain:
    """The domain of devicevm's with this name, of any owner; DevicevmError that names those there are."""
    domains = {domain.name: domain for domain in driver.observe()}
    if name in domains:
        return domains[name]
    if name in driver.domain_names():
        raise DevicevmError(f"{name} is a domain, but not one of devicevm's", hint=f"virsh console {name}")
    raise DevicevmError(f"there is no domain {name}", hint=f"there are: {', '.join(domains) or 'none'}")
