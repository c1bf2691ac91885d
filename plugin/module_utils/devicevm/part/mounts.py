"""What is mounted where, as the kernel tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo (proc(5)): what is at `place`, a file system of that kind on `source`. `state`
    are the file system's own options."""

    place: str
    kind: str
    source: str
    state: frozenset[str]


def mounts() -> list[Mount]:
    """All mounts; of those at one place the last is the one that is seen."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return [_mount(line) for line in table]


def mount_at(place: str) -> Mount | None:
    """What is mounted at a path, and seen there."""
    return next((mount for mount in reversed(mounts()) if mount.place == place), None)


def _mount(line: str) -> Mount:
    first, last = line.rstrip("\n").split(" - ")
    kind, source, state = last.split(" ")
    return Mount(_plain(first.split(" ")[4]), kind, _plain(source), frozenset(state.split(",")))


def _plain(text: str) -> str:
    """Blanks and the like are in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
