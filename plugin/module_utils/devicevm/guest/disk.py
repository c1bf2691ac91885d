"""Taking in a whole disk image of the user's: a copy in the store, told from others by its content."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from pathlib import Path

from ..errors import DevicevmError
from ..record import digest
from ..vmm.overlay import image_format
from .image import DISK, DiskContent, Image, write_description
from .packages import Progress
from .recipe import DiskRecipe
from .store import ImageStore

_BLOCK = 2**20


def take_in(name: str, disk: DiskRecipe, *, store: ImageStore, arch: str, progress: Progress = lambda _: None) -> Image:
    """The image of that name for `arch`, current in `store`; copied only when its content is not there yet.

    DevicevmError for a file that is no disk image, that is not what its SHA-256 says, or that changes meanwhile.
    """
    if disk.firmware == "bios" and arch != "x86_64":
        raise DevicevmError(f"image {name}: machines of {arch} have no BIOS", hint="firmware: efi")
    kind = image_format(disk.file)
    progress(f"reading {disk.file}")
    sha256 = _read(Path(disk.file))
    if disk.sha256 not in ("", sha256):
        raise DevicevmError(
            f"{disk.file} has SHA-256 {sha256}, not {disk.sha256}", hint="get the file again, or correct disk.sha256"
        )
    content = DiskContent(kind, os.path.getsize(disk.file), sha256, disk.firmware, disk.agent)
    image = Image(name, digest({"name": name, "arch": arch, "disk": content}), arch, disk=content)
    if store.find(name, image.digest) is not None:
        store.make_current(image)
        progress(f"image {image.folder} is up to date")
        return image
    with store.workspace() as workspace:
        built = workspace / "image"
        built.mkdir()
        if _read(Path(disk.file), built / DISK) != sha256:
            raise DevicevmError(f"{disk.file} has changed while it was read", hint="stop whoever writes it")
        write_description(image, built)
        store.publish(built, image)
    progress(f"image {image.folder}: {kind}, {content.size / 1e6:.0f} MB")
    return image


def _read(source: Path, target: Path | None = None) -> str:
    """The file's SHA-256; `target` becomes a copy of it, with holes where it has nothing but zeros."""
    found = hashlib.sha256()
    try:
        with ExitStack() as opened:
            data = opened.enter_context(source.open("rb"))
            copy = opened.enter_context(target.open("wb")) if target else None
            while block := data.read(_BLOCK):
                found.update(block)
                if copy and block.count(0) == len(block):
                    copy.seek(len(block), os.SEEK_CUR)
                elif copy:
                    copy.write(block)
            if copy:
                copy.truncate()
    except OSError as error:
        raise DevicevmError(f"{source} cannot be taken in: {error.strerror}", hint="is there room?") from error
    return found.hexdigest()
