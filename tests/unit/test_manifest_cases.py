"""Manifests and what is said about them.

Each tests/cases/manifests/NAME.manifest has, beside it, its problems (NAME.txt) or, when there are none, the
topology it declares (NAME.json). DEVICEVM_REGENERATE=1 writes them anew, for review by diff.
(The suffix keeps linters away: many of the cases are no good YAML.)
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from devicevm.errors import InvalidManifest
from devicevm.manifest.read import check, read_topology
from devicevm.manifest.topology import Topology
from devicevm.planner.resources import KINDS
from devicevm.record import from_data, to_data

REPO = Path(__file__).resolve().parents[2]
CASES = REPO / "tests" / "cases" / "manifests"
OWN: dict[str, Any] = {"schemas": REPO / "schemas", "classes": REPO / "classes"}
EXAMPLES = sorted((REPO / "examples").glob("*.yaml"))
CASE_FILES = sorted(CASES.glob("*.manifest"))


@pytest.mark.parametrize("name", [path.stem for path in CASE_FILES])
def test_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES)
    problems = check([f"{name}.manifest"], **OWN)
    if problems:
        suffix, text = "txt", "".join(f"{problem}\n" for problem in problems)
        with pytest.raises(InvalidManifest) as raised:
            read_topology([f"{name}.manifest"], **OWN)
        assert raised.value.problems == problems
    else:
        topology = read_topology([f"{name}.manifest"], **OWN)
        suffix, text = "json", json.dumps(to_data(topology), indent=1).replace(str(CASES), "HERE") + "\n"
    if os.environ.get("DEVICEVM_REGENERATE"):
        for old in CASES.glob(f"{name}.[tj]*"):
            old.unlink()
        (CASES / f"{name}.{suffix}").write_text(text)
    expected = CASES / f"{name}.{suffix}"
    assert expected.is_file(), f"{text}\nDEVICEVM_REGENERATE=1 writes what is expected anew"
    assert text == expected.read_text()


def test_no_expectation_without_a_case() -> None:
    assert {path.stem for path in CASES.iterdir()} == {path.stem for path in CASE_FILES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_right_and_survives_json(path: Path) -> None:
    topology = read_topology([path], **OWN)
    assert topology.clients
    assert from_data(Topology, json.loads(json.dumps(to_data(topology)))) == topology


def test_topology_with_every_key_survives_json() -> None:
    topology = read_topology([CASES / "everything.manifest"], **OWN)
    assert from_data(Topology, json.loads(json.dumps(to_data(topology)))) == topology


DOCUMENTED = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in (REPO / "docs" / "manifests.md", REPO / "docs" / "classes.md")
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("manifest", DOCUMENTED)
def test_examples_of_the_documentation(manifest: str) -> None:
    assert not check(["-"], **OWN, stdin=io.BytesIO(manifest.encode()))


def test_every_key_is_documented() -> None:
    pages = {"deviceclass": ("manifests", "classes")}
    for name in ("client", "devicevm", "deviceclass", "host", "policy"):
        text = "".join((REPO / "docs" / f"{page}.md").read_text() for page in pages.get(name, ("manifests",)))
        keys = set(keys_of(json.loads((REPO / "schemas" / f"{name}.schema.json").read_text())))
        assert not sorted(key for key in keys if not re.search(rf"\b{key}\b", text)), name


def test_every_example_is_documented_and_every_resource_has_one() -> None:
    text = (REPO / "docs" / "manifests.md").read_text().partition("## Examples")[2]
    assert sorted(re.findall(r"\(\.\./examples/([a-z-]+\.yaml)\)", text)) == [path.name for path in EXAMPLES]
    topologies = [read_topology([path], **OWN) for path in EXAMPLES if path.name.startswith("resource-")]
    declared = [one for topology in topologies for one in (*topology.device_vms, *topology.classes)]
    asked = {request.kind for one in declared for alternative in one.resources for request in alternative}
    assert asked == set(KINDS)


def keys_of(schema: Any) -> Iterator[str]:
    """The names of all properties below a schema's spec."""
    if isinstance(schema, dict):
        for keyword, below in schema.items():
            if keyword == "properties":
                yield from below
            yield from keys_of(below)
    elif isinstance(schema, list):
        for below in schema:
            yield from keys_of(below)
