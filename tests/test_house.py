"""The house rules (CONTRIBUTING.md) as tests: linters, types, sizes, imports, names, packages."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from stage_collection import REPO, tracked

if TYPE_CHECKING:
    from conftest import Run

BIN = Path(sys.executable).parent
CORE = REPO / "plugin/module_utils/devicevm"
CLI = REPO / "plugin/cli"
DATA = {"schemas": "schemas", "classes": "classes", "images": "images", "examples": "examples", "plugin/guest": "guest"}

FILE_LINES = 500
FUNCTION_LINES = 70
EMPTY_NAMES = {"common", "helper", "helpers", "misc", "util", "utils"}


def of_kind(paths: list[Path], *suffixes: str) -> list[Path]:
    return [path for path in paths if path.suffix in suffixes]


def relative(path: Path) -> str:
    return str(path.relative_to(REPO))


def in_core(paths: list[Path]) -> list[Path]:
    return [path for path in of_kind(paths, ".py") if path.is_relative_to(CORE)]


# Linters and types


def test_ruff_check(run: Run) -> None:
    run(BIN / "ruff", "check", "--no-cache")


def test_ruff_format(run: Run) -> None:
    run(BIN / "ruff", "format", "--check", "--diff", "--no-cache")


def test_types(run: Run) -> None:
    """mypy, strictly, on the package as it is installed: links in build/types put its roots together."""
    tree = REPO / "build/types"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "devicevm").mkdir(parents=True)
    for target in [*CORE.iterdir(), *([CLI] if CLI.exists() else [])]:
        (tree / "devicevm" / target.name).symlink_to(target)
    run(BIN / "mypy", "-p", "devicevm", MYPYPATH=str(tree))


def test_types_of_packaging(run: Run) -> None:
    run(BIN / "mypy", "packaging/stage_collection.py")


def test_codespell(run: Run, project_files: list[Path]) -> None:
    # The cases are of misspelt words, and of what is said about them: "did you mean...".
    read = [path for path in project_files if not path.is_relative_to(REPO / "tests/cases")]
    prose = [path for path in read if path.suffix not in {".svg", ".xml", ".json"} and path.name != "LICENSE"]
    run(BIN / "codespell", *map(relative, prose))


def test_yamllint(run: Run, project_files: list[Path]) -> None:
    run(BIN / "yamllint", "--strict", *of_kind(project_files, ".yml", ".yaml"))


def test_shellcheck(run: Run, project_files: list[Path]) -> None:
    scripts = [path for path in project_files if is_shell(path)]
    tool = shutil.which("shellcheck")
    if not tool:
        pytest.skip("shellcheck is not installed: make deps")
    # With what they read: a file of functions has no first line that tells its shell.
    run(tool, "--external-sources", *scripts)


def is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(re.match(rb"#!\s*/\S*[/ ](?:ba|da|)sh\b", file.readline(80)))


# Sizes and names


def test_no_file_is_too_long(project_files: list[Path]) -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in of_kind(project_files, ".py", ".c", ".h", ".sh")}
    assert not [f"{relative(path)}: {size} lines" for path, size in sizes.items() if size > FILE_LINES]


def test_no_function_is_too_long(project_files: list[Path]) -> None:
    assert not [
        f"{relative(path)}:{node.lineno} {node.name}: {size} lines"
        for path in of_kind(project_files, ".py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]


def test_names_say_something(project_files: list[Path]) -> None:
    """Ansible's own `module_utils` is the one exception, and no match."""
    names = {path: set(path.relative_to(REPO).with_suffix("").parts) for path in of_kind(project_files, ".py", ".c")}
    assert not [relative(path) for path, parts in names.items() if parts & EMPTY_NAMES]


def test_names_of_tests_are_distinct(project_files: list[Path]) -> None:
    """Test folders are no packages: pytest refuses two modules of one name."""
    names = [path.name for path in project_files if path.name.startswith("test_") and path.suffix == ".py"]
    assert not [name for name in set(names) if names.count(name) > 1]


def test_no_machine_is_named(project_files: list[Path]) -> None:
    """No path of the machine it was written on, and not where that machine gets its packages."""
    pattern = re.compile("|".join([r"(?<![\w.)}>-])/(?:wor" + r"k|roo" + r"t)/", *map(re.escape, package_sources())]))
    found = []
    for path in project_files:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{relative(path)}:{number}: {match[0]}")
    assert not found


def package_sources() -> Iterator[str]:
    """Hosts and folders that pip is told to use here, the public index apart."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
    for url in re.findall(r"\w+://[^\s']+", said.stdout):
        place = urlsplit(url)
        if place.hostname not in {"pypi.org", None}:
            yield str(place.hostname)
        elif place.scheme == "file":
            yield place.path


# Imports of the core: it is a pip package and the collection's module_utils (docs/architecture.md)


def test_core_loads_with_the_standard_library_only(project_files: list[Path]) -> None:
    assert not [
        f"{relative(path)}:{line}: {name}"
        for path in in_core(project_files)
        for line, name in imports(ast.parse(path.read_text()).body)
        if name.split(".")[0] not in sys.stdlib_module_names
    ]


def imports(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Absolute imports that run when a module is loaded: those in `if` and `try` too, but not in functions."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imports(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            handled = [child for handler in getattr(node, "handlers", []) for child in handler.body]
            yield from imports(inner + handled)


def test_core_knows_itself_by_no_name(project_files: list[Path]) -> None:
    """Its name differs between pip and Ansible: relative imports only, and none by a computed name."""
    pattern = re.compile(r"^\s*(?:from|import)\s+(?:devicevm|ansible_collections)\b|import_module\(|__import__\(")
    assert not [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in in_core(project_files)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]


# Packages


def test_every_code_folder_is_a_package(project_files: list[Path]) -> None:
    """setup.py and AnsiballZ find packages by their `__init__.py`."""
    roots = [root for root in (CORE, CLI) if root.exists()]
    folders = {path.parent for path in of_kind(project_files, ".py") for root in roots if path.is_relative_to(root)}
    assert not [relative(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()]


def test_data_is_found_in_the_checkout() -> None:
    data = files("devicevm.data")
    assert not [name for name in expected_data() if not data.joinpath(name).is_file()]


def test_wheel_has_everything(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, source / name, follow_symlinks=False)
    run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", tmp_path / "wheel", source),
    )
    (wheel,) = (tmp_path / "wheel").iterdir()
    packed = set(zipfile.ZipFile(wheel).namelist())
    code = {
        f"{package}/{path.relative_to(root)}"
        for package, root in (("devicevm", CORE), ("devicevm/cli", CLI))
        for path in map(REPO.joinpath, tracked())
        if path.suffix == ".py" and path.is_relative_to(root)
    }
    assert not sorted((code | {f"devicevm/data/{name}" for name in expected_data()}) - packed)


def expected_data() -> list[str]:
    """What the package `devicevm.data` must hold, relative to it. Files whose names start with a dot stay out."""
    return [
        f"{target}/{path.relative_to(source)}"
        for path in tracked()
        for source, target in DATA.items()
        if path.is_relative_to(source) and not any(part.startswith(".") for part in path.parts)
    ]
