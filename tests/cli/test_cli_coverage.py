"""The command line as a whole: every option is used by a test, every example works, the manual is true."""

from __future__ import annotations

import ast
import inspect
import io
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from devicevm.cli import output
from devicevm.cli.main import COMMANDS, cli, main
from devicevm.cli.manual import commands, manual
from devicevm.cli.options import Command
from devicevm.errors import DevicevmError

HERE = Path(__file__).parent
REPO = HERE.parent.parent
ALL = dict(commands())


def used_words() -> Iterator[list[str]]:
    """The constant words of each call of the fixture `cli` in these tests.

    They are read, not recorded: the answer does not depend on which tests ran, in which order, and on what machine.
    """
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("cli", "cli_process")
            ):
                yield [
                    item.value for item in node.args if isinstance(item, ast.Constant) and isinstance(item.value, str)
                ]


def used_options() -> dict[str, set[str]]:
    used: dict[str, set[str]] = {path: set() for path in ALL}
    for words in used_words():
        path = next((path for path in (f"devicevm {' '.join(words[:size])}" for size in (2, 1)) if path in ALL), "")
        if path:
            used[path] |= {word for word in words if word.startswith("-")}
    return used


# In one call through variables: test_cli_inventory.py `options`, and the commands of a `for` loop.
ELSEWHERE = {
    "devicevm inventory": {"--domain-capabilities", "--node-devices", "--name"},
    "devicevm destroy": {"--lock-timeout"},
    "devicevm apply": {"--lock-timeout"},
}
# One declaration serves all commands: one test of one of them is enough.
SHARED = {"connect", "images", "accelerator", "owner", "debug", "form", "help"}


def test_every_option_is_used_by_a_test() -> None:
    used = used_options()
    everywhere = set().union(*used.values())
    missing = []
    for path, command in ALL.items():
        for option in (param for param in command.params if isinstance(param, click.Option)):
            words = everywhere if option.name in SHARED else used[path] | ELSEWHERE.get(path, set())
            if not words & {*option.opts, *option.secondary_opts}:
                missing.append(f"{path} {option.opts[-1]}")
    assert missing == []


def test_every_command_is_used_by_a_test() -> None:
    used = [words for words in used_words() if words]
    missing = [path for path in ALL if not any(f"devicevm {' '.join(words)} ".startswith(f"{path} ") for words in used)]
    assert missing == []


def test_shared_options_are_the_same_everywhere() -> None:
    """`--owner` of status and destroy have defaults of their own, for what they show and take away."""
    seen: dict[str, set[str]] = {}
    for command in ALL.values():
        for param in command.params:
            if param.name in SHARED - {"owner"} and isinstance(param, click.Option):
                seen.setdefault(param.name, set()).add(f"{param.opts} {param.help} {param.default}")
    assert {name: texts for name, texts in seen.items() if len(texts) > 1} == {}


@pytest.mark.parametrize("path", ALL)
def test_help_teaches_by_examples_that_work(path: str) -> None:
    command = ALL[path]
    assert 2 <= len(command.examples) <= 4
    for example in command.examples:
        words = shlex.split(example.command.replace("$(", " ").replace(')"', "").replace('"', ""))
        for stage in split(words, "|", "&&", ">"):
            if stage[0] == "devicevm":
                parse(stage[1:])
    assert any(
        example.command.split("devicevm ", 1)[1].startswith(path.removeprefix("devicevm "))
        for example in command.examples
    )


def split(words: list[str], *separators: str) -> list[list[str]]:
    stages: list[list[str]] = [[]]
    for word in words:
        if word in separators:
            stages.append([])
        elif word != "eval":
            stages[-1].append(word)
    return [stage for stage in stages if stage]


def parse(words: list[str]) -> None:
    """Fails where click would call it wrong usage."""
    group: click.Group = cli
    while True:
        found = group.get_command(click.Context(group), words[0])
        assert found is not None, f"no command {words[0]}"
        if not isinstance(found, click.Group):
            break
        group, words = found, words[1:]
    found.make_context(words[0], words[1:])


def test_the_manual_is_true() -> None:
    page = REPO / "docs/cli.md"
    assert page.read_text() == manual(), "make it anew: python -m devicevm.cli.manual > docs/cli.md"


def test_every_command_has_a_short_line_in_the_help(cli: Any) -> None:
    said = cli("--help")
    assert said.status == 0
    for name in COMMANDS:
        line = next(line for line in said.out.splitlines() if line.startswith(f"  {name} "))
        assert "..." not in line
    assert cli("-h").out == said.out
    assert cli("image", "-h").status == 0


