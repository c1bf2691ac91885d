"""docs/tutorial.md, word for word: every command runs, and what it is said to print is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from stage import Stage

pytestmark = pytest.mark.e2e

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
ANYTHING = "..."


@dataclass
class Command:
    """A command of the tutorial, with the output that is shown for it."""

    line: int
    text: str
    shown: list[str] = field(default_factory=list)


def commands_of(document: str) -> list[Command]:
    """Lines with `$ ` begin a command, lines with `> ` go on with it, others are its output."""
    found: list[Command] = []
    inside = False
    for number, line in enumerate(document.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append(Command(number, line[2:]))
        elif inside and line.startswith(">"):
            found[-1].text += "\n" + line[2:]
        elif inside:
            found[-1].shown.append(line)
    return found


def as_pattern(shown: str) -> str:
    """A shown line as a regular expression; `...` stands for anything, and white space for any."""
    words = re.escape(shown.strip()).replace(re.escape(ANYTHING), ".*")
    return re.sub(r"(\\ )+", r"\\s+", words)


def is_shown(output: str, shown: list[str]) -> str:
    """The first shown line that is not in the output, in order; empty when all are."""
    rest = output.splitlines()
    for line in shown:
        if line.strip() in ("", ANYTHING):
            continue
        pattern = re.compile(as_pattern(line))
        place = next((index for index, real in enumerate(rest) if pattern.search(real)), None)
        if place is None:
            return line
        rest = rest[place + 1 :]
    return ""


def test_the_tutorial(stage: Stage) -> None:
    folder = stage.folder / "tutorial"
    folder.mkdir()
    # The commands as a user has them on the PATH.
    path = f"{Path(sys.executable).parent}:{stage.environment['PATH']}"
    environment = {**stage.environment, "PATH": path, "HOME": os.environ.get("HOME", "/")}
    commands = commands_of(TUTORIAL.read_text())
    assert len(commands) > 25
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command.text],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        where = f"docs/tutorial.md:{command.line}: {command.text}\n{done.stdout}"
        assert done.returncode == 0, where
        assert not (missing := is_shown(done.stdout, command.shown)), f"{where}\nnot printed: {missing}"
