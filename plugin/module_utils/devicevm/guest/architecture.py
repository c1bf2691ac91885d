"""Processor architectures that images can be built for, and what the distribution calls each."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from ..errors import DevicevmError

DEFAULT = "x86_64"


@dataclass(frozen=True)
class Architecture:
    """`name` as `uname -m` says it, `debian` as dpkg does; `triplet` names library folders and cross compilers."""

    name: str
    debian: str
    triplet: str
    elf_machine: int
    """e_machine of its ELF files (gABI)."""


ARCHITECTURES = {
    item.name: item
    for item in (
        Architecture("x86_64", "amd64", "x86_64-linux-gnu", 62),
        Architecture("aarch64", "arm64", "aarch64-linux-gnu", 183),
    )
}


def architecture(name: str) -> Architecture:
    """DevicevmError when no images can be built for `name`."""
    if name not in ARCHITECTURES:
        raise DevicevmError(
            f"images cannot be built for {name}", hint=f"architectures: {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[name]


def build_architecture() -> str:
    """The machine's own, whose compiler needs no cross compilation; x86_64 where it is none of those known."""
    machine = platform.machine()
    return machine if machine in ARCHITECTURES else DEFAULT
