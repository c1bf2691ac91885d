"""From bytes to documents: what a file can hold, and where things are in it."""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from devicevm.errors import DevicevmError, InvalidManifest
from devicevm.manifest import source as source_module
from devicevm.manifest import yamlreader
from devicevm.manifest.document import path_text, shown
from devicevm.manifest.read import check, read_images, read_topology, topology_from_documents
from devicevm.manifest.scalar import BadScalar, resolve
from devicevm.manifest.source import Text, read_texts
from devicevm.manifest.yamlreader import read_documents

REPO = Path(__file__).resolve().parents[2]
OWN: dict[str, Any] = {"schemas": REPO / "schemas", "classes": REPO / "classes"}
CLIENT = """\
apiVersion: devicevm/v1
kind: Client
metadata: {name: NAME}
spec: {vm: {memory: 64MiB, boot: {kernel: vmlinuz}}}
"""


def read(content: bytes | str) -> tuple[list[Any], list[str]]:
    data = content if isinstance(content, bytes) else content.encode()
    documents, problems = read_documents(Text("f", data, Path("/")))
    return [document.data for document in documents], [str(problem) for problem in problems]


def test_documents_and_positions() -> None:
    text = "# first\na: 1\nb:\n  - x\n  - {c: é, d: no}\n---\n---\n[z]\n"
    (one, two), problems = read_documents(Text("f", text.encode(), Path("/")))
    assert not problems
    assert one.data == {"a": 1, "b": ["x", {"c": "é", "d": False}]}
    assert two.data == ["z"]
    problem = one.problem(("b", 1, "d"), "m")
    assert (problem.line, problem.column, problem.path) == (5, 15, "b[1].d")
    assert (one.problem(("b", 1, "d"), "m", key=True).column, one.problem(("b", 1, "gone"), "m").column) == (12, 5)
    assert one.written(("b", 1, "d")) == "no"


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (b"a: \xff", "f:1:4", "no UTF-8"),
        ("a: b".encode("utf-16"), "f:1:1", "UTF-16"),
        ("a: b".encode("utf-16-be"), "f:1:1", "U+0000"),
        (b"a:\n  b\x00c", "f:2:4", "U+0000"),
        (b"a: \x1b[31m", "f:1:4", "U+001B"),
        (b"a: \xed\xa0\x80", "f:1:4", "no UTF-8"),
        (b'a: "\\ud83d"', "f:1:", ""),
        (b'a: "\\U00110000"', "f:", ""),
        (b"%YAML 9.9\n---\na", "f:1:", "no YAML"),
        (b"a: @b", "f:1:4", "no YAML"),
    ],
)
def test_what_is_no_text(content: bytes, where: str, what: str) -> None:
    _, problems = read(content)
    assert len(problems) == 1
    assert problems[0].startswith(where)
    assert what in problems[0]


def test_byte_order_mark_is_no_problem() -> None:
    assert read(b"\xef\xbb\xbfa: b") == ([{"a": "b"}], [])


