"""The published schemas: sound themselves, described throughout, in step with the code, and exercised."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from devicevm.inventory.host import Host
from devicevm.manifest.schema import KINDS, load_validator, metaschema_validator
from devicevm.manifest.source import read_texts
from devicevm.manifest.yamlreader import read_documents
from devicevm.planner.plan import Plan
from devicevm.quantity import PATTERN
from devicevm.record import camel, from_data, to_data

REPO = Path(__file__).resolve().parents[2]
SCHEMAS = {
    path.name.removesuffix(".schema.json"): json.loads(path.read_text()) for path in (REPO / "schemas").iterdir()
}
RECORDS: dict[str, type] = {"plan": Plan, "inventory": Host}
STEP = frozenset(("properties", "items", "additionalProperties", "propertyNames", "anyOf", "oneOf", "$ref"))


def test_schemas_are_there() -> None:
    assert set(SCHEMAS) == {*KINDS.values(), *RECORDS}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_sound(name: str) -> None:
    assert not [error.message for error in metaschema_validator().iter_errors(SCHEMAS[name])]
    assert SCHEMAS[name]["$id"].endswith(f"/v1/{name}.schema.json")


def subschemas(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, with its JSON pointer."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword in ("properties", "$defs"):
        for name, below in schema.get(keyword, {}).items():
            yield from subschemas(below, f"{path}/{keyword}/{name}")
    for keyword in ("items", "additionalProperties"):
        yield from subschemas(schema.get(keyword), f"{path}/{keyword}")
    for keyword in ("anyOf", "oneOf"):
        for index, below in enumerate(schema.get(keyword, ())):
            yield from subschemas(below, f"{path}/{keyword}/{index}")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_property_is_described(name: str) -> None:
    schema = SCHEMAS[name]
    for path, below in subschemas(schema):
        if path.rsplit("/", 2)[-2:-1] == ["properties"]:
            target = schema["$defs"][below["$ref"].rsplit("/", 1)[1]] if "$ref" in below else {}
            assert below.get("description") or target.get("description"), path


@pytest.mark.parametrize("name", SCHEMAS)
def test_unknown_keys_are_refused_and_references_stay_inside(name: str) -> None:
    for path, below in subschemas(SCHEMAS[name]):
        if "properties" in below:
            assert below["additionalProperties"] is False, path
        if "$ref" in below:
            assert below["$ref"].startswith("#/$defs/")
            assert below["$ref"].removeprefix("#/$defs/") in SCHEMAS[name]["$defs"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_pattern_lets_a_final_newline_pass(name: str) -> None:
    """For Python, `$` also matches before a final newline."""
    text = json.dumps(SCHEMAS[name])
    assert text.count('"pattern": ') == text.count('$(?!\\\\n)"')


def test_shared_definitions_are_the_same_everywhere() -> None:
    shared: dict[str, Any] = {}
    for name in ("client", "devicevm", "deviceclass", "host"):
        for key, definition in SCHEMAS[name]["$defs"].items():
            assert shared.setdefault(key, definition) == definition, f"{name}: {key}"
    assert shared["quantity"]["pattern"] == PATTERN + "(?!\\n)"


# Every property of a manifest's schema is used by an example, a case or a file of devicevm's own


def resolved(schema: dict[str, Any], below: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in below:
        return {**schema["$defs"][below["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in below.items() if k != "$ref"}}
    return below


def declared_paths(schema: dict[str, Any], below: Any, path: str = "", depth: int = 0) -> Iterator[str]:
    if not isinstance(below, dict) or depth > 14:
        return
    below = resolved(schema, below)
    for name, child in below.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from declared_paths(schema, child, f"{path}.{name}", depth + 1)
    yield from declared_paths(schema, below.get("items"), f"{path}[]", depth + 1)
    for child in below.get("anyOf", ()):
        # A condition may hold conditions: the first level is enough.
        if not path.endswith(("then[]", "else[]")):
            yield from declared_paths(schema, child, path, depth + 1)


def used_paths(data: Any, path: str = "") -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield f"{path}.{key}"
            yield from used_paths(value, f"{path}.{key}")
    elif isinstance(data, list):
        for item in data:
            yield from used_paths(item, f"{path}[]")


def manifests() -> Iterator[Any]:
    good = [path.with_suffix(".manifest") for path in (REPO / "tests" / "cases" / "manifests").glob("*.json")]
    for text in read_texts([*(REPO / "examples").glob("*.yaml"), REPO / "classes", REPO / "images", *good])[0]:
        for document in read_documents(text)[0]:
            yield document.data


@pytest.mark.parametrize("kind", KINDS)
def test_every_property_is_used(kind: str) -> None:
    schema = SCHEMAS[KINDS[kind]]
    used = {path for data in manifests() if data["kind"] == kind for path in used_paths(data)}
    assert used
    assert not sorted(set(declared_paths(schema, schema)) - used)


# Plans and inventories are dataclasses written down


def filled(kind: Any) -> Any:
    """An instance of `kind` in which no field has its default."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{item.name: filled_field(item, hints[item.name]) for item in dataclasses.fields(kind)})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return filled(next(item for item in arguments if item is not type(None)))
    if origin is tuple:
        return (filled(arguments[0]),)
    if origin is dict:
        return {"key": filled(arguments[1])}
    if issubclass(kind, enum.Enum):
        return list(kind)[-1]
    return {int: 7, float: 7.5, str: "text", bool: True}[kind]


def filled_field(item: dataclasses.Field[Any], kind: Any) -> Any:
    if item.name in ("api_version", "kind") and isinstance(item.default, str) and item.default:
        return item.default  # these two have one value only
    return (not item.default) if kind is bool and item.default is not dataclasses.MISSING else filled(kind)


@pytest.mark.parametrize("name", RECORDS)
def test_a_filled_record_validates_and_is_read_back(name: str) -> None:
    record = filled(RECORDS[name])
    data = json.loads(json.dumps(to_data(record)))
    assert not [error.message for error in load_validator(REPO / "schemas", name).iter_errors(data)]
    assert from_data(RECORDS[name], data) == record


@pytest.mark.parametrize("name", RECORDS)
def test_properties_are_the_fields(name: str) -> None:
    schema = SCHEMAS[name]
    seen: set[type] = set()
    compare(RECORDS[name], schema, schema, seen)
    assert {kind.__name__[0].lower() + kind.__name__[1:] for kind in seen - {RECORDS[name]}} == set(schema["$defs"])


def compare(kind: type, below: dict[str, Any], schema: dict[str, Any], seen: set[type]) -> None:
    if kind in seen:
        return
    seen.add(kind)
    fields = {camel(item.name): item for item in dataclasses.fields(kind)}
    assert set(below["properties"]) == set(fields), kind.__name__
    needed = {
        name for name, item in fields.items() if item.default is item.default_factory or "always" in item.metadata
    }
    assert set(below.get("required", ())) == needed, kind.__name__
    hints = typing.get_type_hints(kind)
    for name, item in fields.items():
        hint = hints[item.name]
        values = [member.value for member in hint] if isinstance(hint, type) and issubclass(hint, enum.Enum) else None
        assert below["properties"][name].get("enum") == values, f"{kind.__name__}.{name}"
        for inner in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(inner) and isinstance(inner, type):
                definition = inner.__name__[0].lower() + inner.__name__[1:]
                compare(inner, schema["$defs"][definition], schema, seen)
