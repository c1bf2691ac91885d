"""Firmware images on the host: is the file there, and still what the plan was made of?"""

from __future__ import annotations

import hashlib
import os
import stat

from ..domain import Firmware
from ..errors import DevicevmError

MAX_BYTES = 64 * 2**20
"""More is no firmware: microcontrollers have megabytes at most, and a PC's ROM 16 MiB."""


def firmware_digest(path: str) -> str:
    """The SHA-256 of a firmware image in hex. DevicevmError when there is no such regular file, or it is too large."""
    try:
        # Not blocking: what stands there may be a pipe that nobody writes to.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DevicevmError(f"firmware {path} cannot be read: {error.strerror}") from error
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise DevicevmError(f"firmware {path} is no regular file")
        if not 0 < status.st_size <= MAX_BYTES:
            raise DevicevmError(f"firmware {path} has {status.st_size} bytes, 1 to {MAX_BYTES} are allowed")
        return hashlib.sha256(stream.read()).hexdigest()


def check_firmware(name: str, firmware: Firmware) -> None:
    """DevicevmError when the image that the device VM `name` is to run is not there, or not the one planned with."""
    found = firmware_digest(firmware.path)
    if not found.startswith(firmware.digest):
        raise DevicevmError(
            f"{name}: firmware {firmware.path} is not what the plan was made with "
            f"(SHA-256 {found[: len(firmware.digest)]}, planned {firmware.digest})",
            hint="make the plan anew",
        )
