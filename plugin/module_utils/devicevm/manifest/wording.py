"""What a JSON Schema violation means, in the words of whoever wrote the manifest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ..errors import DevicevmError, Problem
from .document import Document, Place, shown


class Violation(Protocol):
    """What is used of jsonschema's ValidationError.

    `context` holds the violations of each alternative, `relative_path` is the way from the parent's data.
    """

    message: str
    validator: Any
    validator_value: Any
    instance: Any
    schema: Any
    cause: Any

    @property
    def context(self) -> Any: ...
    @property
    def relative_path(self) -> Any: ...
    @property
    def absolute_path(self) -> Any: ...
    @property
    def schema_path(self) -> Any: ...


_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest of `known`, or all of them when there are few."""
    names = sorted(known)
    lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower()[:80], lower, n=1, cutoff=0.6)
    if close:
        return f"did you mean {lower[close[0]]}?"
    if not names:
        return ""
    more = ", ..." if len(names) > 12 else ""
    return f"known: {', '.join(names[:12])}{more}"


def problems_in(
    errors: Iterable[Violation], document: Document, prefix: Place = (), unknown: str = "unknown key"
) -> Iterator[Problem]:
    """The problems that validation errors stand for; `prefix` is where the validated data is in the document."""
    for error in errors:
        for leaf in _leaves(error):
            yield from _problems(leaf, document, (*prefix, *leaf.absolute_path), unknown)


def _leaves(error: Violation) -> Iterator[Violation]:
    """The errors of the alternative that was probably meant, in place of "is not valid under any of"."""
    if error.validator not in ("anyOf", "oneOf") or not error.context or _only_required(error):
        yield error
        return
    branches: dict[Any, list[Violation]] = {}
    for below in error.context:
        # An alternative that is `false` has no path.
        branches.setdefault(next(iter(below.schema_path), None), []).append(below)
    best = min(branches.values(), key=_distance)
    if _distance(best)[0]:
        yield error  # no alternative is of this type: say which types there are
    else:
        for below in best:
            yield from _leaves(below)


def _distance(errors: list[Violation]) -> tuple[bool, bool, int]:
    """How far the data is from an alternative: of another type, of another value, with so many errors."""
    at_root = {error.validator for error in errors if not error.relative_path}
    return "type" in at_root, bool(at_root & {"enum", "const"}), len(errors)


def _only_required(error: Violation) -> bool:
    return all(isinstance(branch, dict) and set(branch) == {"required"} for branch in error.validator_value)


def _problems(error: Violation, document: Document, place: Place, unknown: str) -> Iterator[Problem]:
    if error.validator == "additionalProperties" and error.validator_value is False:
        yield from _unknown_keys(error, document, place, unknown)
    elif error.validator == "required":
        missing = [key for key in error.validator_value if error.message.startswith(repr(key))]
        yield document.problem(place, f"{missing[0] if missing else 'a key'} is missing", _describe(error, missing))
    elif "propertyNames" in list(error.schema_path)[:-1]:
        message = error.cause.message if isinstance(error.cause, DevicevmError) else _expected(error)
        yield document.problem((*place, str(error.instance)), message, key=True)
    elif error.validator == "format" and isinstance(error.cause, DevicevmError):
        yield document.problem(place, error.cause.message, error.cause.hint)
    elif not (_said_by_format(error) or _said_by_type(error)):
        wording = _WORDINGS.get(str(error.validator))
        if wording:
            message, hint = wording(error)
        else:
            message, hint = error.message[:200], ""
        yield document.problem(place, message, _quoting_hint(error, document, place) or hint)


def _unknown_keys(error: Violation, document: Document, place: Place, unknown: str) -> Iterator[Problem]:
    known = error.schema.get("properties", {})
    for key in error.instance:
        if key in known or not isinstance(key, str):
            continue
        if not _matches_pattern(key, error.schema):
            yield document.problem((*place, key), f"{unknown} {shown(key)}", nearest(key, known), key=True)


def _matches_pattern(key: str, schema: dict[str, Any]) -> bool:
    return any(re.search(pattern, key) for pattern in schema.get("patternProperties", {}))


def _describe(error: Violation, missing: list[str]) -> str:
    """What a missing key is for, from the schema's own description."""
    schema = error.schema.get("properties", {}).get(missing[0]) if missing else None
    description = schema.get("description", "") if isinstance(schema, dict) else ""
    return str(description).rstrip(".")


