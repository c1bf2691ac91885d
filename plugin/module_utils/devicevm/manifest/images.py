"""Image documents among the manifests: a disk's file is told from where it was written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import Problem
from .document import Document
from .storage import absolute, relative_finding

_FILE = ("spec", "disk", "file")


def image_problems(document: Document) -> Iterator[Problem]:
    """What no schema can say of an image."""
    beside = sorted(set(document.spec) - {"disk"})
    if "disk" in document.spec and beside:
        hint = "leave it out, or put it into the disk"
        yield document.problem(("spec", beside[0]), f"a disk is taken in as it is, without {beside[0]}", hint)
    if "disk" in document.spec:
        for finding in relative_finding(_FILE, document.spec["disk"]["file"], document.folder):
            yield document.problem(*finding)


def with_absolute_disk(document: Document) -> dict[str, Any]:
    """The document as plain data, with the path of its disk, if it has one, from the root."""
    data: dict[str, Any] = document.data
    if "disk" not in document.spec:
        return data
    disk = document.spec["disk"]
    file = absolute(disk["file"], document.folder)
    return {**data, "spec": {**document.spec, "disk": {**disk, "file": file}}}
