"""An image in the store: a directory with `image.json` and `kernel` and `initramfs`, or with a whole `disk`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import DevicevmError
from ..record import from_data, to_data
from .architecture import DEFAULT

KERNEL = "kernel"
INITRAMFS = "initramfs"
DISK = "disk"
DESCRIPTION = "image.json"


@dataclass(frozen=True)
class PackageVersion:
    """A package that went into an image."""

    name: str
    version: str


@dataclass(frozen=True)
class DiskContent:
    """A whole disk with a boot loader and an operating system of its own: `format` is qcow2 or raw, `firmware` what
    starts it (bios, efi), and `agent` whether devicevm's agent runs in it."""

    format: str
    size: int
    sha256: str
    firmware: str = "bios"
    agent: bool = False


@dataclass(frozen=True)
class Image:
    """What image.json says. Sizes are bytes, hashes SHA-256 in hex, `digest` that of all inputs.

    One with a `disk` has neither kernel nor initramfs that anybody but its own boot loader knows of.
    """

    name: str
    digest: str
    arch: str
    kernel_version: str = ""
    command_line: str = ""
    kernel_size: int = 0
    kernel_sha256: str = ""
    initramfs_size: int = 0
    initramfs_sha256: str = ""
    packages: tuple[PackageVersion, ...] = ()
    programs: tuple[str, ...] = ()
    disk: DiskContent | None = None

    @property
    def size(self) -> int:
        """Bytes of all that is booted."""
        return self.disk.size if self.disk else self.kernel_size + self.initramfs_size

    @property
    def folder(self) -> str:
        """The directory's name in the store."""
        return f"{self.name}-{self.digest[:12]}"

    @property
    def link(self) -> str:
        """The name in the store that stands for the current version."""
        return link_name(self.name, self.arch)


def is_complete(folder: Path) -> bool:
    """Whether a directory has all that is booted of an image, of either kind."""
    return (folder / DISK).is_file() or ((folder / KERNEL).is_file() and (folder / INITRAMFS).is_file())


def link_name(name: str, arch: str) -> str:
    """`base` for the image for x86_64, `base.aarch64` for another: no image's name has a dot in it."""
    return name if arch == DEFAULT else f"{name}.{arch}"


def write_description(image: Image, folder: Path) -> None:
    """Writes `folder`/image.json."""
    text = json.dumps(to_data(image), indent=2, sort_keys=True) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def read_description(folder: Path) -> Image:
    """DevicevmError when there is none or it cannot be understood."""
    try:
        data = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DevicevmError(f"{folder} holds no image: {error}", hint="devicevm image build") from error
    return from_data(Image, data, str(folder / DESCRIPTION))
