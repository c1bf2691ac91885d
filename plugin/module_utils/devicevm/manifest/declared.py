"""All documents of one reading, findable by kind and name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..errors import Problem
from .document import Document
from .schema import KINDS

BUILT_IN_IMAGES = ("base", "client", "disk", "files", "net", "simulator", "tpm", "usb")
"""The images that devicevm's own recipes make (images/)."""


@dataclass(frozen=True)
class Declared:
    """`sound` holds, by kind and name, the documents that may be looked into; `names` every document that
    has a kind and a name at all, so that a broken class is not reported as an unknown one too, `broken` those
    that their schema refused, with what it said."""

    sound: dict[str, dict[str, Document]] = field(default_factory=dict)
    names: dict[str, dict[str, Document]] = field(default_factory=dict)
    broken: list[tuple[Document, list[Problem]]] = field(default_factory=list)

    def of(self, kind: str) -> list[Document]:
        """The sound documents of a kind, sorted by name."""
        sound = self.sound.get(kind, {})
        return [sound[name] for name in sorted(sound)]

    def find(self, kind: str, name: str) -> Document | None:
        """The sound document of that kind and name."""
        return self.sound.get(kind, {}).get(name)

    def names_of(self, kind: str) -> list[str]:
        """Every name of that kind, sorted."""
        return sorted(self.names.get(kind, {}))

    def discard(self, document: Document) -> None:
        """No longer looks into a document; its name stays known."""
        self.sound.get(document.kind, {}).pop(document.name, None)


def collect(checked: Iterable[tuple[Document, list[Problem]]]) -> tuple[Declared, list[Problem]]:
    """The documents by kind and name, and a Problem for each name that is given twice.

    Each document comes with what its schema said. Built-in documents come first, so that the user's copy is
    the one reported.
    """
    declared = Declared(sound={kind: {} for kind in KINDS}, names={kind: {} for kind in KINDS})
    problems = []
    for document, found in sorted(checked, key=lambda pair: not pair[0].built_in):
        if found:
            declared.broken.append((document, found))
        if document.kind not in KINDS or not document.name:
            continue
        first = declared.names[document.kind].setdefault(document.name, document)
        if first is not document:
            problems.append(_twice(document, first))
        elif not found:
            declared.sound[document.kind][document.name] = document
    for name in BUILT_IN_IMAGES:
        declared.names["Image"].setdefault(name, Document("", {}, built_in=True))
    return declared, problems


def _twice(document: Document, first: Document) -> Problem:
    place = ("metadata", "name")
    what = f"{document.kind} {document.name}"
    if first.built_in:
        return document.problem(place, f"{what} is built in", "choose another name")
    hint = "rename or remove one of the two"
    return document.problem(place, f"{what} is already declared in {first.where(place)}", hint)
