"""Which shared libraries a program needs, read from its ELF headers: nothing is run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import DevicevmError

MAGIC = b"\x7fELF"
_FOLDERS = ("/lib/{triplet}", "/usr/lib/{triplet}", "/lib", "/usr/lib", "/lib64", "/usr/lib64")


@dataclass(frozen=True)
class ElfNeeds:
    """What a file asks of the loader; `interpreter` and `libraries` are empty for a static one."""

    interpreter: str
    libraries: tuple[str, ...]
    search: tuple[str, ...]


class Tree:
    """The root of unpacked packages, in which absolute paths and links are followed as in the image."""

    def __init__(self, root: Path, triplet: str) -> None:
        self._root = root
        self._folders = tuple(folder.format(triplet=triplet) for folder in _FOLDERS)

    def find(self, path: str) -> Path | None:
        """The regular file that `path` leads to, wherever /usr has been merged or not."""
        for candidate in _spellings(path):
            found = self._follow(candidate, 0)
            if found is not None:
                return found
        return None

    def link_target(self, path: str) -> str | None:
        """What the link at `path` says; None when it is no link."""
        for candidate in _spellings(path):
            place = self._root / candidate.lstrip("/")
            if place.is_symlink():
                return os.readlink(place)
        return None

    def _follow(self, path: str, depth: int) -> Path | None:
        place = self._root / path.lstrip("/")
        if place.is_symlink() and depth < 16:
            target = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(place)))
            return next(
                (found for spelling in _spellings(target) if (found := self._follow(spelling, depth + 1))), None
            )
        return place if place.is_file() and not place.is_symlink() else None

    def closure(self, path: str, file: Path | None = None) -> dict[str, Path]:
        """Image path -> file, for `path` (a program or shared object) and every library below it.

        `file` is the program itself when it comes from elsewhere.
        """
        found: dict[str, Path] = {}
        todo = [path]
        while todo:
            name = todo.pop()
            if name in found:
                continue
            place = file if file and name == path else self.find(name)
            if place is None:
                raise DevicevmError(
                    f"{name} is in none of the packages", hint="add its package to the recipe's packages"
                )
            found[name] = place
            needs = read_needs(place)
            todo += [needs.interpreter] if needs.interpreter else []
            todo += [self._library(library, needs.search, name) for library in needs.libraries]
        return found

    def _library(self, name: str, search: tuple[str, ...], wanted_by: str) -> str:
        origin = os.path.dirname(wanted_by)
        for folder in (*(item.replace("$ORIGIN", origin) for item in search), *self._folders):
            path = os.path.normpath(f"{folder}/{name}")
            if self.find(path) is not None:
                return path
        raise DevicevmError(
            f"{wanted_by} needs {name}, which is in none of the packages",
            hint="add its package to the recipe's packages",
        )


def _spellings(path: str) -> tuple[str, ...]:
    """With /usr and without: packages of one release disagree about it."""
    if path.startswith("/usr/"):
        return (path, path[len("/usr") :])
    return (path, "/usr" + path)


def read_needs(path: Path) -> ElfNeeds:
    """Empty for what is no ELF file, a script for instance. Needs pyelftools."""
    with path.open("rb") as stream:
        if stream.read(4) != MAGIC:
            return ElfNeeds("", (), ())
        try:
            from elftools.common.exceptions import ELFError
            from elftools.elf.elffile import ELFFile
        except ImportError as error:
            raise DevicevmError("building images needs pyelftools", hint="pip install pyelftools") from error
        try:
            return _needs(ELFFile(stream))
        except ELFError as error:
            raise DevicevmError(f"{path} is damaged: {error}") from error


def _needs(elf: object) -> ElfNeeds:
    interpreter, libraries, search = "", [], []
    for segment in elf.iter_segments():  # type: ignore[attr-defined]
        kind = segment.header.p_type
        if kind == "PT_INTERP":
            interpreter = str(segment.get_interp_name())
        elif kind == "PT_DYNAMIC":
            for tag in segment.iter_tags():
                if tag.entry.d_tag == "DT_NEEDED":
                    libraries.append(str(tag.needed))
                elif tag.entry.d_tag in ("DT_RUNPATH", "DT_RPATH"):
                    value = tag.runpath if tag.entry.d_tag == "DT_RUNPATH" else tag.rpath
                    search += str(value).split(":")
    return ElfNeeds(interpreter, tuple(libraries), tuple(search))