def _said_by_format(error: Violation) -> bool:
    """Whether a failed format says the same, and better."""
    return error.validator in ("pattern", "minimum") and error.schema.get("format") == "quantity"


def _said_by_type(error: Violation) -> bool:
    """Whether keys are asked of something that is no mapping: that it is none is said already."""
    return error.validator == "oneOf" and _only_required(error) and not isinstance(error.instance, dict)


def _quoting_hint(error: Violation, document: Document, place: Place) -> str:
    """YAML makes booleans and numbers of words that were meant as text."""
    types = error.validator_value if error.validator == "type" else ()
    text = document.written(place)
    if text and "string" in ([types] if isinstance(types, str) else types) and not isinstance(error.instance, str):
        number = isinstance(error.instance, (int, float)) and not isinstance(error.instance, bool)
        meaning = "a number" if number else shown(error.instance)
        return f'{text[:40]} without quotes is {meaning} in YAML: write "{text[:40]}"'
    return ""


def _expected(error: Violation) -> str:
    wanted = error.schema.get("x-expected")
    if wanted:
        return f"{shown(error.instance)} is not {wanted}"
    return f"{shown(error.instance)} does not match {shown(error.validator_value)}"


def _type(error: Violation) -> tuple[str, str]:
    types = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
    return f"{_words(types)} expected, {shown(error.instance)} found", ""


def _words(types: Iterable[Any]) -> str:
    names = list(dict.fromkeys(_TYPES.get(str(name), str(name)) for name in types))
    return " or ".join(names)


def _enum(error: Violation) -> tuple[str, str]:
    known = [value if isinstance(value, str) else shown(value) for value in error.validator_value]
    if isinstance(error.instance, str):
        return f"{shown(error.instance)} is not known here", nearest(error.instance, known)
    return f"one of {', '.join(known)} expected, {shown(error.instance)} found", ""


def _alternatives(error: Violation) -> tuple[str, str]:
    if _only_required(error):
        names = [key for branch in error.validator_value for key in branch["required"]]
        if error.context:
            return f"one of {', '.join(names)} is missing", ""
        given = [name for name in names if name in error.instance]
        return f"{' and '.join(given)} exclude each other", f"give exactly one of {', '.join(names)}"
    if not error.context:
        return f"{shown(error.instance)} fits more than one of the allowed forms", ""
    types = [below.validator_value for below in error.context if below.validator == "type" and not below.relative_path]
    flat = [name for value in types for name in (value if isinstance(value, list) else [value])]
    return f"{_words(flat)} expected, {shown(error.instance)} found", ""


def _dependent(error: Violation) -> tuple[str, str]:
    for key, needed in error.validator_value.items():
        lacking = [name for name in needed if name not in error.instance]
        if key in error.instance and lacking:
            return f"{key} needs {', '.join(lacking)}", ""
    return error.message[:200], ""


def _bound(template: str) -> Callable[[Violation], tuple[str, str]]:
    return lambda error: (template.format(value=shown(error.instance), bound=shown(error.validator_value)), "")


_WORDINGS: dict[str, Callable[[Violation], tuple[str, str]]] = {
    "type": _type,
    "enum": _enum,
    "const": _bound("{bound} expected, {value} found"),
    "anyOf": _alternatives,
    "oneOf": _alternatives,
    "pattern": lambda error: (_expected(error), ""),
    "format": lambda error: (f"{shown(error.instance)} is no {error.validator_value}", ""),
    "dependentRequired": _dependent,
    "minimum": _bound("{value} is less than {bound}"),
    "maximum": _bound("{value} is more than {bound}"),
    "exclusiveMinimum": _bound("{value} is not more than {bound}"),
    "exclusiveMaximum": _bound("{value} is not less than {bound}"),
    "multipleOf": _bound("{value} is no multiple of {bound}"),
    "minLength": _bound("{value} is shorter than {bound} characters"),
    "maxLength": _bound("{value} is longer than {bound} characters"),
    "minItems": _bound("at least {bound} expected in the list"),
    "maxItems": _bound("at most {bound} allowed in the list"),
    "minProperties": _bound("at least {bound} key expected"),
    "maxProperties": _bound("at most {bound} keys allowed"),
    "uniqueItems": _bound("the same value is twice in the list"),
    "not": _bound("{value} is not allowed here"),
}
