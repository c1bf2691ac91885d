"""The `region` channel: memory that a device VM and its clients all have.

It is a file in the host's shared memory, which each VMM maps and its guest finds as a PCI device: ivshmem-plain (QEMU's
docs/specs/ivshmem-spec.txt), whose BAR 2 is the memory. There is no connection: the memory outlives every member, and
either end may go and come back. libvirt has words for it (`<shmem>`), but none for a member that only reads; so these
are QEMU's own, where `readonly=on` maps the file without the right to write: what a guest writes is dropped.
"""

from __future__ import annotations

import re

from ..errors import DevicevmError

REGION = "region"
"""What this kind of channel is called."""

LEAST = 4096
"""Bytes of a page: no less can be mapped."""

DEVICE_VM_SLOT = 0x17
CLIENT_SLOT = 0x18
"""The PCI slots of regions, in a device VM below those of links, in a client above those of NICs (channel/link.py,
frontend/net.py): libvirt does not know of them. A region is a function of it: guests find the n-th by number."""
FUNCTIONS = 8

_FILE = re.compile(r"/dev/shm/devicevm-[0-9a-f]{16}")  # noqa: S108 - shared memory has to be there
_PATH = "mem-path="


def region_file(name: str) -> str:
    """The file on the host of the region with that digest of 16 digits. /dev/shm is memory wherever Linux runs, and
    VMMs that are kept to a /dev of their own have it too."""
    return f"/dev/shm/devicevm-{name}"  # noqa: S108


def is_region_file(path: str) -> bool:
    """Whether a path can be a region's."""
    return bool(_FILE.fullmatch(path))


def guest_path(number: int) -> str:
    """Where programs in a device VM find its region of that number: the BAR's file in sysfs, which can be mapped."""
    return f"/sys/bus/pci/devices/0000:00:{DEVICE_VM_SLOT:x}.{number}/resource2"


def member_arguments(name: str, address: str, size: int, place: str, *, read_only: bool) -> tuple[str, ...]:
    """A member's end, as QEMU's arguments; `place` are the bus, slot and function of the device."""
    how = ",readonly=on" if read_only else ""
    return (
        "-object",
        f"memory-backend-file,id={name},{_PATH}{address},size={size},share=on{how}",
        "-device",
        f"ivshmem-plain,memdev={name},{place}",
    )


def place_of(bus: str, slot: int, number: int) -> str:
    """The place of the region of that number, as QEMU's options; DevicevmError when a machine has no more."""
    if number >= FUNCTIONS:
        raise DevicevmError(
            f"region number {number + 1}: a machine has room for {FUNCTIONS}",
            hint="spread the classes over several device VMs: serves.classes",
        )
    return f"bus={bus},addr={slot:#x}.{number},multifunction=on"


def file_of(argument: str) -> str:
    """The file that an argument of QEMU's maps as a region; empty for any other argument."""
    found = [word.removeprefix(_PATH) for word in argument.split(",") if word.startswith(_PATH)]
    return found[0] if found and argument.startswith("memory-backend-file,") and is_region_file(found[0]) else ""
