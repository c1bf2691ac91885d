"""What tests with real guests share: built images, and a stage that must be empty when the test is over."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from stage import Stage


@pytest.fixture(scope="session")
def images() -> None:
    """The images base and client, built (or found) in the default store."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    subprocess.run([sys.executable, "-m", "devicevm.cli", "image", "build", "base", "client"], check=True, timeout=900)


@pytest.fixture
def stage(images: None) -> Iterator[Stage]:
    """A VMM of the test's own. A test that leaves a domain, a guest or a socket behind fails."""
    made = Stage.make()
    try:
        yield made
        left = (made.domains(), made.processes(), made.sockets())
    finally:
        made.close()
    assert left == ([], [], [])
