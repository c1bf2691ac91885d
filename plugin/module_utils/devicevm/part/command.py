"""A command of the host's that a host part needs, and that ends by itself."""

from __future__ import annotations

import subprocess

from ..errors import DevicevmError

PATIENCE = 20.0
"""Seconds that it may take."""


def run(*command: str, patience: float = PATIENCE) -> None:
    """Run it; DevicevmError with what it says when it fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=patience
        )
    except OSError as error:
        raise DevicevmError(f"cannot run {command[0]}: {error.strerror}", hint="is it installed?") from error
    except subprocess.TimeoutExpired as error:
        raise DevicevmError(f"{command[0]} does not end within {patience:g} s") from error
    if done.returncode:
        said = done.stderr.strip().replace("\n", " ")
        raise DevicevmError(said or f"{command[0]} ended with {done.returncode}")
