"""A reproducible initramfs: a `newc` cpio archive with no times, no owners and sorted names."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO


@dataclass(frozen=True)
class Entry:
    """One file: `mode` includes the type; a link's target is its data."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


class Archive:
    """Collects entries by absolute path; parents are made as needed; the first to come stays."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._links: dict[str, str] = {}

    def __contains__(self, path: str) -> bool:
        return self.place(path) in self._entries

    def alias(self, path: str, target: str) -> None:
        """A directory link at the root, `/lib` -> `usr/lib`: later paths below it are put where it leads."""
        self._links[path] = target
        self._add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def place(self, path: str) -> str:
        """Where `path` really goes."""
        for link, target in self._links.items():
            if path.startswith(link + "/"):
                return "/" + target + path[len(link) :]
        return path

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._add(path, Entry(stat.S_IFREG | mode, data))

    def link(self, path: str, target: str) -> None:
        self._add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def directory(self, path: str, mode: int = 0o755) -> None:
        self._add(path, Entry(stat.S_IFDIR | mode))

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._add(path, Entry(stat.S_IFCHR | mode, device=(major, minor)))

    def _add(self, path: str, entry: Entry) -> None:
        place = self.place(path)
        for parent in reversed(PurePosixPath(place).parents[:-1]):
            self._entries.setdefault(str(parent), Entry(stat.S_IFDIR | 0o755))
        self._entries.setdefault(place, entry)

    def write(self, output: BinaryIO) -> None:
        for number, path in enumerate(sorted(self._entries), start=1):
            output.write(_record(path.lstrip("/"), number, self._entries[path]))
        output.write(_record("TRAILER!!!", 0, Entry(0)))


def _record(name: str, number: int, entry: Entry) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    numbers = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in numbers) + encoded
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
