"""The command line, run within this process; libvirt's test driver, which forgets with its last connection."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from devicevm.cli.main import main
from devicevm.inventory.offline import host_from_documents
from devicevm.record import to_data

CAPABILITIES = Path(__file__).parent / "capabilities.xml"
TEST_URI = "test:///default"

WEB = """
apiVersion: devicevm/v1
kind: Client
metadata: {name: web}
spec:
  vm: {memory: 256MiB, boot: {guestImage: client}}
  devices:
    - {name: data, class: disk, parameters: {size: 64MiB}}
    - {name: entropy, class: rng}
"""


@dataclass(frozen=True)
class Said:
    """What one run of the command line left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli(Protocol):
    def __call__(self, *arguments: str | Path, stdin: str = "") -> Said: ...


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `devicevm ARGUMENTS`. test_coverage.py reads the calls: write options out, as words of their own."""
    for name in ("DEVICEVM_OWNER", "DEVICEVM_DEBUG", "DEVICEVM_IMAGES", "LIBVIRT_DEFAULT_URI", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str | Path, stdin: str = "") -> Said:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with redirect_stdout(out), redirect_stderr(err):
            status = main([str(argument) for argument in arguments])
        return Said(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def cli_process() -> Cli:
    """Like `cli`, in a process of its own: libvirt opens one embedded VMM per process, for as long as it lives."""

    def run(*arguments: str | Path, stdin: str = "") -> Said:
        command = [sys.executable, "-m", "devicevm.cli", *map(str, arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def vmm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """libvirt's test driver, empty, kept while the test runs; the command line's default. The value is a connection."""
    pytest.importorskip("libvirt", reason="libvirt's Python binding is not installed")
    from devicevm.vmm.libvirt.connection import binding

    connection = binding().open(TEST_URI)
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", TEST_URI)
    monkeypatch.setenv("DEVICEVM_IMAGES", str(tmp_path / "images"))
    yield connection
    connection.close()


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A manifest with one client and two devices."""
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return path


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The inventory of a host of 4 cores of 2 threads, as `devicevm inventory -o json` writes it."""
    host = host_from_documents(CAPABILITIES.read_text(), name="lab1")
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(to_data(host)))
    return path
