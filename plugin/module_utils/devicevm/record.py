"""Frozen dataclasses to and from plain JSON data.

Every document that leaves the process (plan, inventory, the specification kept in a
domain's metadata) is a tree of frozen dataclasses. Field names become camelCase keys; fields
that hold their default are left out, so documents stay short and old readers keep working; a
field with the metadata `ALWAYS` is never left out.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import operator
import sys
import types
import typing
from collections.abc import Callable
from functools import cache, cached_property
from json.encoder import encode_basestring
from typing import Any, TypeVar

from .errors import DevicevmError

T = TypeVar("T")

_PLAIN = frozenset({str, int, float, bool, type(None)})
_NOTHING = object()

ALWAYS = {"always": True}
"""Metadata of a field that a document must say even when it is the default: its kind and version."""


def camel(name: str) -> str:
    """`memory_free` -> `memoryFree`; a trailing underscore (`class_`) is dropped."""
    head, *rest = name.rstrip("_").split("_")
    return head + "".join(word.capitalize() for word in rest)


def to_data(value: Any) -> Any:
    """A dataclass tree as dicts, lists, strings and numbers, ready for json."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is tuple or kind is list:
        return [to_data(item) for item in value]
    if kind is dict:
        return {key: to_data(item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        found = {}
        for name, key, default, make in _said(kind):
            item = getattr(value, name)
            if item is not default and item != (make() if make else default):
                found[key] = item if type(item) in _PLAIN else to_data(item)
        return found
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {key: to_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_data(item) for item in value]
    return value


def from_data(kind: type[T], data: Any, where: str = "") -> T:
    """The dataclass `kind` from plain data; unknown keys and wrong shapes raise DevicevmError."""
    result = _build(kind, data, where or kind.__name__)
    return typing.cast(T, result)


def canonical_json(value: Any) -> str:
    """One text for one meaning: sorted keys, no white space."""
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if kind is list and {*map(type, value)} == {str}:
        # What names are made from: an encoder is not made for each of a fleet's.
        return f"[{','.join(map(encode_basestring, value))}]"
    return _CANONICAL.encode(to_data(value))


def digest(value: Any, length: int = 64) -> str:
    """The first `length` hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def digest_of_values(value: Any) -> str:
    """A digest of records, equal for equal ones. It is of their fields' values in order, not of the document that
    `to_data` makes, which takes several times as long; of a record that has a `digest` of its own, it is of that."""
    return hashlib.sha256(_VALUES.encode(value).encode()).hexdigest()


class _Getters(dict[type, Callable[[Any], Any]]):
    """For each kind of record what gets its digest where it has one, else the values of its fields, in order."""

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        names = [field.name for field in dataclasses.fields(kind)]
        if isinstance(vars(kind).get("digest"), cached_property):
            self[kind] = operator.attrgetter("digest")
        elif len(names) > 1:
            self[kind] = operator.attrgetter(*names)
        else:
            self[kind] = lambda record: tuple(getattr(record, name) for name in names)
        return self[kind]


_GETTERS = _Getters()


def _values(record: Any) -> Any:
    return _GETTERS[type(record)](record)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_VALUES = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False, default=_values)


@cache
def _said(kind: type) -> list[tuple[str, str, Any, Any]]:
    """Name, key, default and its maker of each field; one that is always said has a default that nothing equals."""
    found = []
    for field in dataclasses.fields(kind):
        make = None if field.default_factory is dataclasses.MISSING else field.default_factory
        default = field.default
        if field.metadata.get("always") or (default is dataclasses.MISSING and make is None):
            default, make = _NOTHING, None
        found.append((field.name, camel(field.name), default, make))
    return found


@cache
def _fields(kind: type) -> dict[str, tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    return {camel(field.name): (field.name, hints[field.name]) for field in dataclasses.fields(kind)}


def _build(kind: Any, data: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_record(kind, data, where)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        (inner,) = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        return _build(inner, data, where)
    if origin is tuple:
        _expect(isinstance(data, (list, tuple)), where, "a list", data)
        inner = typing.get_args(kind)[0]
        return tuple(_build(inner, item, f"{where}[{index}]") for index, item in enumerate(data))
    if origin is dict:
        _expect(isinstance(data, dict), where, "a mapping", data)
        inner = typing.get_args(kind)[1]
        return {str(key): _build(inner, item, f"{where}.{key}") for key, item in data.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        known = [member.value for member in kind]
        _expect(data in known, where, f"one of {', '.join(map(str, known))}", data)
        return kind(data)
    if kind in (int, float, str, bool):
        wanted = (int, float) if kind is float else kind
        right = isinstance(data, wanted) and (kind is bool or not isinstance(data, bool))
        # JSON's readers take NaN and Infinity; no document needs them, and arithmetic fails on them.
        right = right and (kind is not float or abs(data) <= sys.float_info.max)
        _expect(
            right, where, {int: "an integer", str: "a string", bool: "true or false", float: "a number"}[kind], data
        )
        if data.__class__ is str:
            # A fleet's records say the same words again and again, and names that others say too.
            return sys.intern(data)
    return data


def _build_record(kind: type, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), where, "a mapping", data)
    fields = _fields(kind)
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise DevicevmError(f"{where}: unknown key {', '.join(unknown)}", hint=f"known keys: {', '.join(fields)}")
    values = {fields[key][0]: _build(fields[key][1], item, f"{where}.{key}") for key, item in data.items()}
    missing = [
        camel(field.name)
        for field in dataclasses.fields(kind)
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise DevicevmError(f"{where}: {', '.join(missing)} missing")
    return kind(**values)


def _expect(right: bool, where: str, wanted: str, data: Any) -> None:
    if not right:
        raise DevicevmError(f"{where}: {wanted} expected, {type(data).__name__} found")
