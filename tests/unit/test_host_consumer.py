"""Devices for the host itself, without a VMM: what parts show at a path, and what is left when they end."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.part import lock
from devicevm.part.file import is_there
from devicevm.part.keeper import Parts
from devicevm.part.part import Part
from nbd_server import MIB, NbdServer

Behave = Callable[[socket.socket], None]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """Whatever a test has started is stopped, and nothing is left of it."""
    made = Parts(tmp_path / "parts")
    yield made
    for path in made.folder.glob("*.lock"):
        held = lock.holder(path)
        if held and held.part:
            made.stop(held.part)
    assert not made.folder.exists()


@contextlib.contextmanager
def device_vm(path: Path, behave: Behave) -> Iterator[None]:
    """Something that behaves as a channel of a device VM does: one peer at a time."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    peers: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peers.append(listener.accept()[0])
                with contextlib.suppress(OSError):
                    behave(peers[-1])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        for one in (listener, *peers):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        thread.join(5)
        path.unlink()


def echo(peer: socket.socket) -> None:
    """What arrives goes back in capitals."""
    while data := peer.recv(4096):
        peer.sendall(data.upper())


def egd(peer: socket.socket) -> None:
    """Random bytes in EGD's protocol."""
    while asked := peer.recv(2, socket.MSG_WAITALL):
        peer.sendall(os.urandom(asked[1]))


def read_some(file: int, size: int, seconds: float = 10.0) -> bytes:
    """That many bytes, or as many as come in time."""
    data = b""
    end = time.monotonic() + seconds
    while len(data) < size and select.select([file], [], [], max(end - time.monotonic(), 0))[0]:
        data += os.read(file, size - len(data))
    return data


def ask(path: Path, text: bytes) -> bytes:
    """What a serial port answers, as often asked as it takes: a line that is not there yet remembers nothing."""
    file = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        for attempt in range(50):
            os.write(file, text)
            if said := read_some(file, len(text), 0.3 + 0.01 * attempt):
                return said
        return b""
    finally:
        os.close(file)


def test_a_serial_port_is_a_terminal_at_its_path(parts: Parts, tmp_path: Path) -> None:
    part = Part("pty", "lab-gps", str(tmp_path / "channel"), str(tmp_path / "gps"))
    link = Path(part.address)
    with device_vm(tmp_path / "channel", echo):
        parts.start(part)
        assert os.readlink(link).startswith("/dev/pts/")
        # Raw: no echo of its own, and no waiting for the end of a line.
        assert ask(link, b"where") == b"WHERE"
    # The device VM goes and comes back: the terminal stays.
    with device_vm(tmp_path / "channel", echo):
        assert ask(link, b"again") == b"AGAIN"
    parts.stop(part)
    assert not link.is_symlink()


def test_what_nobody_hears_is_lost(parts: Parts, tmp_path: Path) -> None:
    part = Part("pty", "lab-gps", str(tmp_path / "channel"), str(tmp_path / "gps"))

    def talk(peer: socket.socket) -> None:
        for count in range(10**6):
            peer.sendall(b"%07d\n" % count)

    with device_vm(tmp_path / "channel", talk):
        parts.start(part)
        time.sleep(1)
        file = os.open(part.address, os.O_RDWR | os.O_NOCTTY)
        first = int(read_some(file, 4096).split()[1])
        os.close(file)
    # It does not begin with what was said before anybody listened.
    assert first > 4096 // 8


def test_randomness_comes_out_of_a_fifo(parts: Parts, tmp_path: Path) -> None:
    part = Part("fifo", "lab-noise", str(tmp_path / "channel"), str(tmp_path / "noise"))
    with device_vm(tmp_path / "channel", egd):
        parts.start(part)
        file = os.open(part.address, os.O_RDONLY | os.O_NONBLOCK)
        data = read_some(file, 100_000)
    assert len(data) == 100_000
    assert len(set(data)) == 256
    with device_vm(tmp_path / "channel", egd):
        # What was in the FIFO comes first, then what the device VM gives that has come back.
        assert len(read_some(file, 100_000)) == 100_000
    os.close(file)
    parts.stop(part)
    assert not Path(part.address).exists()


@pytest.mark.parametrize("kind", ["pty", "fifo", "file"])
def test_what_is_somebody_elses_stays(parts: Parts, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine"
    path.write_text("precious")
    part = Part(kind, "lab-it", str(tmp_path / "channel"), str(path))
    with pytest.raises(DevicevmError, match="mine"):
        parts.start(part)
    parts.stop(part)
    assert path.read_text() == "precious"


@pytest.fixture
def nbd(tmp_path: Path) -> Iterator[NbdServer]:
    """A disk; skipped where there is no FUSE."""
    if not all(map(shutil.which, ("nbdkit", "qemu-storage-daemon", "fusermount3"))) or not os.access(
        "/dev/fuse", os.W_OK
    ):
        pytest.skip("nbdkit, qemu-storage-daemon or FUSE is not there")
    server = NbdServer(tmp_path)
    yield server
    if server.process.poll() is None:
        server.kill()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_daemon(pid: int, disk: Path) -> None:
    """The daemon dies: it is started again, and the disk is at the same path."""
    (daemon,) = children(pid)
    os.kill(daemon, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        # Until it is unmounted there is nobody behind it, and then there is an empty file.
        with contextlib.suppress(OSError):
            if disk.stat().st_size:
                return
        time.sleep(0.1)
    pytest.fail("the daemon was not started again")


def test_a_disk_is_a_file(parts: Parts, nbd: NbdServer, tmp_path: Path) -> None:
    """It outlives its server and its daemon, and nothing is left of it but the data."""
    part = Part("file", "lab-data", str(nbd.socket), str(tmp_path / "a disk"))
    disk = Path(part.address)
    parts.start(part)
    assert disk.stat().st_size == 8 * MIB
    noise = os.urandom(MIB)
    with disk.open("r+b") as file:
        file.seek(MIB)
        file.write(noise)
        os.fsync(file.fileno())
    nbd.kill()
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(subprocess.check_output(["head", "-c", "4M", str(disk)])))
    reader.start()
    time.sleep(0.3)
    again = NbdServer(tmp_path)
    reader.join(30)
    try:
        assert len(found) == 1
        assert found[0][MIB : 2 * MIB] == noise
        held = lock.holder(parts.folder / f"{part.name}.lock")
        assert held
        kill_daemon(held.pid, disk)
        assert disk.read_bytes()[MIB : 2 * MIB] == noise

        # The part itself is killed: its daemon goes with it, and who stops it cleans up.
        (daemon,) = children(held.pid)
        os.kill(held.pid, signal.SIGKILL)
        parts.stop(part)
        assert not is_there(part.address)
        assert not disk.exists()
        assert not Path(f"/proc/{daemon}/exe").exists()
    finally:
        again.kill()
    assert nbd.image.read_bytes()[MIB : 2 * MIB] == noise


def test_a_read_only_disk_cannot_be_written(parts: Parts, nbd: NbdServer, tmp_path: Path) -> None:
    part = Part("file", "lab-book", str(nbd.socket), str(tmp_path / "book"), {"readOnly": "yes"})
    parts.start(part)
    with pytest.raises(OSError, match=r"Read-only|Permission|not permitted"):
        Path(part.address).write_bytes(b"x")
    assert Path(part.address).read_bytes()[:1] == b"\0"
