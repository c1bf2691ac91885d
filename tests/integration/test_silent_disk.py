"""A disk's emulator that takes questions and answers none: nbdkit here, with a QEMU that has no guest as its client."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from devicevm.guest.channel_socket import has_peer
from devicevm.vmm.driver import VmmError
from devicevm.vmm.libvirt import rejoin

QEMU = "qemu-system-x86_64"
pytestmark = pytest.mark.skipif(
    not (shutil.which(QEMU) and shutil.which("nbdkit")), reason="qemu-system-x86 or nbdkit is not installed"
)
SILENT = ("--filter=delay", "memory", "1M", "rdelay=3600")
ANSWERING = ("memory", "1M")


class Monitor:
    """QEMU's own, as libvirt hands it out; and the domain that it belongs to."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        until(path.exists)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.ask(self, "qmp_capabilities")

    def name(self) -> str:
        return "web"

    def ask(self, _domain: object, command: str, **arguments: str) -> Any:
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        for line in self.lines:
            answer = json.loads(line)
            if "event" not in answer:
                return answer["return"]
        raise EOFError(command)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def server(path: Path, *what: str) -> Iterator[None]:
    path.unlink(missing_ok=True)
    process = subprocess.Popen(["nbdkit", "-f", "-U", path, *what], stderr=subprocess.DEVNULL)
    try:
        until(path.exists)
        yield
    finally:
        process.kill()
        process.wait()
        until(lambda: not has_peer(str(path)))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "nbd"


@pytest.fixture
def domain(tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """A QEMU whose disk's device VM has gone."""
    # As libvirt has them: two nodes, and a device that keeps what it was asked for.
    storage = f"driver=nbd,node-name=libvirt-1-storage,server.type=unix,server.path={disk}"
    options = [
        *("-machine", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-S"),
        *("-blockdev", storage, "-blockdev", "driver=raw,node-name=libvirt-1-format,file=libvirt-1-storage"),
        *("-device", "virtio-blk-pci,drive=libvirt-1-format,id=virtio-disk0,rerror=stop,werror=stop"),
        *("-qmp", f"unix:{tmp_path}/monitor,server=on,wait=off"),
    ]
    with server(disk, *ANSWERING):
        process = subprocess.Popen([QEMU, *options], stdout=subprocess.DEVNULL)
        try:
            monitor = Monitor(tmp_path / "monitor")
        except BaseException:
            process.kill()
            raise
    monkeypatch.setattr(rejoin, "_ask", monitor.ask)
    yield monitor
    process.kill()
    process.wait()


def connect(domain: Monitor, disk: Path) -> None:
    rejoin.connect_disks(domain, (str(disk),))  # type: ignore[arg-type]


def test_a_disk_that_is_back_answers_its_client(domain: Monitor, disk: Path) -> None:
    with server(disk, *ANSWERING):
        connect(domain, disk)
        assert has_peer(str(disk))
        (read,) = [one["stats"]["rd_operations"] for one in domain.ask(None, "query-blockstats")]
        assert read == 1


def test_one_that_answers_no_read_is_told_and_the_client_s_vmm_lives(
    domain: Monitor, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patience, server(disk, *SILENT):
        patience.setattr(rejoin, "PATIENCE", 1.0)
        with pytest.raises(VmmError, match="web: a disk does not answer"):
            connect(domain, disk)
        assert has_peer(str(disk))
        assert domain.ask(None, "query-status")["status"] == "prelaunch"
    with server(disk, *ANSWERING):
        connect(domain, disk)
