"""What all tests share: where the project is, which files belong to it, and how tools are run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Protocol

import pytest
from stage_collection import REPO, tracked

# Whoever starts the tests in the background, from a script, has them ignore SIGINT, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Run(Protocol):
    """Runs a command, from the top of the checkout if not told otherwise, and returns what it said."""

    def __call__(self, *command: str | Path, cwd: Path = REPO, **environment: str) -> str: ...


@pytest.fixture(scope="session")
def run() -> Run:
    """A command that must succeed; when it does not, what it said is all that the failure shows."""

    def run_command(*command: str | Path, cwd: Path = REPO, **environment: str) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", "NO_COLOR": "1", **environment},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            pytest.fail(f"{Path(command[0]).name} says:\n{done.stdout}", pytrace=False)
        return done.stdout

    return run_command


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Every file of the project that is no link: tracked or new, not ignored. Absolute."""
    return [REPO / name for name in tracked() if not (REPO / name).is_symlink()]
