"""Copy-on-write disks for domains that boot from an image: the image itself is never written."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path

from ..errors import DevicevmError

FORMATS = ("qcow2", "raw")
TIMEOUT = 60
_HEADER = struct.Struct(">4sIQI")
"""Magic, version, and where the base's name is, with its length (QEMU's docs/interop/qcow2.txt)."""
_MAX_NAME = 1023


def ensure_overlay(path: Path, image: str) -> None:
    """Create the qcow2 overlay `path` on `image`; one that is there stays: it is the client's disk."""
    if not path.exists():
        make_overlay(path, image)


def make_overlay(path: Path, image: str) -> None:
    """Create the qcow2 overlay `path` on `image`, in place of one that is there: a device VM starts from the image."""
    try:
        if not Path(image).is_file():
            raise DevicevmError(f"image {image} does not exist")
        # Of a name in the store: what it stands for is another image once a newer one is built.
        image = os.path.realpath(image)
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        half = path.with_suffix(".new")
        half.unlink(missing_ok=True)
        _qemu_img("create", "-q", "-f", "qcow2", "-F", image_format(image), "-b", image, str(half))
        half.rename(path)
    except OSError as error:
        raise DevicevmError(
            f"the overlay {path} cannot be made: {error.strerror}",
            hint="run it as root, or be given access" if isinstance(error, PermissionError) else "",
        ) from error


def base_of(path: Path) -> str:
    """The image that an overlay rests on; empty for what is none. OSError when it cannot be read.

    Read from its header, which is there also while a domain has the overlay locked."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return ""
        magic, _version, place, length = _HEADER.unpack(header)
        if magic != b"QFI\xfb" or not place or length > _MAX_NAME:
            return ""
        file.seek(place)
        return os.fsdecode(file.read(length))


def image_format(image: str) -> str:
    """qcow2 or raw. An image that has a backing file of its own is refused: its header would choose what is read."""
    text = _qemu_img("info", "--output=json", image)
    found = json.loads(text)
    if found.get("format") not in FORMATS:
        raise DevicevmError(f"image {image} is {found.get('format')}", hint=f"use {' or '.join(FORMATS)}")
    if found.get("backing-filename"):
        raise DevicevmError(
            f"image {image} rests on another file, {found['backing-filename']}", hint="flatten it: qemu-img convert"
        )
    return str(found["format"])


def _qemu_img(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["qemu-img", *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False, errors="replace"
        )
    except FileNotFoundError as error:
        raise DevicevmError("qemu-img is not there", hint="apt install qemu-utils") from error
    except subprocess.TimeoutExpired as error:
        raise DevicevmError(f"qemu-img {arguments[0]} took more than {TIMEOUT} s") from error
    if done.returncode != 0:
        raise DevicevmError(f"qemu-img {arguments[0]}: {done.stderr.strip()[:500]}")
    return done.stdout
