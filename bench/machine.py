"""The machine that was measured on, in words that let another be compared with it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path


def describe() -> dict[str, str]:
    """Processor, memory, kernel and versions; nothing that tells which machine it is."""
    return {
        "processor": f"{_first('/proc/cpuinfo', 'model name')}, {os.cpu_count()} CPUs",
        "memory": f"{int(_first('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "kernel": _digits(platform.release()),
        "QEMU": _version("qemu-system-x86_64", "--version"),
        "libvirt": _version("virsh", "--version"),
        "nbdkit": _version("nbdkit", "--version"),
        "Python": platform.python_version(),
    }


def _first(path: str, key: str) -> str:
    match = re.search(rf"^{key}\s*:\s*(.+)$", Path(path).read_text(), re.MULTILINE)
    return match[1].strip() if match else "?"


def _version(*command: str) -> str:
    return _digits(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


def _digits(text: str) -> str:
    """The first version number; what a builder puts behind it is of no interest."""
    match = re.search(r"\d+(\.\d+)+", text)
    return match[0] if match else "?"