def test_pure_python_parser_says_no_less(monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = yamlreader._yaml()
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert read("a: [1, x]") == ([{"a": [1, "x"]}], [])
    for bad in ('a: "\\U00110000"', 'a: "\\ud83d"', "a: [", "\ta: b", "a: @b"):
        assert read(bad)[1], bad


@pytest.mark.parametrize(
    ("limit", "value", "content"),
    [
        ("MAX_DOCUMENTS", 3, "a: b\n---\n" * 4 + "c"),
        ("MAX_NODES", 10, "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"),
        ("MAX_NODES", 20, "a: &a [1, 2, 3]\nb: [*a, *a, *a, *a, *a]"),
        ("MAX_DEPTH", 3, "[[[[1]]]]"),
        ("MAX_DEPTH", 3, "a: &a [[1]]\nb: [*a]"),
    ],
)
def test_bounds(limit: str, value: int, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read(content)[1]
    monkeypatch.setattr(yamlreader, limit, value)
    assert len(read(content)[1]) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("True", True), ("yes", True), ("off", False), ("OFF", False),
        ("y", "y"), ("0", 0), ("-12", -12), ("0x1F", 31), ("1.5", 1.5), ("2.0", 2), ("1e3", 1000), (".5", 0.5),
        ("1:30", "1:30"), ("52:54:00:12:34:56", "52:54:00:12:34:56"), ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"),
        ("٣", "٣"), ("0x", "0x"), ("_1", "_1"), ("nan", "nan"), ("-", "-"), ("9223372036854775807", 2**63 - 1),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    result = resolve(text)
    assert (result, type(result)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    ["010", "-010", "0o7", "1_0", "0b1", "0x1_0", ".inf", "-.INF", ".NaN", "9223372036854775808", "1e400", "9" * 10000],
)
def test_scalars_without_one_meaning(text: str) -> None:
    with pytest.raises(BadScalar):
        resolve(text)


def test_folders_files_and_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.yaml", "a.yml", "c.json", "d.txt", ".hidden.yaml", "sub/e.yaml", ".git/f.yaml", "sub/.g.yaml"):
        path = tmp_path / "m" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    os.mkfifo(tmp_path / "m" / "pipe.yaml")
    (tmp_path / "m" / "folder.yaml").mkdir()
    (tmp_path / "m" / "loop").symlink_to("..")
    texts, problems = read_texts(["m", "m/b.yaml", "m/d.txt", "-", "-"], stdin=io.BytesIO(b"y"))
    assert [text.source for text in texts] == ["m/a.yml", "m/b.yaml", "m/c.json", "m/sub/e.yaml", "m/d.txt", "<stdin>"]
    assert [text.folder for text in texts][-3:] == [tmp_path / "m" / "sub", tmp_path / "m", tmp_path]
    assert not problems


def test_paths_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_FILE_BYTES", 2**20)
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling" / "x.yaml").symlink_to("gone")
    (tmp_path / "big.yaml").write_bytes(b"#" * (2**20 + 1))
    paths = [tmp_path / name for name in ("gone.yaml", "empty", "dangling", "big.yaml")]
    texts, problems = read_texts([*paths, "a\0b", "-", b"\xff".decode(errors="surrogateescape")])
    assert not texts
    assert len(problems) == 7
    for problem in problems:
        str(problem).encode()


def test_total_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / f"{number}.yaml").write_bytes(b"x" * 100)
    monkeypatch.setattr(source_module, "MAX_FILES", 2)
    assert len(read_texts([tmp_path])[0]) == 2
    monkeypatch.setattr(source_module, "MAX_TOTAL_BYTES", 50)
    assert len(read_texts([tmp_path])[0]) == 1


def test_relative_paths_start_at_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.yaml").write_text(CLIENT.replace("NAME", "one"))
    monkeypatch.chdir(tmp_path)
    topology = read_topology(["sub", "-"], **OWN, stdin=io.BytesIO(CLIENT.replace("NAME", "two").encode()))
    assert [client.vm.boot.kernel for client in topology.clients] == [f"{tmp_path}/sub/vmlinuz", f"{tmp_path}/vmlinuz"]


def test_problems_of_all_files_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("a: [")
    Path("b.yaml").write_text(CLIENT.replace("NAME", "Bad"))
    Path("c.yaml").write_text(CLIENT.replace("NAME", "x"))
    Path("d.yaml").write_text(CLIENT.replace("NAME", "x"))
    problems = check(["d.yaml", "gone.yaml", "c.yaml", "b.yaml", "a.yaml"], **OWN)
    assert [problem.source for problem in problems] == ["a.yaml", "b.yaml", "c.yaml", "gone.yaml"]


def test_order_of_documents_does_not_matter(tmp_path: Path) -> None:
    text = (REPO / "examples" / "shared.yaml").read_text()
    parts = text.split("---\n")
    (tmp_path / "a.yaml").write_text("---\n".join(parts))
    (tmp_path / "b.yaml").write_text("---\n".join(reversed(parts)))
    assert read_topology([tmp_path / "a.yaml"], **OWN) == read_topology([tmp_path / "b.yaml"], **OWN)


class Tagged(str):
    """What Ansible hands over for text."""


def inline(**vm: Any) -> dict[str, Any]:
    return {
        "apiVersion": Tagged("devicevm/v1"),
        "kind": "Client",
        "metadata": {"name": Tagged("web")},
        "spec": {"vm": {"memory": "64MiB", "boot": {"kernel": "/boot/vmlinuz"}, **vm}},
    }


def test_inline_documents() -> None:
    topology = topology_from_documents([inline(vcpus=2.0)], **OWN)
    assert topology.clients[0].vm.vcpus == 2
    assert type(topology.clients[0].name) is str


@pytest.mark.parametrize(
    ("vm", "what"),
    [
        ({"vcpus": float("nan")}, "no finite number"),
        ({"vcpus": 2**70}, "too large"),
        ({"memory": b"64MiB"}, "bytes has no place"),
        ({"domainXML": "\ud800"}, "surrogate"),
        ({1: 2}, "key 1 is no text"),
        ({"boot": {"kernel": "vmlinuz"}}, "relative"),
    ],
)
def test_inline_documents_with_problems(vm: dict[Any, Any], what: str) -> None:
    document = inline()
    document["spec"]["vm"].update(vm)
    with pytest.raises(InvalidManifest, match=what) as raised:
        topology_from_documents([document], **OWN)
    assert all(problem.source == "documents[0]" for problem in raised.value.problems)


def test_inline_documents_that_hold_themselves() -> None:
    loop: dict[str, Any] = inline()
    loop["metadata"]["annotations"] = loop
    wide: list[Any] = []
    for _ in range(30):
        wide = [wide, wide]
    for document in (loop, {**inline(), "status": wide}):
        with pytest.raises(InvalidManifest, match="too large"):
            topology_from_documents([document], **OWN)


def test_relative_paths_of_inline_documents(tmp_path: Path) -> None:
    document = inline(boot={"kernel": "vmlinuz"})
    topology = topology_from_documents([document], **OWN, base=tmp_path)
    assert topology.clients[0].vm.boot.kernel == f"{tmp_path}/vmlinuz"


def test_images() -> None:
    names = [image["metadata"]["name"] for image in read_images([REPO / "images"], schemas=OWN["schemas"])]
    assert "base" in names
    assert names == sorted(names)
    assert not check([REPO / "images"], **OWN)


def test_images_with_problems(tmp_path: Path) -> None:
    path = tmp_path / "i.yaml"
    path.write_text("apiVersion: devicevm/v1\nkind: Image\nmetadata: {name: x}\nspec: {kernel: y}\n")
    with pytest.raises(InvalidManifest, match="is not known here"):
        read_images([path], schemas=OWN["schemas"])


@pytest.mark.parametrize("library", ["yaml", "jsonschema"])
def test_missing_library(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == library:
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, library, raising=False)
    with pytest.raises(DevicevmError, match=r"apt install python3-yaml python3-jsonschema or pip install devicevm"):
        read_topology([REPO / "examples" / "own-class.yaml"], **OWN)


def test_the_classes_that_come_with_devicevm_are_right(tmp_path: Path) -> None:
    """They are not checked each time: here they are, as if they were a user's."""
    # Without any that come with devicevm it would be taken for broken.
    (tmp_path / "mine.yaml").write_text((REPO / "examples" / "own-class.yaml").read_text().split("---")[0])
    assert check([OWN["classes"]], schemas=OWN["schemas"], classes=tmp_path) == []


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    path = REPO / "examples" / "quickstart.yaml"
    with pytest.raises(DevicevmError, match="install devicevm again"):
        check([path], schemas=tmp_path, classes=OWN["classes"])
    with pytest.raises(DevicevmError, match="install devicevm again"):
        check([path], schemas=OWN["schemas"], classes=tmp_path)


def test_texts_in_messages() -> None:
    assert path_text(("spec", "devices", 0, "a.b/c")) == 'spec.devices[0]["a.b/c"]'
    assert shown("a\nb\x1b") == '"a\\nb\\x1b"'
    assert len(shown("x" * 1000)) == 60
