"""Distribution packages as the image builder sees them; apt.py is one implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Package:
    """One package, pinned: the same three always mean the same bytes. `size` in bytes."""

    name: str
    version: str
    sha256: str
    uri: str
    file: str
    size: int


class PackageManager(Protocol):
    """Resolves, fetches and unpacks, without touching what is installed on this machine."""

    def kernel_package(self, flavour: str) -> str:
        """The package with the kernel `cloud` or `generic`."""

    def resolve(self, names: Sequence[str], progress: Progress) -> tuple[Package, ...]:
        """`names` and all they depend on, sorted; DevicevmError for an unknown one."""

    def fetch(self, packages: Sequence[Package], progress: Progress) -> tuple[Path, ...]:
        """The archives, verified, in the order of `packages`; downloads are kept."""

    def unpack(self, archive: Path, target: Path) -> None:
        """Adds an archive's files to the directory `target`, which need not exist."""
