"""JSON Schemas: loading them, and validating documents against the one of their kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import API_VERSION
from ..errors import DevicevmError, Problem
from ..inventory.cpuset import parse_cpuset
from ..quantity import parse_bytes
from .document import Document, Place, shown
from .scalar import MAX_INTEGER
from .wording import nearest, problems_in

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

KINDS = {
    "Client": "client",
    "DeviceVM": "devicevm",
    "DeviceClass": "deviceclass",
    "Host": "host",
    "Policy": "policy",
    "Image": "image",
}
"""The kinds of manifests and the schema files that describe them."""

MAX_PROBLEMS = 100
"""Of one document: more would not help anybody."""


def check_document(document: Document, schemas: Path, kinds: Iterable[str] = tuple(KINDS)) -> list[Problem]:
    """What is wrong with one document by itself: its kind, and all that its schema says.

    DevicevmError when jsonschema is not installed or `schemas` lacks the schema.
    """
    if not isinstance(document.data, dict):
        hint = "a document begins with apiVersion, kind, metadata and spec"
        return [document.problem((), f"a mapping expected, {shown(document.data)} found", hint)]
    problem = _kind_problem(document, tuple(kinds))
    if problem:
        return [problem]
    return check_data(load_validator(schemas, KINDS[document.kind]), document.data, document)


def check_data(
    validator: Validator, data: Any, document: Document, prefix: Place = (), unknown: str = "unknown key"
) -> list[Problem]:
    """All problems of `data`, which is the part of the document at `prefix`, sorted by place."""
    found = problems_in(validator.iter_errors(data), document, prefix, unknown)
    try:
        return sorted(set(islice(found, MAX_PROBLEMS)))
    except (re.error, RecursionError) as error:  # a class's own pattern; its own check names the place
        return [document.problem(prefix, f"cannot be checked: {error} in a pattern of the class")]


@cache
def load_validator(schemas: Path, name: str) -> Validator:
    """The validator of `schemas/NAME.schema.json`."""
    path = schemas / f"{name}.schema.json"
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DevicevmError(f"schema {path} cannot be read: {error}", hint="install devicevm again") from None
    return make_validator(schema)


def make_validator(schema: Any) -> Validator:
    """A validator that knows devicevm's formats: quantity, cpuset and regex."""
    library = _jsonschema()
    checker = library.FormatChecker(formats=())
    for name, check in _FORMATS.items():
        checker.checks(name, raises=DevicevmError)(check)
    validator: Validator = library.Draft202012Validator(schema, format_checker=checker)
    return validator


def metaschema_validator() -> Validator:
    """The validator of JSON Schemas themselves."""
    return make_validator(_jsonschema().Draft202012Validator.META_SCHEMA)


def _jsonschema() -> ModuleType:
    """jsonschema; imported late, because a target host that only applies has none."""
    try:
        import jsonschema
    except ImportError:
        raise DevicevmError(
            "checking manifests needs jsonschema",
            hint="apt install python3-yaml python3-jsonschema or pip install devicevm",
        ) from None
    return jsonschema


def _kind_problem(document: Document, kinds: tuple[str, ...]) -> Problem | None:
    known = ", ".join(kinds)
    kind = document.data.get("kind")
    version = document.data.get("apiVersion")
    if "kind" not in document.data or "apiVersion" not in document.data:
        missing = "kind" if "kind" not in document.data else "apiVersion"
        return document.problem(
            (), f"{missing} is missing", f"begin with apiVersion: {API_VERSION} and kind: one of {known}"
        )
    if version != API_VERSION:
        return document.problem(("apiVersion",), f"{shown(version)} is not known", f"write {API_VERSION}")
    if kind == "Plan":
        return document.problem(("kind",), "this is a plan, not a manifest", f"devicevm apply {document.source}")
    if not isinstance(kind, str) or kind not in kinds:
        hint = nearest(kind, kinds) if isinstance(kind, str) else f"known: {known}"
        return document.problem(("kind",), f"kind {shown(kind)} is not known here", hint)
    return None


def _is_quantity(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return True  # the type says so already
    if parse_bytes(value) > MAX_INTEGER:
        raise DevicevmError(f"{shown(value)} is too large a size", hint="64 bits are the limit")
    return True


def _is_cpuset(value: object) -> bool:
    if isinstance(value, str):
        parse_cpuset(value)
    return True


def _is_regex(value: object) -> bool:
    if isinstance(value, str):
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise DevicevmError(f"{shown(value)} is no regular expression: {error}") from None
    return True


_FORMATS = {"quantity": _is_quantity, "cpuset": _is_cpuset, "regex": _is_regex}
