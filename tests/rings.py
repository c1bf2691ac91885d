"""The C side of rings, built for tests: the program of device VMs, and a reader under the sanitizers."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
SOURCES = REPO / "plugin" / "guest" / "ring"
_FLAGS = ("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined")

_FOLDER = tempfile.TemporaryDirectory(prefix="dvm-ring-")
"""Gone when the tests are over."""


@functools.cache
def built(source: Path) -> Path:
    """A program, with what finds wrong accesses, of one C file."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    program = Path(_FOLDER.name) / source.stem
    subprocess.run(
        ["gcc", *_FLAGS, "-fno-sanitize-recover=all", f"-I{SOURCES}", "-o", program, source], check=True, timeout=60
    )
    return program


def read_by_c(path: Path, reads: int) -> list[tuple[int, int, int, int]] | None:
    """Number, length, CRC-32 and how many were lost until then, of each frame; None where there is no ring."""
    program = built(REPO / "tests" / "ring_reader.c")
    done = subprocess.run(
        [program, path, str(reads)], capture_output=True, text=True, check=False, timeout=20, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    if done.stdout == "none\n":
        return None
    fields = [line.split() for line in done.stdout.splitlines()]
    return [(int(number), int(length), int(crc, 16), int(lost)) for number, length, crc, lost in fields]
