"""Whatever is in a manifest, the answer is a list of problems or a topology, never another exception."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

from devicevm.errors import InvalidManifest
from devicevm.manifest.plain import plain_data
from devicevm.manifest.read import check, read_topology, topology_from_documents
from devicevm.manifest.scalar import BadScalar, resolve
from devicevm.manifest.source import read_texts
from devicevm.manifest.template import expand
from devicevm.manifest.topology import Topology
from devicevm.manifest.yamlreader import read_documents
from devicevm.record import canonical_json, from_data, to_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

REPO = Path(__file__).resolve().parents[2]
OWN: dict[str, Any] = {"schemas": REPO / "schemas", "classes": REPO / "classes"}
RUN = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SEEDS = [
    document.data
    for text in read_texts(
        [*sorted((REPO / "examples").glob("*.yaml")), REPO / "tests" / "cases" / "manifests" / "everything.manifest"]
    )[0]
    for document in read_documents(text)[0]
]
YAML_BITS = st.sampled_from([
    "&a ", "*a", "<<: ", "!!python/object:os.system ", "? ", "- ", ": ", "[", "]", "{", "}", "\n", "  ", "---\n", "|\n",
    ">\n", "'", '"', "#", "%", "@", "\t", "010", ".nan", "1e999", "~", "yes", "\ufeff", "\x85", "\x00", "\\", "é",
    "0x", "kind: Client\n", "apiVersion: devicevm/v1\n", "metadata: ", "spec: ", "name: a", "...\n", "&", "*", "!", ",",
])  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["64MiB", "data", "disk", "${x}", "${", "/dev/x", "a\n", "\ud800", "\0", "0-1", "(", "nbd", "[a-z"]
    ),
)
NAMES = [
    "name", "class", "kind", "if", "then", "else", "equals", "store", "size", "file", "block", "volume", "type",
    "pattern", "properties", "items", "oneOf", "anyOf", "not", "$ref", "default", "enum", "required", "format",
    "multipleOf", "additionalProperties", "patternProperties", "dependentSchemas", "minimum",
    "uniqueItems", "const", "contains",
]  # fmt: skip
KEYS = st.one_of(st.text(max_size=8), st.sampled_from(NAMES))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


def ways(data: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a document."""
    items: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [so_far] + [way for key, value in items for way in ways(value, (*so_far, key))]


@st.composite
def mutants(draw: st.DrawFn) -> list[Any]:
    """Documents that were right until something in them was replaced, removed, renamed or moved."""
    documents = [copy.deepcopy(draw(st.sampled_from(SEEDS))) for _ in range(draw(st.integers(1, 3)))]
    for _ in range(draw(st.integers(1, 4))):
        choices = [way for way in ways(documents) if way]
        if not choices:
            break
        way = draw(st.sampled_from(choices))
        parent: Any = documents
        for step in way[:-1]:
            parent = parent[step]
        action = draw(st.sampled_from(["replace", "remove", "rename", "graft"]))
        if action == "remove":
            del parent[way[-1]]
        elif action == "rename" and isinstance(parent, dict):
            parent[draw(KEYS)] = parent.pop(way[-1])
        elif action == "graft":
            source: Any = documents
            for step in draw(st.sampled_from(choices)):
                source = source[step]
            parent[way[-1]] = copy.deepcopy(source)
        else:
            parent[way[-1]] = draw(VALUES)
    return documents


def judge(content: bytes) -> None:
    problems = check(["-"], **OWN, stdin=io.BytesIO(content))
    for problem in problems:
        assert problem.message
        assert len(str(problem)) < 5000
        str(problem).encode()
    if not problems:
        usable(read_topology(["-"], **OWN, stdin=io.BytesIO(content)))


def usable(topology: Topology) -> None:
    """It survives JSON, and the planner will be able to expand every command."""
    assert from_data(Topology, json.loads(canonical_json(topology))) == topology
    assert canonical_json(from_data(Topology, to_data(topology))) == canonical_json(topology)


@RUN
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    judge(content)


@RUN
@given(st.lists(st.one_of(YAML_BITS, st.text(max_size=4)), max_size=40))
def test_any_pieces_of_yaml(pieces: list[str]) -> None:
    judge("".join(pieces).encode(errors="surrogatepass"))


@RUN
@given(mutants())
def test_mutants_inline(documents: list[Any]) -> None:
    try:
        usable(topology_from_documents(documents, **OWN))
    except InvalidManifest as error:
        assert error.problems
        str(error).encode()


@RUN
@given(mutants())
def test_mutants_as_text(documents: list[Any]) -> None:
    texts = [json.dumps(plain_data(document, "", [])) for document in documents]
    judge("\n---\n".join(texts).encode(errors="surrogatepass"))


@RUN
@given(VALUES, VALUES)
def test_any_schema_and_any_parameters(schema: Any, parameters: Any) -> None:
    class_ = {
        "apiVersion": "devicevm/v1",
        "kind": "DeviceClass",
        "metadata": {"name": "own"},
        "spec": {
            "protocol": "bytes",
            "frontends": ["pci-serial"],
            "program": {"command": ["x"]},
            "memory": {"base": "64MiB"},
            "parameters": {"properties": {"a": schema}, **(schema if isinstance(schema, dict) else {})},
        },
    }
    client = {
        "apiVersion": "devicevm/v1",
        "kind": "Client",
        "metadata": {"name": "web"},
        "spec": {
            "vm": {"memory": "64MiB", "boot": {"guestImage": "client"}},
            "devices": [{"name": "d", "class": "own", "parameters": {"a": parameters}}],
        },
    }
    try:
        usable(topology_from_documents([class_, client], **OWN))
    except InvalidManifest as error:
        str(error).encode()


@RUN
@given(st.text(max_size=30))
def test_any_scalar(text: str) -> None:
    try:
        value = resolve(text)
    except BadScalar:
        return
    json.dumps(value, allow_nan=False)
    assert isinstance(value, str) is (value == text)


@RUN
@given(st.text(max_size=30).filter(lambda text: "$" not in text), st.text(max_size=30))
def test_what_a_parameter_holds_is_never_expanded(before: str, value: str) -> None:
    assert expand([before + "${p}"], {"p": value}) == (before + value,)
    assert expand(["${p}"], {"p": [value, value]}) == (value, value)
