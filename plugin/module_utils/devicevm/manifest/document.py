"""A document of a manifest: its plain data, and where in the file each part of it was written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Problem

Place = Sequence[str | int]
"""A way into a document: keys and list indices."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)


@dataclass
class Node:
    """A value and where it stands (1-based).

    `value` is a scalar, a list of nodes or a dict of nodes. `keys` holds the places of a mapping's keys,
    `text` how a scalar was written without quotes, `size` how many nodes it is with all below it and
    `depth` how many levels.
    """

    value: Any
    line: int
    column: int
    text: str = ""
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    size: int = 1
    depth: int = 1

    def hold(self, child: Node) -> None:
        """Counts a child in."""
        self.size += child.size
        self.depth = max(self.depth, child.depth + 1)

    def plain(self) -> Any:
        """The value as dicts, lists and scalars; what an alias repeats is repeated."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


@dataclass(frozen=True)
class Document:
    """One document. `folder` is where its relative paths start; None when it came from no file."""

    source: str
    data: Any
    folder: Path | None = None
    node: Node | None = None
    built_in: bool = False

    @property
    def kind(self) -> str:
        """`Client`, `DeviceClass`...; empty when the document does not say."""
        kind = self.data.get("kind") if isinstance(self.data, dict) else None
        return kind if isinstance(kind, str) else ""

    @property
    def name(self) -> str:
        """metadata.name; empty when the document does not say."""
        metadata = self.data.get("metadata") if isinstance(self.data, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return name if isinstance(name, str) else ""

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of a document that its schema has accepted."""
        spec: dict[str, Any] = self.data["spec"]
        return spec

    def problem(self, place: Place, message: str, hint: str = "", *, key: bool = False) -> Problem:
        """A Problem at `place`, or at the nearest part above it that exists; `key`: at the key, not its value."""
        line, column = self._where(place, key)
        return Problem(self.source, line, column, path_text(place), message, hint)

    def where(self, place: Place) -> str:
        """`file:line` of a part, to point at it from another problem."""
        line = self._where(place, True)[0]
        return f"{self.source}:{line}" if line else self.source

    def written(self, place: Place) -> str:
        """How the scalar at `place` was written when it had no quotes, else nothing."""
        node = self.node
        for step in place:
            node = _child(node, step)
        return node.text if node else ""

    def _where(self, place: Place, key: bool) -> tuple[int, int]:
        node = self.node
        if node is None:
            return 0, 0
        found = node.line, node.column
        for depth, step in enumerate(place):
            child = _child(node, step)
            if child is None:
                break
            last = depth == len(place) - 1
            found = node.keys[str(step)] if key and last and str(step) in node.keys else (child.line, child.column)
            node = child
        return found


def _child(node: Node | None, step: str | int) -> Node | None:
    if node is None:
        return None
    if isinstance(node.value, dict):
        return node.value.get(step)
    if isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
        child: Node = node.value[step]
        return child
    return None


def path_text(place: Place) -> str:
    """`spec.devices[0].class`; keys that are no plain words are quoted in brackets."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{shown(step)}]"
    return text


def shown(value: Any, limit: int = 60) -> str:
    """A value as a message quotes it: one line, no control characters, bounded."""
    if isinstance(value, str):
        head = value[: limit + 1]
        text = '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in head) + '"'
    elif isinstance(value, bool):
        return "true" if value else "false"
    elif value is None:
        return "nothing"
    elif isinstance(value, dict):
        return "a mapping"
    elif isinstance(value, (list, tuple)):
        return "a list"
    else:
        text = str(value)
    return text if len(text) <= limit else text[: limit - 4] + "..." + ('"' if isinstance(value, str) else "")
