"""What happens to an embedded VMM's directory before libvirt has it: in processes of their own, with a libvirt that is
only a moment at which the directory is being opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from devicevm.vmm.accelerator import BOOT_ID

OPEN = """
import resource, signal, sys, types
from pathlib import Path

from devicevm.errors import DevicevmError
from devicevm.vmm.libvirt import embed

root, wait, room = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])

def open_it(uri):
    print("opening", flush=True)
    sys.stdin.read()
    connection = types.SimpleNamespace(close=lambda: None)
    connection.lookupByName = lambda name: types.SimpleNamespace(state=lambda: [1])
    return connection

sys.modules["libvirt"] = types.SimpleNamespace(open=open_it, VIR_DOMAIN_NOSTATE=0, libvirtError=OSError)
# A file that would be larger cannot be written, as on a disk that is full.
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
try:
    embed.connect("qemu:///embed", root, wait)
except DevicevmError as error:
    sys.exit(error.message)
"""
ROOM = 2**20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of a VMM in which a domain runs."""
    path = tmp_path / "embed"
    (path / "run/qemu").mkdir(parents=True)
    (path / "run/qemu/dvm.xml").write_text("<domstatus/>")
    assert opened(path) == ""
    assert (path / "boot").read_text() == BOOT_ID.read_text()
    return path


def command(root: Path, wait: float = 0, room: int = ROOM) -> list[str]:
    return [sys.executable, "-c", OPEN, str(root), str(wait), str(room)]


def start(root: Path, wait: float = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(root, wait), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def opened(root: Path, **how: int) -> str:
    """Open it and end; what went wrong."""
    done = subprocess.run(command(root, **how), input="", capture_output=True, text=True, check=False)
    return done.stderr.strip()


def is_known(root: Path) -> bool:
    return (root / "run/qemu/dvm.xml").exists()


def test_who_opens_it_is_alone_from_the_first_look_on(root: Path) -> None:
    with start(root) as ahead:
        assert ahead.stdin and ahead.stdout and ahead.stdout.readline() == b"opening\n"
        with start(root, 60) as behind:
            assert f"is in use by process {ahead.pid} (" in opened(root)
            ahead.stdin.close()
            assert behind.stdin and behind.stdout and behind.stdout.readline() == b"opening\n"
            behind.stdin.close()
    assert (ahead.returncode, behind.returncode) == (0, 0)
    assert is_known(root)


def test_after_a_boot_nothing_runs(root: Path) -> None:
    (root / "boot").write_text("another boot\n")
    assert opened(root) == ""
    assert not is_known(root)
    assert (root / "boot").read_text() == BOOT_ID.read_text()


def test_a_note_that_tells_nothing_tells_of_no_other_boot(root: Path) -> None:
    (root / "boot").write_text("")
    assert opened(root) == ""
    assert is_known(root)
    assert (root / "boot").read_text() == BOOT_ID.read_text()


def test_on_a_full_disk_nothing_is_forgotten(root: Path) -> None:
    assert opened(root, room=0) == ""
    assert opened(root) == ""
    assert is_known(root)
    (root / "boot").write_text("another boot\n")
    assert "boot cannot be written: File too large" in opened(root, room=0)
    # It is still known that there was another boot, and nothing has been started.
    assert (root / "boot").read_text() == "another boot\n"
    assert list(root.glob(".boot*")) == []
