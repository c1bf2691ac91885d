"""YAML (and so JSON) texts to documents with positions.

Built on the parser's events, not on its loader: nothing is constructed from tags, nothing recurses
before the depth is known, and every value keeps its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

from ..errors import DevicevmError, Problem
from .document import Document, Node, shown
from .scalar import BadScalar, resolve
from .source import Text

MAX_DEPTH = 32
MAX_NODES = 250_000
"""In one file, with everything that aliases repeat."""
MAX_DOCUMENTS = 10_000
"""In one file."""

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")


class _Stop(Exception):
    """The rest of the file is not read; the Problem is recorded."""


def read_documents(text: Text) -> tuple[list[Document], list[Problem]]:
    """The documents of a text, empty ones left out, and what is wrong with it as YAML.

    Documents before a syntax error are returned. DevicevmError when PyYAML is not installed.
    """
    problems: list[Problem] = []
    content = _decode(text, problems)
    if content is None:
        return [], problems
    composer = _Composer(text.source, problems)
    documents = []
    try:
        for node in composer.documents(_events(content, text.source, problems)):
            documents.append(Document(text.source, node.plain(), text.folder, node))
    except _Stop:
        pass
    return documents, problems


def _decode(text: Text, problems: list[Problem]) -> str | None:
    if text.content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        problems.append(Problem(text.source, 1, 1, "", "this is UTF-16", "save it as UTF-8"))
        return None
    try:
        content = text.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text.content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        problems.append(Problem(text.source, line, column, "", "this is no UTF-8 text", "save it as UTF-8"))
        return None
    found = _UNPRINTABLE.search(content)
    if found:
        line, column = content.count("\n", 0, found.start()) + 1, found.start() - content.rfind("\n", 0, found.start())
        message = f"character U+{ord(found[0]):04X} is not allowed in YAML"
        problems.append(
            Problem(text.source, line, column, "", message, 'write it as an escape in double quotes, as "\\x07"')
        )
        return None
    return content


def _yaml() -> ModuleType:
    """PyYAML; imported late, because a target host that only applies has none."""
    try:
        import yaml
    except ImportError:
        raise DevicevmError(
            "reading manifests needs PyYAML", hint="apt install python3-yaml python3-jsonschema or pip install devicevm"
        ) from None
    return yaml


def _events(content: str, source: str, problems: list[Problem]) -> Iterator[Any]:
    yaml = _yaml()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        yield from yaml.parse(content, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        reasons = (getattr(error, "context", None), getattr(error, "problem", None) or getattr(error, "reason", None))
        reason = ", ".join(part for part in reasons if part) or "cannot be parsed"
        problems.append(Problem(source, line, column, "", f"this is no YAML: {reason}", _syntax_hint(reason)))
        raise _Stop from None
    except (ValueError, OverflowError) as error:  # PyYAML's own parser, for impossible escapes and versions
        problems.append(Problem(source, 0, 0, "", f"this is no YAML: {error}"))
        raise _Stop from None


def _syntax_hint(reason: str) -> str:
    if "tab" in reason or "cannot start any token" in reason:
        return "indent with spaces, not with tabs; quote text that begins with @, ` or %"
    if "mapping values are not allowed" in reason:
        return "quote text that holds ': ', and check the indentation"
    return ""


@dataclass
class _Frame:
    """A collection that is being read; `key` waits for its value."""

    node: Node
    anchor: str | None
    key: Node | None = None


class _Composer:
    """Events to nodes, with bounds."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        self.total = 0
        self.stack: list[_Frame] = []
        self.anchors: dict[str, Node | None] = {}

    def documents(self, events: Iterable[Any]) -> Iterator[Node]:
        """The root node of each document that is not empty."""
        count = 0
        for event in events:
            name = type(event).__name__
            if name == "DocumentStartEvent":
                self.stack, self.anchors = [], {}
                count += 1
                if count > MAX_DOCUMENTS:
                    self._stop(event, f"more than {MAX_DOCUMENTS} documents in one file", "split it into several files")
                continue
            root = self._take(name, event)
            if root and not (root.value is None and not root.text):
                yield root

    def _take(self, name: str, event: Any) -> Node | None:
        """Takes one event; the root node when it completes one."""
        if name == "ScalarEvent":
            node = Node(self._scalar(event), *_place(event), text=event.value if _is_plain(event) else "")
            return self._complete(self._counted(node, event), event.anchor)
        if name == "AliasEvent":
            return self._complete(self._counted(self._alias(event), event), None)
        if name in ("MappingStartEvent", "SequenceStartEvent"):
            self._open(event, {} if name == "MappingStartEvent" else [])
        elif name in ("MappingEndEvent", "SequenceEndEvent"):
            frame = self.stack.pop()
            return self._complete(frame.node, frame.anchor)
        return None

    def _open(self, event: Any, value: Any) -> None:
        if len(self.stack) >= MAX_DEPTH:
            self._too_deep(event)
        if event.tag:
            self._refuse_tag(event)
        self.stack.append(_Frame(self._counted(Node(value, *_place(event)), event), event.anchor))
        if event.anchor:
            self.anchors[event.anchor] = None  # until it is complete

    def _complete(self, node: Node, anchor: str | None) -> Node | None:
        if anchor:
            self.anchors[anchor] = node
        if not self.stack:
            return node
        frame = self.stack[-1]
        if isinstance(frame.node.value, list):
            frame.node.value.append(node)
            frame.node.hold(node)
        elif frame.key is None:
            frame.key = node
        else:
            self._enter(frame, frame.key, node)
            frame.key = None
        return None

    def _enter(self, frame: _Frame, key: Node, value: Node) -> None:
        """Puts a key and its value into the mapping, unless the key is none."""
        name = key.text or key.value
        if not isinstance(name, str) or not name:
            self._problem(key, "a key is missing, or is no text", "every line of a mapping is `key: value`")
        elif key.text == "<<":
            self._problem(
                key, "merge keys (<<) are not supported", "write the keys out; an alias for a whole value works"
            )
        elif name in frame.node.value:
            line = frame.node.keys[name][0]
            self._problem(key, f"key {shown(name)} is already given in line {line}", "remove one of the two")
        else:
            frame.node.value[name] = value
            frame.node.keys[name] = key.line, key.column
            frame.node.hold(value)

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            self._stop(
                event, f"alias *{event.anchor[:40]} names no anchor before it", "define it with &, or quote the text"
            )
        target = self.anchors[event.anchor]
        if target is None:
            self._stop(event, f"alias *{event.anchor[:40]} holds itself", "write the value out")
        if len(self.stack) + target.depth > MAX_DEPTH:
            self._too_deep(event)
        return target

    def _scalar(self, event: Any) -> Any:
        if event.tag:
            self._refuse_tag(event)
        try:
            if _NOT_TEXT.search(event.value):
                raise BadScalar("NUL and half a surrogate pair are not allowed in text")
            return resolve(event.value) if _is_plain(event) else event.value
        except BadScalar as bad:
            message, hint = (*bad.args, "")[:2]
            self.problems.append(Problem(self.source, *_place(event), "", message, hint))
            return None

    def _counted(self, node: Node, event: Any) -> Node:
        self.total += node.size
        if self.total > MAX_NODES:
            hint = "aliases count as often as they are used; split the file"
            self._stop(event, f"more than {MAX_NODES} values in one file", hint)
        return node

    def _refuse_tag(self, event: Any) -> None:
        problem = Problem(
            self.source,
            *_place(event),
            "",
            f"tag {shown(event.tag)} is not allowed",
            "remove it: manifests are plain data",
        )
        self.problems.append(problem)

    def _problem(self, node: Node, message: str, hint: str) -> None:
        self.problems.append(Problem(self.source, node.line, node.column, "", message, hint))

    def _too_deep(self, event: Any) -> NoReturn:
        self._stop(event, f"nested more than {MAX_DEPTH} levels deep", "manifests are flat; look for a missing bracket")

    def _stop(self, event: Any, message: str, hint: str) -> NoReturn:
        self.problems.append(Problem(self.source, *_place(event), "", message, hint))
        raise _Stop


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _is_plain(event: Any) -> bool:
    return not event.style
