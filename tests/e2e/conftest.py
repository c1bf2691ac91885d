"""What tests with real guests share: built images, and a stage that must be empty when the test is over."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from private_libvirtd import why_not
from stage import Stage
from stage import stage as make_stage


@pytest.fixture(scope="session")
def images() -> None:
    """The images base, client and test-client, built (or found) in the default store."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    recipe = Path(__file__).with_name("test-client.yaml")
    command = [sys.executable, "-m", "devicevm.cli", "image", "build", "base", "client", recipe]
    subprocess.run(command, check=True, timeout=900)


@pytest.fixture
def stage(images: None) -> Iterator[Stage]:
    """A VMM of the test's own. A test that leaves a domain, a guest or a socket behind fails."""
    if reason := why_not():
        pytest.skip(reason)
    with make_stage() as made:
        yield made
        assert (made.domains(), made.processes(), made.sockets(), made.parts()) == ([], [], [], [])
