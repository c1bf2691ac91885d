"""A command of the host's that a host part needs, and that ends by itself."""

from __future__ import annotations

import subprocess

from ..errors import DevicevmError

PATIENCE = 20.0
"""Seconds that it may take."""


class Unfinished(DevicevmError):
    """It did not end in time. It was killed, and one that waits for a disk inside the kernel is there until that
    answers."""


def run(*command: str, patience: float = PATIENCE) -> None:
    """Run it; DevicevmError with what it says when it fails."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise DevicevmError(f"cannot run {command[0]}: {error.strerror}", hint="is it installed?") from error
    try:
        said = process.communicate(timeout=patience)[1].strip().replace("\n", " ")
    except subprocess.TimeoutExpired as error:
        text = f"{' '.join(command)} (process {process.pid}) does not end within {patience:g} s"
        raise Unfinished(text) from error
    finally:
        # Not waited for: subprocess collects it later, when it has ended.
        process.kill()
    if process.returncode:
        raise DevicevmError(said or f"{command[0]} ended with {process.returncode}")
