"""File systems of the host that fail, and device VMs that hang: real loop devices over nbdkit's disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.part import mount
from devicevm.part.command import run
from devicevm.part.keeper import Parts
from devicevm.part.mounts import mount_at
from devicevm.part.part import Part
from loop_mounts import why_nothing_is_mounted
from nbd_server import MIB, NbdServer

SIZES = {"ext4": 16 * MIB, "xfs": 320 * MIB}
# _IOR('X', 125, __u32): what `xfs_io -xc shutdown` asks for, and ext4 knows, too (xfs_fs.h). 2: without a last write.
SHUT_DOWN, AT_ONCE = 0x8004587D, struct.pack("I", 2)


@pytest.fixture(scope="module", autouse=True)
def loop_devices(tmp_path_factory: pytest.TempPathFactory) -> None:
    if reason := why_nothing_is_mounted(tmp_path_factory.mktemp("probe")):
        pytest.skip(reason)


@pytest.fixture(params=sorted(SIZES))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not shutil.which(f"mkfs.{name}"):
        pytest.skip(f"mkfs.{name} is not installed")
    return name


@pytest.fixture
def nbd(tmp_path: Path, kind: str) -> Iterator[NbdServer]:
    with (tmp_path / "image").open("wb") as image:
        image.truncate(SIZES[kind])
    server = NbdServer(tmp_path)
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.kill()


@pytest.fixture
def part(tmp_path: Path, nbd: NbdServer, kind: str) -> Part:
    options = {"mount": str(tmp_path / "place"), "type": kind}
    return Part("mount", "lab-data", str(nbd.socket), str(tmp_path / "disk"), options)


@pytest.fixture
def parts(tmp_path: Path, part: Part) -> Iterator[Parts]:
    """The part runs, and there is a file on its disk; in the end nothing is mounted."""
    made = Parts(tmp_path / "parts")
    made.start(part)
    (place_of(part) / "kept").write_text("words")
    subprocess.run(["sync", "-f", place_of(part)], check=True)
    yield made
    made.stop(part)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def place_of(part: Part) -> Path:
    return Path(part.options["mount"])


def shut_down(part: Part) -> None:
    """What the kernel does with a file system that it cannot trust any more."""
    place = os.open(place_of(part), os.O_RDONLY)
    try:
        fcntl.ioctl(place, SHUT_DOWN, AT_ONCE)
    finally:
        os.close(place)


def eventually(what: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def works(part: Part) -> bool:
    """Whether the file that is on the disk can be written, and reaches it."""
    with contextlib.suppress(OSError), (place_of(part) / "kept").open("r+") as file:
        file.write("w")
        os.fsync(file.fileno())
        return True
    return False


def test_a_file_system_that_shut_down_is_mounted_anew(parts: Parts, part: Part) -> None:
    shut_down(part)
    assert not works(part)
    assert eventually(lambda: works(part))
    assert (place_of(part) / "kept").read_text() == "words"


def test_a_file_system_that_shut_down_is_no_reason_to_go_on(parts: Parts, part: Part) -> None:
    with (place_of(part) / "kept").open("a") as file:
        file.write("more words")
        file.flush()
        shut_down(part)
        parts.stop(part)
        assert not mount_at(str(place_of(part)))
        with contextlib.suppress(OSError):
            file.close()


def test_nobody_waits_for_ever_for_a_device_vm_that_hangs(
    parts: Parts, part: Part, nbd: NbdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place_of(part) / "new").write_bytes(bytes(MIB))
    nbd.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(mount, "_run", partial(run, patience=1.0))
    begun = time.monotonic()
    with pytest.raises(DevicevmError, match=r"stays mounted: sync -f .* \(process \d+\) does not end") as caught:
        parts.stop(part)
    assert time.monotonic() - begun < 10
    assert "device VM does not answer" in caught.value.hint
    assert parts.is_running(part)
    # When the device VM goes on, so does what waited for it.
    nbd.process.send_signal(signal.SIGCONT)
    pid = caught.value.message.partition("(process ")[2].partition(")")[0]
    assert eventually(lambda: not Path(f"/proc/{pid}/exe").exists())
