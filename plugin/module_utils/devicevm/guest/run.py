"""Runs a tool of the build host; a failure becomes a sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DevicevmError

# What to install where a tool is missing (Debian's names).
_PACKAGES = {
    "apt-get": "apt",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "gcc": "gcc libc6-dev libjansson-dev",
    "lz4": "lz4",
    "strip": "binutils",
    "zstd": "zstd",
}


def run_tool(
    command: Sequence[str],
    *,
    hint: str = "",
    timeout: float = 900,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """The standard output; DevicevmError with the end of standard error when the tool fails or is missing.

    `environment` is added to the process's own.
    """
    env = {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", **(environment or {})}
    program = shutil.which(command[0], path=env["PATH"])
    if program is None:
        missing = _PACKAGES.get(command[0], command[0])
        raise DevicevmError(f"{command[0]} is not installed", hint=f"apt-get install {missing}")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            cwd=cwd,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DevicevmError(f"{command[0]} did not finish within {timeout:g} s", hint=hint) from error
    if done.returncode:
        text = (done.stderr or done.stdout).decode(errors="replace").strip()[-2000:]
        raise DevicevmError(f"{command[0]} failed: {text or f'exit status {done.returncode}'}", hint=hint)
    return done.stdout
