"""The program beneath disks with a format or a limit, on the host and without a VM; QEMU's tools judge what it made."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from stage_collection import REPO
from unreadable import CAN_BE_SHOWN, unreadable

LAYERS = REPO / "plugin" / "guest" / "layers"
MIB = 1 << 20
SIZE = 16 * MIB
NOISE = hashlib.shake_256(b"noise").digest(MIB)

pytestmark = pytest.mark.skipif(not CAN_BE_SHOWN, reason="qemu-storage-daemon, /dev/fuse or root is missing")


def layers(disk: Path, *options: str, run: str = "cat >/dev/null <$DISK") -> subprocess.CompletedProcess[str]:
    """Run a shell command on what the disk holds, which is $DISK."""
    return subprocess.run(
        [LAYERS, disk, *options, "--", "sh", "-c", run],
        env={**os.environ, "DISK": f"{disk}.disk", "NOISE": str(disk.parent / "noise")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A store that nobody has written to, and noise beside it."""
    (tmp_path / "noise").write_bytes(NOISE)
    path = tmp_path / "disk"
    path.write_bytes(b"")
    os.truncate(path, SIZE)
    return path


def image(*command: str | Path) -> str:
    """What qemu-img says; its failure is the test's."""
    return subprocess.run(["qemu-img", *map(str, command)], check=True, capture_output=True, text=True).stdout


def test_an_empty_store_becomes_an_image_with_room_for_all_that_is_written(disk: Path) -> None:
    """All of it is written, and then once more: there is room for tables, and the store does not grow."""
    fill = "yes full | head -c $(stat -c %s $DISK) >$DISK.full"
    write = f"{fill}; for i in 0 1; do dd if=$DISK.full of=$DISK bs=1M conv=notrunc,fsync; done"
    done = layers(disk, "format=qcow2", run=write)
    assert done.returncode == 0, done.stderr
    assert disk.stat().st_size == SIZE
    assert "No errors" in image("check", "-f", "qcow2", disk)
    told = layers(disk, "format=qcow2", run="stat -c %s $DISK; head -c 5 $DISK; tail -c 5 $DISK")
    assert told.stdout.split() == [str(14 * MIB), "full", "full"]


@pytest.mark.parametrize("place", [0, 65536 + 64, 4 * MIB - 1, SIZE - MIB, SIZE - 1])
def test_data_is_never_formatted(disk: Path, place: int) -> None:
    """Wherever headers are: a partition table's copy is in the last sector, a file system's may be 64 KiB into it."""
    with open(disk, "r+b") as file:
        file.seek(place)
        file.write(b"x")
    before = disk.read_bytes()
    done = layers(disk, "format=qcow2")
    assert done.returncode == 1
    assert "cannot be opened" in done.stderr
    assert disk.read_bytes() == before


@pytest.mark.parametrize("place", [0, MIB, SIZE - MIB])
def test_what_cannot_be_read_is_not_empty(disk: Path, place: int) -> None:
    with unreadable(disk, place) as shown:
        done = layers(shown, "format=qcow2")
        assert "cannot be read" in done.stderr
        assert done.returncode == 1
    assert disk.read_bytes() == bytes(SIZE)


def test_nobody_formats_what_is_read_only_or_too_small(disk: Path) -> None:
    assert "nobody may write" in layers(disk, "format=qcow2", "read-only").stderr
    os.truncate(disk, MIB)
    done = layers(disk, "format=qcow2")
    assert "too few for an encrypted or qcow2 disk" in done.stderr
    assert disk.read_bytes() == bytes(MIB)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_copy_has_what_was_written_and_the_base_has_not(disk: Path, compressed: bool) -> None:
    raw, base = disk.parent / "raw", disk.parent / "base"
    raw.write_bytes(NOISE * 4)
    image("convert", *(("-c", "-O", "qcow2") if compressed else ("-O", "raw")), raw, base)
    before = base.read_bytes()
    options = ("format=qcow2", f"base={base}", f"base-format={'qcow2' if compressed else 'raw'}")
    write = "cmp $DISK $DISK.raw && printf changed | dd of=$DISK bs=1 seek=5000 conv=notrunc,fsync"
    shutil.copy(raw, f"{disk}.disk.raw")
    done = layers(disk, *options, run=write)
    assert done.returncode == 0, done.stderr
    seen = layers(disk, *options, run="cmp -l $DISK $DISK.raw | wc -l; stat -c %s $DISK").stdout.split()
    assert int(seen[0]) in range(1, 8)
    assert seen[1] == str(4 * MIB)
    assert base.read_bytes() == before


def test_a_store_in_memory_is_no_larger_than_what_was_counted(disk: Path) -> None:
    base = disk.parent / "base"
    base.write_bytes(bytes(4 * SIZE))
    write = "head -c 33554432 /dev/urandom | dd of=$DISK bs=1M conv=notrunc,fsync iflag=fullblock"
    done = layers(disk, "format=qcow2", f"base={base}", "base-format=raw", run=write)
    assert done.returncode != 0
    assert disk.stat().st_size == SIZE


def test_limits_hold(disk: Path) -> None:
    """2 MiB at once, as the burst says, and the next two at the limit."""
    start = time.monotonic()
    done = layers(disk, "bps-read=1048576", "burst=2", run="head -c 4194304 $DISK >/dev/null")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start > 1.5


def test_what_one_that_was_killed_has_left_is_cleared_away(disk: Path) -> None:
    """The daemon that a killed run leaves behind when its group does not end with it holds the image; the next run
    is told so, and goes on when that has ended."""
    first = subprocess.Popen(
        [LAYERS, disk, "format=qcow2", "--", "sh", "-c", f"cp {disk.parent}/noise {disk}.disk; sync; echo; sleep 60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert first.stdout
    first.stdout.readline()
    os.killpg(first.pid, 9)
    first.wait(10)
    done = layers(disk, "format=qcow2", run="head -c 1048576 $DISK | cmp - $NOISE && echo same")
    assert (done.stdout, done.returncode) == ("same\n", 0), done.stderr
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(disk) in line]


def test_it_ends_as_its_command_does(disk: Path) -> None:
    assert layers(disk, "iops-read=1000", run="exit 7").returncode == 7
    assert layers(disk, "speed=1").stderr == "speed=1 is no option\n"
