"""The parameters of device classes: the schema that a class gives for them, their defaults, their check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from ..errors import Problem
from .document import Document, Place, shown
from .schema import check_data, make_validator, metaschema_validator
from .template import OWN_NAMES, is_name
from .wording import nearest

_ONE = frozenset([
    "items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties",
])  # fmt: skip
_MANY = frozenset(["allOf", "anyOf", "oneOf", "prefixItems"])
_NAMED = frozenset(["properties", "patternProperties", "dependentSchemas"])
_PLAIN = frozenset([
    "type", "enum", "const", "default", "title", "description", "examples", "deprecated", "format", "pattern",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems",
    "maxItems", "uniqueItems", "minContains", "maxContains", "required", "dependentRequired", "minProperties",
    "maxProperties", "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "$comment",
])  # fmt: skip
_KEYWORDS = _ONE | _MANY | _NAMED | _PLAIN


def parameter_schema(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a class's parameters: what the class says, and nothing beyond it unless it says so."""
    return {"type": "object", "additionalProperties": False, **spec.get("parameters", {})}


def service_schema(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The same of what a device VM says to a class's service."""
    return {"type": "object", "additionalProperties": False, **spec.get("service", {}).get("parameters", {})}


def complete(schema: Any, given: Any) -> Any:
    """`given` with the defaults of the schema's properties filled in, at every level that is there."""
    if not isinstance(given, Mapping) or not isinstance(schema, Mapping):
        return deepcopy(given)
    result = {key: deepcopy(value) for key, value in given.items()}
    for name, below in schema.get("properties", {}).items():
        if name in result:
            result[name] = complete(below, result[name])
        elif isinstance(below, Mapping) and "default" in below:
            result[name] = deepcopy(below["default"])
    return result


def parameter_problems(
    schema: dict[str, Any], class_name: str, data: Any, document: Document, place: Place
) -> list[Problem]:
    """What is wrong with a device's parameters, which are at `place` in the document and complete."""
    return check_data(make_validator(schema), data, document, place, f"class {class_name} takes no parameter")


def schema_problems(
    document: Document, declared: Any, place: Place = ("spec", "parameters"), own: Iterable[str] = OWN_NAMES
) -> list[Problem]:
    """What is wrong with the schema that a DeviceClass document has at `place` for parameters; `own` are the names that
    mean something else in the templates that refer to them."""
    # The keywords first: the metaschema lets any unknown one pass, and $ref could reach anywhere.
    problems = list(_keyword_problems(declared, document, place)) or check_data(
        metaschema_validator(), declared, document, place
    )
    if problems:
        return problems
    if declared.get("type", "object") != "object":
        return [document.problem((*place, "type"), "parameters are a mapping", "write type: object, or leave it out")]
    return [*_name_problems(declared, document, place, own), *_default_problems(declared, document, place)]


def names_of(schema: Any) -> dict[str, Any]:
    """The properties that a schema knows, whatever alternative they are in."""
    found: dict[str, Any] = {}
    if isinstance(schema, Mapping):
        for keyword in ("if", "then", "else"):
            found.update(names_of(schema.get(keyword)))
        for keyword in _MANY:
            for below in schema.get(keyword, ()):
                found.update(names_of(below))
        found.update(schema.get("properties", {}))
    return found


def _keyword_problems(schema: Any, document: Document, place: Place) -> Iterator[Problem]:
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        here = (*place, keyword)
        if keyword not in _KEYWORDS and not keyword.startswith("x-"):
            hint = nearest(keyword, _KEYWORDS)
            if keyword.startswith("$"):
                hint = "a class's schema holds all it needs: write the referenced part out"
            yield document.problem(here, f"keyword {shown(keyword)} is not allowed in a schema here", hint, key=True)
        elif keyword in _ONE:
            yield from _keyword_problems(value, document, here)
        elif keyword in _MANY and isinstance(value, list):
            for index, below in enumerate(value):
                yield from _keyword_problems(below, document, (*here, index))
        elif keyword in _NAMED and isinstance(value, Mapping):
            for name, below in value.items():
                yield from _keyword_problems(below, document, (*here, name))


def _name_problems(
    schema: Mapping[str, Any], document: Document, place: Place, own: Iterable[str]
) -> Iterator[Problem]:
    for name in schema.get("properties", {}):
        here = (*place, "properties", name)
        if name in own:
            yield document.problem(
                here, f"{name} means something else in command templates", "choose another name", key=True
            )
        elif not is_name(name) or "." in name:
            yield document.problem(
                here, f"{shown(name)} is no name for a parameter", "letters, digits, '-' and '_'", key=True
            )


def _default_problems(schema: Mapping[str, Any], document: Document, place: Place) -> Iterator[Problem]:
    for name, below in schema.get("properties", {}).items():
        here = (*place, "properties", name)
        if isinstance(below, Mapping):
            if "default" in below:
                yield from check_data(make_validator(below), below["default"], document, (*here, "default"))
            yield from _default_problems(below, document, here)