def test_every_command_answers_as_json_where_it_has_a_result() -> None:
    without = {path for path, command in ALL.items() if not any(param.name == "form" for param in command.params)}
    manager = {f"devicevm manager {name}" for name in ("install", "uninstall", "run", "unit")}
    assert without == {
        "devicevm console",
        "devicevm completion",
        "devicevm image agent",
        "devicevm image remove",
        *manager,
    }


def test_options_have_help() -> None:
    options = [
        (path, param) for path, command in ALL.items() for param in command.params if isinstance(param, click.Option)
    ]
    assert [f"{path} {option.opts}" for path, option in options if not (option.help or "").endswith((".", "]"))] == []
    assert all(isinstance(command, Command) and inspect.getdoc(command.callback) for command in ALL.values())


def test_version(cli: Any) -> None:
    assert cli("--version").out.startswith("devicevm 0.")


def test_wrong_usage_is_2(cli: Any) -> None:
    for arguments in (
        ("nothing",),
        ("plan",),
        ("plan", "--nothing", "a"),
        ("plan", "-o", "xml", "a"),
        ("apply", "--parallel", "0", "a"),
        *(
            (command, option, value, "a")
            for command in ("apply", "destroy")
            for option in ("--timeout", "--lock-timeout")
            for value in ("nan", "inf", "-inf", "1e300", "soon")
        ),
        ("demo", "--timeout", "inf"),
        *((command, "--owner", "my lab", *rest) for command, *rest in (("plan", "a"), ("destroy",), ("status",))),
        ("plan", "--owner", "x" * 64, "a"),
        ("plan", "--owner", "-x", "a"),
        ("plan", "--owner", "a\n", "a"),
    ):
        said = cli(*arguments)
        assert (said.status, said.out) == (2, "")
        assert "error: " in said.err
        assert "--help" in said.err


def test_an_owners_name_from_the_environment_is_checked_too(
    cli: Any, web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICEVM_OWNER", "../lab")
    said = cli("plan", web)
    assert said.status == 2
    assert "'../lab' is no owner's name; use letters, digits" in said.err


def test_the_unexpected_is_a_sentence_and_with_debug_a_traceback(
    cli: Any, web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(paths: Any) -> None:
        raise ValueError("never mind")

    monkeypatch.setattr("devicevm.cli.commands.plan.read", fail)
    said = cli("plan", web)
    assert said.status == 1
    assert "ValueError: never mind" in said.err
    assert "--debug" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in cli("plan", web, "--debug").err
    assert "Traceback" in cli("--debug", "plan", web).err
    monkeypatch.setenv("DEVICEVM_DEBUG", "1")
    assert "Traceback" in cli("plan", web).err


def test_errors_the_user_can_act_on(cli: Any, web: Path) -> None:
    said = cli("plan", web, "--connect", "bhyve:///system")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("error: ")
    assert "hint: " in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in cli("plan", web, "--connect", "bhyve:///system", "--debug").err


def test_interrupted_while_nothing_is_changed(cli: Any, web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(paths: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("devicevm.cli.commands.plan.read", interrupt)
    said = cli("plan", web)
    assert said.status == 130
    assert "interrupted; nothing was changed" in said.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals(variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    output.line("text", "green", stream=terminal)
    assert ("\x1b[" in terminal.getvalue()) is coloured
    plain = io.StringIO()
    output.line("text", "green", stream=plain)
    assert plain.getvalue() == "text\n"


def test_others_words_do_not_steer_the_terminal() -> None:
    plain = io.StringIO()
    output.line("a\x1b[2Jb\x07 [red]c[/red]", stream=plain)
    assert plain.getvalue() == "a\\x1b[2Jb\\x07 [red]c[/red]\n"


def test_tables_are_not_cut_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "text"), [("a", "x" * 500), ("b", "")])
    assert capsys.readouterr().out == f"NAME  TEXT\na     {'x' * 500}\nb     -\n"


def test_main_takes_the_process_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["devicevm", "completion", "bash"])
    assert main() == 0


def test_a_broken_program_is_no_success(cli: Any, monkeypatch: pytest.MonkeyPatch, web: Path) -> None:
    def fail(paths: Any) -> None:
        raise DevicevmError("no", hint="yes")

    monkeypatch.setattr("devicevm.cli.commands.validate.find_problems", fail)
    said = cli("validate", web)
    assert (said.status, said.err) == (1, "error: no\nhint: yes\n")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (-1, "0B"),
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1536, "1.5KiB"),
        (24684096 * 1024, "23.5GiB"),
        (2**60, "1024PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text
