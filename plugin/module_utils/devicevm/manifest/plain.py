"""Data of others (a task's arguments, say) as plain JSON data, bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Problem
from .document import Place, path_text, shown
from .scalar import BadScalar, bounded, finite
from .yamlreader import MAX_DEPTH, MAX_NODES


def plain_data(data: Any, source: str, problems: list[Problem]) -> Any:
    """`data` as dicts, lists and scalars of exactly those types; what has no place in JSON becomes None
    and a Problem. Subclasses (Ansible tags its strings) become what they are subclasses of."""
    return _Plain(source, problems).take(data, ())


class _Plain:
    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        self.total = 0

    def take(self, data: Any, place: Place) -> Any:
        self.total += 1
        if self.total > MAX_NODES or len(place) >= MAX_DEPTH:
            if self.total <= MAX_NODES + 1:
                self._problem(place, f"too large: {MAX_NODES} values in {MAX_DEPTH} levels at most")
                self.total = MAX_NODES + 1
            return None
        if isinstance(data, Mapping):
            return {self._key(key, place): self.take(value, (*place, str(key))) for key, value in data.items()}
        if isinstance(data, Sequence) and not isinstance(data, (str, bytes, bytearray)):
            return [self.take(item, (*place, index)) for index, item in enumerate(data)]
        try:
            return _scalar(data)
        except BadScalar as bad:
            self._problem(place, str(bad.args[0]))
            return None

    def _key(self, key: Any, place: Place) -> str:
        if not isinstance(key, str):
            self._problem(place, f"key {shown(key)} is no text")
        return str(key)

    def _problem(self, place: Place, message: str) -> None:
        self.problems.append(Problem(self.source, 0, 0, path_text(place), message))


def _scalar(data: Any) -> Any:
    if data is None or isinstance(data, bool):
        return data
    if isinstance(data, str):
        text = str.__str__(data)
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            raise BadScalar("NUL and half a surrogate pair are not allowed in text")
        return text
    if isinstance(data, int):
        return bounded(int(data))
    if isinstance(data, float):
        return finite(float(data))
    raise BadScalar(f"{type(data).__name__} has no place in a manifest")
