"""The files that are regions: shared memory of the host, which every member's VMM maps."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from ..channel.region import REGION, is_region_file
from ..domain import Channel, DomainSpec
from ..errors import DevicevmError

_PRIVATE = 0o600


def regions_of(spec: DomainSpec) -> Iterator[Channel]:
    """The regions that a domain has, whoever they are shared with."""
    yield from spec.regions
    yield from (one.channel for one in spec.attachments if one.channel.kind == REGION)


def ensure_region(region: Channel, qemu_user: tuple[int, int] | None) -> None:
    """Make the file of a region where it is not there, for VMMs that run as `qemu_user`. One of the right size stays as
    it is: it is the members' memory. One of another size is from before a change, for which its members were stopped.

    All of it is set aside at once: QEMU would be killed by the first page that there is none for.
    DevicevmError when there is not enough, or somebody else's file is there: in that directory anybody may make one.
    """
    if not is_region_file(region.address):
        raise DevicevmError(f"{region.address} is no place for shared memory")
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(region.address)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in _ours(qemu_user) or found.st_nlink != 1:
            raise DevicevmError(
                f"{region.address} is not devicevm's, and is left alone", hint="see who made it, and remove it"
            )
        if found.st_size == region.size:
            return
        os.unlink(region.address)
    try:
        file = os.open(region.address, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
    except FileExistsError:
        return ensure_region(region, qemu_user)  # another member starts, and was faster
    try:
        os.posix_fallocate(file, 0, region.size)
        if qemu_user and os.getuid() == 0:
            os.fchown(file, *qemu_user)
    except OSError as error:
        os.unlink(region.address)
        raise DevicevmError(
            f"no room for {region.size} bytes of shared memory in {os.path.dirname(region.address)}: {error.strerror}",
            hint="declare a smaller size, or make the directory larger: mount -o remount,size=SIZE /dev/shm",
        ) from error
    finally:
        os.close(file)


def remove_region(path: str) -> None:
    """Remove the file of a region that nobody has any more. Idempotent; what can be no region's is left alone."""
    if not is_region_file(path):
        return
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)


def _ours(qemu_user: tuple[int, int] | None) -> tuple[int, ...]:
    return (os.getuid(), *(qemu_user[:1] if qemu_user else ()))
