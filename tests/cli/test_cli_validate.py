"""validate: every problem at once, each with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BROKEN = """\
apiVersion: devicevm/v1
kind: Client
metadata: {name: Web}
spec:
  vm: {memory: 256MiB, boot: {guestImage: client}}
  devices:
    - {name: data, class: dsk}
"""


def test_good_manifests(cli: Any, web: Path) -> None:
    said = cli("validate", web)
    assert (said.status, said.out, said.err) == (0, "No problems.\n", "")
    assert cli("validate", web.parent).status == 0
    assert cli("validate", web, "-o", "json").json == []


def test_standard_input(cli: Any, web: Path) -> None:
    assert cli("validate", "-", stdin=web.read_text()).status == 0
    said = cli("validate", "-", stdin=BROKEN)
    assert said.status == 1
    assert said.out.startswith("<stdin>:3:")


def test_all_problems_with_their_places(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    said = cli("validate", path)
    lines = said.out.splitlines()
    assert said.status == 1
    assert len(lines) == 2
    assert lines[0].startswith(f"{path}:3:")
    assert "metadata.name: " in lines[0]
    assert "spec.devices[0].class: " in lines[1]
    assert "2 problems found" in said.err
    problems = cli("validate", path, "-o", "json").json
    assert [(problem["line"], problem["path"]) for problem in problems] == [
        (3, "metadata.name"),
        (7, "spec.devices[0].class"),
    ]


def test_other_commands_tell_the_same(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    for command in ("plan", "apply", "render"):
        said = cli(command, path)
        assert (said.status, said.out) == (1, "")
        assert f"{path}:3:" in said.err
        assert f"{path}:7:" in said.err


def test_a_file_that_is_not_there(cli: Any, tmp_path: Path) -> None:
    said = cli("validate", tmp_path / "nothing.yaml")
    assert said.status == 1
    assert "cannot be read" in said.out
