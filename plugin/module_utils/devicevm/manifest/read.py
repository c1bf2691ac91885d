"""The one way from manifests to a Topology: read, check everything, build.

Needs PyYAML and jsonschema, imported when first used; a target host, which only applies, gets the
Topology as JSON (record.to_data) and needs neither.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DevicevmError, InvalidManifest, Problem
from .build import build_topology
from .declared import Declared, collect
from .document import Document
from .images import image_problems, with_absolute_disk
from .plain import plain_data
from .rules import rule_problems
from .schema import check_document
from .source import read_texts
from .topology import Topology
from .yamlreader import read_documents

Paths = Iterable[str | os.PathLike[str]]


def read_topology(paths: Paths, *, schemas: Path, classes: Path, stdin: BinaryIO | None = None) -> Topology:
    """What the manifests at `paths` (files, folders, `-` for `stdin`) declare.

    `schemas` and `classes` are the folders with devicevm's own schemas and device classes.
    InvalidManifest with every problem of every file; DevicevmError when PyYAML or jsonschema is missing.
    """
    documents, problems = _read(paths, stdin)
    return _built(documents, problems, schemas, classes)


def check(paths: Paths, *, schemas: Path, classes: Path, stdin: BinaryIO | None = None) -> list[Problem]:
    """Every problem of the manifests at `paths`, sorted by place; none when they can be used."""
    documents, problems = _read(paths, stdin)
    return _judge(documents, problems, schemas, classes)[1]


def topology_from_documents(
    documents: Sequence[Mapping[str, Any]], *, schemas: Path, classes: Path, base: Path | None = None
) -> Topology:
    """What manifests that are data already declare (inline manifests of an Ansible task).

    Problems name them `documents[0]`... Relative paths start at `base`; without one they are problems.
    Raises like read_topology.
    """
    problems: list[Problem] = []
    read = [
        Document(f"documents[{index}]", plain_data(data, f"documents[{index}]", problems), base)
        for index, data in enumerate(documents)
    ]
    return _built(read, problems, schemas, classes)


def read_images(paths: Paths, *, schemas: Path, stdin: BinaryIO | None = None) -> list[dict[str, Any]]:
    """The Image documents at `paths` as plain data, checked and sorted by name; others are passed over.

    Raises like read_topology.
    """
    documents, problems = _read(paths, stdin)
    checked = _checked([document for document in documents if document.kind in ("Image", "")], schemas)
    declared, twice = collect(checked)
    found = sorted({*problems, *_news(checked, problems), *twice})
    images = list(declared.of("Image"))
    found = sorted({*found, *(problem for document in images for problem in image_problems(document))})
    if found:
        raise InvalidManifest(found)
    return [with_absolute_disk(document) for document in images]


def _read(paths: Paths, stdin: BinaryIO | None) -> tuple[list[Document], list[Problem]]:
    texts, problems = read_texts(paths, stdin=stdin)
    documents: list[Document] = []
    for text in texts:
        read, found = read_documents(text)
        documents += read
        problems += found
    if not documents and not problems:
        where = (texts[0].source, 1, 1) if texts else ("", 0, 0)
        problems.append(
            Problem(*where, "", "there is no document to read", "devicevm destroy removes what was declared")
        )
    return documents, problems


def _built(documents: list[Document], problems: list[Problem], schemas: Path, classes: Path) -> Topology:
    declared, found = _judge(documents, problems, schemas, classes)
    if found:
        raise InvalidManifest(found)
    return build_topology(declared)


def _judge(
    documents: list[Document], problems: list[Problem], schemas: Path, classes: Path
) -> tuple[Declared, list[Problem]]:
    # Those that come with devicevm are right: tests see to that.
    checked = [*_checked(documents, schemas), *((document, []) for document in _built_in(classes))]
    declared, twice = collect(checked)
    return declared, sorted({*problems, *_news(checked, problems), *twice, *rule_problems(declared)})


def _built_in(classes: Path) -> list[Document]:
    documents, problems = _read([classes], None)
    if problems:
        raise DevicevmError(f"the built-in device classes cannot be read: {problems[0]}", hint="install devicevm again")
    return [replace(document, built_in=True) for document in documents]


def _checked(documents: list[Document], schemas: Path) -> list[tuple[Document, list[Problem]]]:
    return [(document, check_document(document, schemas)) for document in documents]


def _news(checked: list[tuple[Document, list[Problem]]], reported: list[Problem]) -> Iterator[Problem]:
    """What schemas said, but for values that could not even be read: that their stand-in is wrong is no news."""
    known = {(problem.source, problem.line, problem.column) for problem in reported if problem.line}
    said = (item for document, problems in checked for item in problems)
    yield from (item for item in said if (item.source, item.line, item.column) not in known)
