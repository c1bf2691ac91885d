"""A disk that the host mounts: a real loop device over nbdkit's disk, judged by the kernel's ext4 and by e2fsck."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.part import lock
from devicevm.part.file import AWAY
from devicevm.part.keeper import Parts
from devicevm.part.mounts import mount_at
from devicevm.part.part import Part
from loop_mounts import why_nothing_is_mounted
from nbd_server import MIB, NbdServer


@pytest.fixture(scope="module", autouse=True)
def loop_devices(tmp_path_factory: pytest.TempPathFactory) -> None:
    if reason := why_nothing_is_mounted(tmp_path_factory.mktemp("probe")):
        pytest.skip(reason)


@pytest.fixture
def nbd(tmp_path: Path) -> Iterator[NbdServer]:
    server = NbdServer(tmp_path, 16 * MIB)
    yield server
    if server.process.poll() is None:
        server.kill()


@pytest.fixture
def part(tmp_path: Path, nbd: NbdServer) -> Part:
    options = {"mount": str(tmp_path / "a place"), "type": "ext4", "options": "noatime"}
    return Part("mount", "lab-data", str(nbd.socket), str(tmp_path / "disk"), options)


@pytest.fixture
def parts(tmp_path: Path, part: Part) -> Iterator[Parts]:
    """In the end nothing is mounted, and no loop device is left."""
    made = Parts(tmp_path / "parts")
    yield made
    made.stop(part)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert eventually(lambda: str(tmp_path) not in subprocess.check_output(["losetup", "-a"], text=True))
    assert not Path(part.address).exists()


def eventually(what: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def place_of(part: Part) -> Path:
    return Path(part.options["mount"])


def pid_of(parts: Parts, part: Part) -> int:
    held = lock.holder(parts.folder / f"{part.name}.lock")
    assert held
    return held.pid


def fsck(nbd: NbdServer) -> None:
    """What is left on the store is sound, as a tool sees it that knows nothing of us."""
    done = subprocess.run(["e2fsck", "-fn", nbd.image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_an_empty_disk_gets_a_file_system_and_keeps_it(parts: Parts, part: Part, nbd: NbdServer) -> None:
    parts.start(part)
    mount = mount_at(str(place_of(part)))
    assert mount and mount.kind == "ext4"
    (line,) = [line for line in Path("/proc/mounts").read_text().splitlines() if "a\\040place" in line]
    assert {"nosuid", "nodev", "noatime"} <= set(line.split()[3].split(","))
    (place_of(part) / "kept").write_text("words")
    parts.stop(part)
    assert not mount_at(str(place_of(part)))
    fsck(nbd)
    # What is there is not formatted again.
    parts.start(part)
    assert (place_of(part) / "kept").read_text() == "words"


def test_what_is_in_use_stays_mounted_and_who_uses_it_is_told(parts: Parts, part: Part) -> None:
    parts.start(part)
    with (place_of(part) / "open").open("w") as file:
        file.write("not yet")
        with pytest.raises(DevicevmError, match=r"stays mounted: .*busy") as caught:
            parts.stop(part)
        assert f"process {os.getpid()}" in caught.value.hint
        assert parts.is_running(part)
        file.write(" written")
    parts.stop(part)
    parts.start(part)
    assert (place_of(part) / "open").read_text() == "not yet written"


def test_a_device_vm_that_is_back_in_time_is_missed_by_nobody(
    parts: Parts, part: Part, nbd: NbdServer, tmp_path: Path
) -> None:
    parts.start(part)
    data = os.urandom(MIB)
    (place_of(part) / "before").write_bytes(data)
    done: list[float] = []

    def write() -> None:
        with (place_of(part) / "meanwhile").open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        done.append(time.monotonic())

    nbd.kill()
    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(1)
    assert not done
    again = NbdServer(tmp_path)
    try:
        writer.join(30)
        assert done
        parts.stop(part)
        fsck(nbd)
        parts.start(part)
        assert [(place_of(part) / name).read_bytes() for name in ("before", "meanwhile")] == [data, data]
        parts.stop(part)
    finally:
        again.kill()


def test_what_was_synced_outlives_the_daemon_and_the_part(parts: Parts, part: Part, nbd: NbdServer) -> None:
    """Whoever has something open then has errors; the place shows the disk again."""
    parts.start(part)
    stale = (place_of(part) / "kept").open("w")
    stale.write("words")
    stale.flush()
    os.fsync(stale.fileno())
    pid = pid_of(parts, part)
    (daemon,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(daemon), signal.SIGKILL)

    def is_back() -> bool:
        with contextlib.suppress(OSError):
            return "lost+found" in os.listdir(place_of(part)) and (place_of(part) / "kept").read_text() == "words"
        return False

    before = mount_at(str(place_of(part)))
    assert eventually(lambda: mount_at(str(place_of(part))) != before and is_back())
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not parts.is_running(part))
    parts.start(part)
    assert is_back()
    with contextlib.suppress(OSError):
        stale.close()


def test_a_failed_file_system_is_mounted_anew(parts: Parts, part: Part, nbd: NbdServer) -> None:
    parts.start(part)
    (place_of(part) / "kept").write_text("words")
    subprocess.run(["sync", "-f", place_of(part)], check=True)
    mount = mount_at(str(place_of(part)))
    assert mount
    # What ext4 does when it meets an error: only a part that looks for it notices.
    name = mount.source.removeprefix("/dev/")
    Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1")
    subprocess.run(["mount", "-o", "remount,ro", place_of(part)], check=False, capture_output=True)
    log = parts.folder / f"{part.name}.log"
    assert eventually(lambda: "started again" in log.read_text())
    assert eventually(lambda: os.access(place_of(part) / "kept", os.W_OK))
    assert (place_of(part) / "kept").read_text() == "words"


def test_nobody_waits_for_a_device_vm_that_is_not_to_come_back(parts: Parts, part: Part, nbd: NbdServer) -> None:
    parts.start(part)
    (place_of(part) / "kept").write_text("words")
    subprocess.run(["sync", "-f", place_of(part)], check=True)
    nbd.kill()
    (place_of(part) / "lost").write_text("words")
    begun = time.monotonic()
    parts.stop(part)
    assert time.monotonic() - begun < AWAY / 2
    assert not mount_at(str(place_of(part)))
    subprocess.run(["e2fsck", "-fp", nbd.image], capture_output=True, check=False)
    fsck(nbd)


def test_why_it_cannot_be_mounted(parts: Parts, part: Part, nbd: NbdServer) -> None:
    place = place_of(part)
    place.mkdir()
    (place / "mine").write_text("precious")
    with pytest.raises(DevicevmError, match="holds mine"):
        parts.start(part)
    assert (place / "mine").read_text() == "precious"
    other = replace(part, options={**part.options, "mount": "/proc"})
    with pytest.raises(DevicevmError, match="something is mounted at /proc"):
        parts.start(other)
    (place / "mine").unlink()
    with pytest.raises(DevicevmError, match="makes no minix"):
        parts.start(replace(part, options={**part.options, "type": "minix"}))
    nbd.image.write_bytes(os.urandom(16 * MIB))
    with pytest.raises(DevicevmError, match=r"wrong fs type|bad superblock"):
        parts.start(part)
    assert not mount_at(str(place))


def test_a_read_only_disk_is_mounted_so(parts: Parts, part: Part, nbd: NbdServer) -> None:
    subprocess.run(["mkfs.ext4", "-q", nbd.image], check=True)
    before = nbd.image.read_bytes()
    parts.start(replace(part, options={**part.options, "readOnly": "yes"}))
    with pytest.raises(OSError, match="Read-only"):
        (place_of(part) / "new").write_text("x")
    parts.stop(part)
    assert nbd.image.read_bytes() == before


@pytest.mark.long
def test_an_outage_that_is_too_long_fails_and_is_repaired(
    parts: Parts, part: Part, nbd: NbdServer, tmp_path: Path
) -> None:
    parts.start(part)
    (place_of(part) / "kept").write_text("words")
    subprocess.run(["sync", "-f", place_of(part)], check=True)
    nbd.kill()
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"Input/output|Read-only"), (place_of(part) / "lost").open("w") as file:
        file.write("other words")
        os.fsync(file.fileno())
    assert AWAY - 5 < time.monotonic() - begun < AWAY + 15
    # It is in nobody's way, and what is written there does not go elsewhere.
    time.sleep(5)
    assert mount_at(str(place_of(part)))
    again = NbdServer(tmp_path)
    try:
        assert eventually(lambda: can_write(place_of(part) / "new"), AWAY)
        assert (place_of(part) / "kept").read_text() == "words"
        parts.stop(part)
        fsck(nbd)
    finally:
        again.kill()


def can_write(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("w") as file:
        file.write("x")
        os.fsync(file.fileno())
        return True
    return False
