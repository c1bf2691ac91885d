"""Where manifests come from: files, folders and standard input, as bounded texts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import Problem

MAX_FILE_BYTES = 4 * 2**20
MAX_TOTAL_BYTES = 64 * 2**20
MAX_FILES = 10_000
SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


@dataclass(frozen=True)
class Text:
    """One file's bytes. `source` is its name as the user wrote it, `folder` what relative paths in it start from."""

    source: str
    content: bytes
    folder: Path


def read_texts(
    paths: Iterable[str | os.PathLike[str]], *, stdin: BinaryIO | None = None
) -> tuple[list[Text], list[Problem]]:
    """The texts of `paths` in order, each file once, and a Problem for each that cannot be read.

    A folder stands for all `*.yaml`, `*.yml` and `*.json` below it, sorted, without hidden ones;
    `-` for standard input (`stdin`, a binary stream). Nothing is raised.
    """
    texts: list[Text] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    budget = MAX_TOTAL_BYTES
    for path in _files(paths, problems):
        if "\0" in path:
            problems.append(_problem(path.replace("\0", "\\0"), "is no name of a file"))
            continue
        key = path if path == STDIN else os.path.realpath(path)
        if key in seen:
            continue
        seen.add(key)
        if len(seen) > MAX_FILES or budget <= 0:
            problems.append(
                _problem(path, f"too much to read: {MAX_FILES} files and {MAX_TOTAL_BYTES >> 20} MiB at most")
            )
            break
        text = _read(path, stdin, problems)
        if text:
            budget -= len(text.content)
            texts.append(text)
    return texts, problems


def _problem(source: str, message: str, hint: str = "") -> Problem:
    return Problem(_printable(source), 0, 0, "", message, hint)


def _printable(path: str) -> str:
    """A file name as it can be printed: names need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _files(paths: Iterable[str | os.PathLike[str]], problems: list[Problem]) -> Iterable[str]:
    for path in (os.fspath(path) for path in paths):
        if path == STDIN or not os.path.isdir(path):
            yield path
            continue
        found = list(_below(path, problems))
        if not found:
            problems.append(_problem(path, "no manifests in this folder", f"they end in {', '.join(SUFFIXES)}"))
        yield from found


def _below(folder: str, problems: list[Problem]) -> Iterable[str]:
    def unreadable(error: OSError) -> None:
        problems.append(_problem(str(error.filename), f"cannot be read: {error.strerror}"))

    for where, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(where, name)
            # A pipe or a device that lies in a folder by chance must not stop the reader.
            if name.endswith(SUFFIXES) and not name.startswith(".") and _is_regular(path):
                yield path


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # a dangling link: reading it reports why


def _read(path: str, stdin: BinaryIO | None, problems: list[Problem]) -> Text | None:
    if path == STDIN:
        if stdin is None:
            problems.append(_problem("<stdin>", "there is no standard input to read here"))
            return None
        return _bounded("<stdin>", stdin, Path.cwd(), problems)
    try:
        with open(path, "rb") as stream:
            return _bounded(path, stream, Path(os.path.abspath(path)).parent, problems)
    except OSError as error:
        problems.append(_problem(path, f"cannot be read: {error.strerror}"))
        return None


def _bounded(source: str, stream: BinaryIO, folder: Path, problems: list[Problem]) -> Text | None:
    content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        problems.append(_problem(source, f"larger than {MAX_FILE_BYTES >> 20} MiB", "split it into several files"))
        return None
    return Text(_printable(source), content, folder)
