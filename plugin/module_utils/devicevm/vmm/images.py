"""The image store on a host: `NAME/image.json`, or `NAME.ARCH/image.json`, with `kernel` and `initramfs` beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..guest.architecture import DEFAULT
from ..guest.image import link_name
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
    kernel, initramfs = build / "kernel", build / "initramfs"
    try:
        with open(build / "image.json", "rb") as file:
            data: Any = json.loads(file.read(MAX_DESCRIPTION))
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or not (kernel.is_file() and initramfs.is_file()):
        return None
    text = {key: str(data.get(key) or "") for key in ("name", "digest", "arch", "kernelVersion", "commandLine")}
    arch = text["arch"] or DEFAULT
    if link_name(text["name"], arch) != path.name or not text["digest"]:
        return None
    return ImageFacts(
        name=text["name"],
        digest=text["digest"],
        kernel=str(kernel),
        initramfs=str(initramfs),
        command_line=text["commandLine"],
        arch=arch,
        kernel_version=text["kernelVersion"],
    )
