"""Sets of CPUs (or NUMA nodes) in the kernel's and libvirt's notation: `0-3,^2,8`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import DevicevmError

# libvirt's VIR_DOMAIN_CPUMASK_LEN: a set of any size must not cost any memory.
MAX_CPUS = 16384
_ITEM = re.compile(r"(\^?)([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


def parse_cpuset(text: str) -> tuple[int, ...]:
    """The CPUs of `0-3,^2,8`, ascending: (0, 1, 3, 8); empty text is the empty set.

    `^N` takes N away from what stands before it, as in libvirt (virBitmapParse).
    DevicevmError for anything else and for ids beyond libvirt's limit of 16384 CPUs.
    """
    cpus: set[int] = set()
    if not text.strip():
        return ()
    for item in text.split(","):
        match = _ITEM.fullmatch(re.sub(r"\s+", "", item))
        if not match or (match[1] and match[3]):
            raise _invalid(text, f"{item.strip()[:40]!r} is no CPU and no range")
        first, last = int(match[2]), int(match[3] or match[2])
        if last < first or last >= MAX_CPUS:
            raise _invalid(text, f"{item.strip()} is empty or goes beyond CPU {MAX_CPUS - 1}")
        if match[1]:
            cpus.discard(first)
        else:
            cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def format_cpuset(cpus: Iterable[int]) -> str:
    """The shortest text for a set of CPUs: (0, 1, 3, 8) -> `0-1,3,8`."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _invalid(text: str, why: str) -> DevicevmError:
    return DevicevmError(f"{text[:80]!r} is no set of CPUs: {why}", hint="write numbers and ranges, such as 0-3,^2,8")
