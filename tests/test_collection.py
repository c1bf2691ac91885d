"""The Ansible collection: staged, built, installed, and read by Ansible's own checkers."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from stage_collection import NAME, REPO, stage, version

if TYPE_CHECKING:
    from conftest import Run

BIN = Path(sys.executable).parent
MODULES = sorted(path.stem for path in (REPO / "plugin/modules").glob("*.py") if path.stem != "__init__")

needs_modules = pytest.mark.skipif(not MODULES, reason="plugin/modules has no module yet")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def installed(run: Run, staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path that holds nothing but the collection, installed from its tarball."""
    built, path = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("collections")
    run(BIN / "ansible-galaxy", "collection", "build", "--output-path", built, cwd=staged)
    (tarball,) = built.iterdir()
    assert tarball.name == f"devicevm-vmm-{version()}.tar.gz"
    run(BIN / "ansible-galaxy", "collection", "install", "--offline", "-p", path, tarball, cwd=built)
    return path


def test_files_are_where_ansible_wants_them(staged: Path) -> None:
    galaxy = yaml.safe_load((staged / "galaxy.yml").read_text())
    assert galaxy["version"] == version()
    assert (staged / "plugins/module_utils/devicevm/__init__.py").is_file()
    assert (staged / "meta/runtime.yml").is_file()
    assert not (staged / "plugins/cli").exists()
    assert not [path for path in staged.rglob("*") if path.is_symlink()]


def test_checkout_has_no_galaxy_yml(project_files: list[Path]) -> None:
    """`ansible-galaxy` would install the collection from git by it, without modules."""
    assert not [path for path in project_files if path.name == "galaxy.yml"]


def test_staging_inside_the_checkout_is_refused() -> None:
    with pytest.raises(SystemExit, match="inside the checkout"):
        stage(REPO / "build")


def test_staging_again_drops_what_is_gone(tmp_path: Path) -> None:
    stale = tmp_path / NAME / "plugins/modules/gone.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    stage(tmp_path)
    assert not stale.exists()


@needs_modules
def test_every_module_is_in_the_action_group(staged: Path) -> None:
    runtime = yaml.safe_load((staged / "meta/runtime.yml").read_text())
    assert sorted(runtime["action_groups"]["vmm"]) == MODULES


def test_tarball_installs(run: Run, installed: Path) -> None:
    listed = run(BIN / "ansible-galaxy", "collection", "list", "--format", "json", "-p", installed, cwd=installed)
    collections = json.loads(listed[listed.index("{") :])
    ours = collections[str(installed / "ansible_collections")]["devicevm.vmm"]
    assert ours == {"version": version()}


@needs_modules
@pytest.mark.parametrize("module", MODULES)
def test_module_documents_itself(run: Run, installed: Path, module: str) -> None:
    name = f"devicevm.vmm.{module}"
    text = run(BIN / "ansible-doc", "--json", name, cwd=installed, ANSIBLE_COLLECTIONS_PATH=str(installed))
    entry = json.loads(text)[name]
    assert entry["doc"]["short_description"]
    assert entry["examples"].strip()


@needs_modules
def test_ansible_lint(run: Run, staged: Path, project_files: list[Path]) -> None:
    """The collection as a whole, and the playbooks among the examples, which are not shipped in it."""

    command: list[str | Path] = [BIN / "ansible-lint", "--nocolor", "--offline", "-c", REPO / ".ansible-lint"]

    def lint(*paths: Path, cwd: Path) -> None:
        places = {"ANSIBLE_COLLECTIONS_PATH": str(staged.parents[2]), "PATH": f"{BIN}:{os.environ['PATH']}"}
        run(*command, *paths, cwd=cwd, **places)

    lint(cwd=staged)
    examples = [path for path in project_files if path.is_relative_to(REPO / "examples") and path.suffix == ".yml"]
    playbooks = [path for path in examples if re.search(r"^[- ] hosts:", path.read_text(), re.MULTILINE)]
    if playbooks:
        lint(*playbooks, cwd=REPO)


@needs_modules
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sanity(run: Run) -> None:
    """`ansible-test sanity`: the first run makes its environments and takes about a minute, later ones seconds."""
    output = run("sh", REPO / "packaging/sanity.sh", PYTHON=sys.executable)
    assert 'Running sanity test "validate-modules"' in output
