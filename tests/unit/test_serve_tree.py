"""What the program that serves trees makes of a store: real mke2fs and e2fsck, on the host, and nothing mounted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from stage_collection import REPO
from unreadable import CAN_BE_SHOWN, unreadable

SERVE_TREE = REPO / "plugin" / "guest" / "serve-tree"
MIB = 2**20
SIZE = 8 * MIB + 4096
MARK = b"devicevm: a file system is being made here"


def serve(store: Path, access: str = "rw", when: str = "sync") -> subprocess.CompletedProcess[str]:
    """Run the guest's program; what it calls to mount and to serve only says so."""
    tools = store.parent / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("mount", "umount", "diod"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "TREE": str(store.parent / "tree")}
    return subprocess.run(
        ["sh", SERVE_TREE, store, access, when],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def is_sound(store: Path) -> bool:
    """Whether e2fsck finds an ext4 file system without a fault."""
    done = subprocess.run(["/sbin/e2fsck", "-fn", store], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store."""
    path = tmp_path / "store"
    path.touch()
    os.truncate(path, SIZE)
    return path


def written(store: Path, place: int, data: bytes) -> bytes:
    """Write into a store; all of its content then."""
    with store.open("r+b") as file:
        file.seek(place)
        file.write(data)
    return store.read_bytes()


def test_an_empty_store_is_given_a_file_system_once(store: Path) -> None:
    first = serve(store)
    assert first.returncode == 0, first.stderr
    tree = store.parent / "tree"
    assert first.stdout.splitlines()[0] == f"mount -t ext4 -o nodev,rw,sync {store} {tree}"
    assert first.stdout.splitlines()[-1] == f"umount {tree}"
    assert is_sound(store)
    assert MARK not in store.read_bytes()
    before = store.read_bytes()
    assert serve(store).returncode == 0
    assert store.read_bytes()[MIB:] == before[MIB:]
    assert store.read_bytes()[1128:1144] == before[1128:1144], "the file system has another UUID"


@pytest.mark.parametrize("place", [0, 512, 65536 + 64, MIB - 1, SIZE - MIB, SIZE - 512], ids=str)
def test_data_at_either_end_is_left_alone(store: Path, place: int) -> None:
    before = written(store, place, b"X")
    done = serve(store)
    assert done.returncode == 1
    assert "something else than an ext4 file system" in done.stderr
    assert "mount" not in done.stdout
    assert store.read_bytes() == before


@pytest.mark.skipif(not CAN_BE_SHOWN, reason="qemu-storage-daemon, /dev/fuse or root is missing")
@pytest.mark.parametrize("place", [0, MIB - 512, SIZE - MIB, SIZE - 512], ids=str)
def test_what_cannot_be_read_is_not_empty(store: Path, place: int) -> None:
    with unreadable(store, place) as shown:
        done = serve(shown)
        assert "cannot be read" in done.stderr
        assert done.returncode == 1
    assert store.read_bytes() == bytes(SIZE)


def test_a_file_system_that_was_made_by_half_is_made_anew(store: Path) -> None:
    written(store, 4096, b"half a file system")
    written(store, SIZE - 4096, MARK)
    assert serve(store).returncode == 0
    assert is_sound(store)
    assert MARK not in store.read_bytes()


def test_a_store_that_is_read_only_is_never_written(store: Path) -> None:
    empty = store.read_bytes()
    done = serve(store, "ro")
    assert done.returncode == 1
    assert "nothing may be written" in done.stderr
    assert store.read_bytes() == empty
    assert serve(store).returncode == 0
    made = store.read_bytes()
    done = serve(store, "ro")
    assert done.returncode == 0
    assert f"mount -t ext4 -o nodev,ro,sync {store}" in done.stdout
    assert store.read_bytes() == made


def test_what_e2fsck_does_not_repair_by_itself_is_refused(store: Path) -> None:
    assert serve(store).returncode == 0
    subprocess.run(["/sbin/debugfs", "-w", "-R", "clri <2>", store], check=True, capture_output=True, timeout=60)
    # A file system that was not left in order is looked through.
    subprocess.run(["/sbin/debugfs", "-w", "-R", "dirty", store], check=True, capture_output=True, timeout=60)
    done = serve(store)
    assert done.returncode == 1
    assert "errors that somebody has to decide about" in done.stderr
    assert "mount" not in done.stdout


def test_a_store_that_is_too_small_says_so(store: Path) -> None:
    os.truncate(store, MIB)
    done = serve(store)
    assert done.returncode == 1
    assert "too few for a file system" in done.stderr
