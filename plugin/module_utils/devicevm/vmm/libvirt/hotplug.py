"""Devices of a running device VM: what an emulator needs, and what of it is there. Pure, but for waiting."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element

from ...domain import Emulator
from ...frontend.disk import letters
from ..driver import VmmError
from .device_vm_xml import backing_disk, channel_elements

REMOVAL_LIMIT = 10.0
"""Seconds that QEMU may take to let a device go."""


def missing(live: Element, emulator: Emulator) -> list[Element]:
    """The devices to attach, disk first: the guest finds its data there when the channel appears."""
    devices = []
    if emulator.store and not list(_disks(live, emulator)):
        devices.append(backing_disk(emulator, _free_target(live)))
    if not list(_channels(live, emulator)):
        devices.extend(channel_elements(emulator))
    return devices


def present(live: Element, emulator: Emulator) -> list[Element]:
    """The devices to detach as libvirt has them, channel first: the emulator goes before its data."""
    return [*_channels(live, emulator), *_disks(live, emulator)]


def wait_until_gone(live: Callable[[], Element], emulator: Emulator, name: str) -> None:
    """libvirt's detach only asks; this waits for the answer. VmmError when the devices stay."""
    end = time.monotonic() + REMOVAL_LIMIT
    while left := present(live(), emulator):
        if time.monotonic() >= end:
            raise VmmError(f"{name} still holds {left[0].tag} of {emulator.id} after {REMOVAL_LIMIT:.0f} s")
        time.sleep(0.05)


def _channels(live: Element, emulator: Emulator) -> Iterator[Element]:
    for channel in live.iterfind("devices/channel"):
        target = channel.find("target")
        if target is not None and target.get("name") == emulator.channel.port:
            yield channel


def _disks(live: Element, emulator: Emulator) -> Iterator[Element]:
    if emulator.serial:
        for disk in live.iterfind("devices/disk"):
            if disk.findtext("serial") == emulator.serial:
                yield disk


def _free_target(live: Element) -> int:
    """The first number whose name and whose SCSI target no disk has: who else gave them may have paired them anew."""
    names = {target.get("dev") for target in live.iterfind("devices/disk/target")}
    targets = {place.get("target") for place in live.iterfind("devices/disk/address[@type='drive'][@controller='0']")}
    return next(n for n in itertools.count() if f"sd{letters(n)}" not in names and str(n) not in targets)
