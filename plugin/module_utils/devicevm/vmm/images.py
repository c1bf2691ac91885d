"""The image store on a host: `NAME/image.json`, or `NAME.ARCH/image.json`, with `kernel` and `initramfs`, or `disk`,
beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..guest.architecture import DEFAULT
from ..guest.image import DISK, is_complete, link_name
from ..inventory.host import ImageFacts

MAX_DESCRIPTION = 2**16


def images_in(store: Path) -> tuple[ImageFacts, ...]:
    """The images of a store, by name and architecture. One that is incomplete, as while it is built, is none."""
    if not store.is_dir():
        return ()
    found = (_image(path) for path in sorted(store.iterdir()) if path.is_dir())
    return tuple(image for image in found if image)


def _image(path: Path) -> ImageFacts | None:
    # The name is a link to one build: a domain keeps that build when the name moves on.
    build = path.resolve()
    try:
        with open(build / "image.json", "rb") as file:
            data: Any = json.loads(file.read(MAX_DESCRIPTION))
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or not is_complete(build):
        return None
    text = {key: str(data.get(key) or "") for key in ("name", "digest", "arch", "kernelVersion", "commandLine")}
    arch = text["arch"] or DEFAULT
    if link_name(text["name"], arch) != path.name or not text["digest"]:
        return None
    if isinstance(disk := data.get("disk"), dict):
        return ImageFacts(
            name=text["name"],
            digest=text["digest"],
            arch=arch,
            disk=str(build / DISK),
            firmware=str(disk.get("firmware") or "bios"),
            agent=bool(disk.get("agent")),
        )
    return ImageFacts(
        name=text["name"],
        digest=text["digest"],
        kernel=str(build / "kernel"),
        initramfs=str(build / "initramfs"),
        command_line=text["commandLine"],
        arch=arch,
        kernel_version=text["kernelVersion"],
    )
