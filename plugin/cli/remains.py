"""What a VMM has left behind on its host: processes, sockets, mounts and files."""

from __future__ import annotations

import os
from pathlib import Path


def remains_of(root: Path, runtime: str) -> list[str]:
    """What is still there of the embedded VMM in `root`, whose sockets were in `runtime` (empty: it got nowhere)."""
    folders = [str(root), *([runtime] if runtime else [])]
    return [*_processes(folders), *_sockets(folders), *_mounts(folders), *_files(runtime)]


def _processes(folders: list[str]) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue  # it has just ended
        if path.parent.name != str(os.getpid()) and any(os.fsencode(folder) in command for folder in folders):
            found.append(f"process {path.parent.name}")
    return found


def _sockets(folders: list[str]) -> list[str]:
    names = {line.split()[-1] for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()}
    return [f"socket {name}" for name in sorted(names) if name.startswith(tuple(folders))]


def _mounts(folders: list[str]) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()]
    return [f"mount {point}" for point in points if point.startswith(tuple(folders))]


def _files(runtime: str) -> list[str]:
    if not runtime or not os.path.isdir(runtime):
        return []
    return [f"file {runtime}/{name}" for name in sorted(os.listdir(runtime))]
