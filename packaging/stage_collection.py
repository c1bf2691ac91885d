#!/usr/bin/env python3
"""Stage the Ansible collection devicevm.vmm, ready for ansible-galaxy and ansible-test.

    stage_collection.py [DIR]      prints DIR/ansible_collections/devicevm/vmm

The checkout is no collection: its plugins live in plugin/, and a galaxy.yml in it would make `ansible-galaxy` install
a broken one from git. So the tracked and not ignored files are copied to the places that Ansible wants. DIR (a fresh
temporary folder when it is not given) must be outside the checkout: in an ignored folder `ansible-test` skips
everything and succeeds.

plugin/cli is left out: it belongs to the pip package, needs third-party modules and is no kind of Ansible plugin.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

REPO = Path(__file__).resolve().parent.parent
NAME = PurePosixPath("ansible_collections/devicevm/vmm")

# From the checkout to the collection; the first match wins, None leaves a folder out, as does no match.
PLACES: tuple[tuple[str, str | None], ...] = (
    ("plugin/galaxy.yml.in", None),
    ("plugin/cli", None),
    ("plugin/meta", "meta"),
    ("plugin/guest", "guest"),
    ("plugin", "plugins"),
    ("roles", "roles"),
    ("schemas", "schemas"),
    ("classes", "classes"),
    ("images", "images"),
    ("docs", "docs"),
    ("changelogs", "changelogs"),
    ("README.md", "README.md"),
    ("LICENSE", "LICENSE"),
    ("tests/config.yml", "tests/config.yml"),
    ("tests/sanity", "tests/sanity"),
)


def tracked(repo: Path = REPO) -> list[PurePosixPath]:
    """The files and links of the project, relative to `repo`: in the index or new, not ignored, not deleted."""
    # The checkout may belong to another user, as it does in many pipelines.
    git = ["git", "-C", str(repo), "-c", f"safe.directory={repo}"]
    command = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    there = [name for name in set(names) if (repo / name).is_file() or (repo / name).is_symlink()]
    return [PurePosixPath(name) for name in sorted(there)]


def version(repo: Path = REPO) -> str:
    """The one version, read as pyproject.toml reads it: from the core, without importing it."""
    source = (repo / "plugin/module_utils/devicevm/__init__.py").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise SystemExit("plugin/module_utils/devicevm/__init__.py: no __version__ found")


def place(path: PurePosixPath) -> PurePosixPath | None:
    """Where a file of the checkout goes in the collection; None when it stays out."""
    for source, target in PLACES:
        if path.is_relative_to(source):
            return PurePosixPath(target) / path.relative_to(source) if target else None
    return None


def stage(into: Path, repo: Path = REPO) -> Path:
    """Copy the collection below `into`, over what an earlier run left; returns the collection's folder."""
    if into.resolve().is_relative_to(repo):
        raise SystemExit(f"{into} is inside the checkout, where ansible-test skips everything; name a folder outside")
    root = into / NAME
    if root.exists():
        shutil.rmtree(root)
    for path in tracked(repo):
        target = place(path)
        if target:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repo / path, root / target, follow_symlinks=False)
    template = (repo / "plugin/galaxy.yml.in").read_text()
    (root / "galaxy.yml").write_text(template.replace("@VERSION@", version(repo)))
    return root


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Stage the Ansible collection devicevm.vmm; prints its folder.")
    parser.add_argument("dir", nargs="?", type=Path, help="a folder outside the checkout (default: a fresh one)")
    into = parser.parse_args().dir or Path(tempfile.mkdtemp(prefix="devicevm-collection-"))
    sys.stdout.write(f"{stage(into)}\n")


if __name__ == "__main__":
    main()
