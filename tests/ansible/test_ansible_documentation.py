"""What is documented is so: options, examples, defaults."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from playing import BIN, Player
from stage_collection import REPO

if TYPE_CHECKING:
    from conftest import Run

MODULES = ("host_info", "topology")
PAGES = ("docs/ansible.md", "roles/provision/README.md")


@pytest.fixture
def documented(run: Run, collections: Path, tmp_path: Path) -> dict[str, dict[str, Any]]:
    names = [f"devicevm.vmm.{name}" for name in MODULES]
    places = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_HOME": str(tmp_path)}
    found = json.loads(run(BIN / "ansible-doc", "--json", *names, cwd=tmp_path, **places))
    return {name.rpartition(".")[2]: entry for name, entry in found.items()}


@lru_cache
def blocks(page: str) -> list[str]:
    """The indented blocks of a page that are plays or tasks."""
    text = (REPO / page).read_text()
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in found if re.match(r"\s*- ", block)]


def loads(player: Player, book: list[dict[str, Any]]) -> None:
    """Ansible takes it as a playbook: modules, roles, options and templates are known."""
    player.play(book, "--syntax-check")


def tasks_in(book: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [task for play in book for task in play.get("tasks", [])] + [item for item in book if "hosts" not in item]


@pytest.mark.parametrize("module", MODULES)
def test_module_examples(documented: dict[str, dict[str, Any]], player: Player, module: str) -> None:
    tasks = yaml.safe_load(documented[module]["examples"])
    loads(player, [{"hosts": "all", "tasks": tasks}])
    options = documented[module]["doc"]["options"]
    used = [task[name] or {} for task in tasks for name in task if name == f"devicevm.vmm.{module}"]
    assert used
    assert not [key for task in used for key in task if key not in options]


@pytest.mark.parametrize("page", PAGES)
def test_pages_examples(documented: dict[str, dict[str, Any]], player: Player, page: str) -> None:
    assert blocks(page)
    for block in blocks(page):
        book = yaml.safe_load(block)
        loads(player, book if "hosts" in book[0] else [{"hosts": "all", "tasks": book}])
        for task in tasks_in(book):
            for name in MODULES:
                given = task.get(f"devicevm.vmm.{name}") or {}
                assert not [key for key in given if key not in documented[name]["doc"]["options"]]


def test_both_modules_find_their_vmm_alike(documented: dict[str, dict[str, Any]]) -> None:
    shared = set(documented["host_info"]["doc"]["options"])
    assert shared == {"connect", "images", "accelerator", "lock_timeout"}
    assert shared < set(documented["topology"]["doc"]["options"])


@pytest.mark.parametrize("module", MODULES)
def test_documentation_is_readable(run: Run, collections: Path, tmp_path: Path, module: str) -> None:
    places = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_HOME": str(tmp_path)}
    text = run(BIN / "ansible-doc", f"devicevm.vmm.{module}", cwd=tmp_path, PAGER="cat", **places)
    assert "EXAMPLES:" in text
    assert "RETURN VALUES:" in text
    assert "Sphinx" not in text


def test_the_controller_s_needs_are_declared(collections: Path) -> None:
    root = collections / "ansible_collections/devicevm/vmm"
    declared = yaml.safe_load((root / "meta/execution-environment.yml").read_text())
    requirements = root / declared["dependencies"]["python"]
    assert "jsonschema" in requirements.read_text()
    project = (REPO / "pyproject.toml").read_text()
    assert f'"{requirements.read_text().strip()}"' in project
    assert os.path.isfile(root / "schemas/client.schema.json")
    assert os.path.isfile(root / "classes/disk.yaml")
