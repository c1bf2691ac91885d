"""What all tests share: where the project is, which files belong to it, and how tools are run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings
from stage_collection import REPO, tracked

# Whoever starts the tests in the background, from a script, has them ignore SIGINT, and so would all that they start.
# So do pytest-xdist's workers, and would leave their guests behind.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples each time, so that what a change breaks is what it is told; `make test-long` looks for new ones.
settings.register_profile("known", derandomize=True)
settings.register_profile("new", derandomize=False)
settings.load_profile("known")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers of pytest-xdist share the tests in two. On one real guests boot, a test's at a time: two tests' would
    compete for processors. On the other is all else, which has libvirt's test driver and its one lock to itself."""
    from xdist.scheduler import LoadScopeScheduling

    class GuestsApart(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "guests" if re.match(r"tests/e2e/|tests/\w+/\w+_guests\.py", nodeid) else "others"

    return GuestsApart(config, log)


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
