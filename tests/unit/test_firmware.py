"""Device VMs that run firmware: what cannot be rendered, images on the host, and probes of what has no agent."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from devicevm.apply.ready import NotReady, wait_ready
from devicevm.domain import Channel, DomainSpec, Emulator, Firmware, FirmwareKind
from devicevm.errors import DevicevmError
from devicevm.guest.channel_socket import has_peer
from devicevm.guest.probe import probe_answer
from devicevm.manifest.topology import Store
from devicevm.record import from_data, to_data
from devicevm.vmm.firmware import MAX_BYTES, check_firmware, firmware_digest
from devicevm.vmm.libvirt.domain_xml import domain_xml

GOLDENS = Path(__file__).parents[1] / "goldens" / "domains"


def spec(kind: str = "elf") -> DomainSpec:
    return from_data(DomainSpec, json.loads((GOLDENS / f"firmware-{kind}.json").read_text()))


def first(of: DomainSpec, **changes: Any) -> DomainSpec:
    """The same with its first emulator changed."""
    return replace(of, emulators=(replace(of.emulators[0], **changes), *of.emulators[1:]))


REFUSED = [
    (replace(spec(), control="/run/c.sock"), "runs firmware, which has no control port"),
    (replace(spec(), console="/run/c.log"), "runs firmware, which has no console"),
    (replace(spec(), cpu_features=("avx2",)), "is not given instruction set extensions"),
    (replace(spec(), emulators=()), "no serial port to be reached at"),
    (first(spec(), command=("nbdkit",)), "web.t0: web-firmware runs firmware, which has no programs"),
    (
        first(spec(), store=Store(kind="file", size=1, path="/x")),
        "web.t0: web-firmware runs firmware, which has no backing",
    ),
    (first(spec(), channel=Channel("vhost-user", "/run/x.sock", "")), "firmware has no vhost-user channel"),
    (replace(spec("uefi"), arch="armv7l"), "uefi firmware does not run on armv7l"),
    (replace(spec("rom"), arch="aarch64"), "rom firmware does not run on aarch64"),
    (
        replace(spec("rom"), emulators=tuple(replace(spec("rom").emulators[0], name=f"n{n}") for n in range(5))),
        "web.n4 is serial port number 5 of web-firmware, a machine has room for 4",
    ),
]


@pytest.mark.parametrize(("refused", "says"), REFUSED, ids=[says[-20:] for _, says in REFUSED])
def test_what_firmware_cannot_have_is_refused_by_name(refused: DomainSpec, says: str) -> None:
    with pytest.raises(DevicevmError, match=says):
        domain_xml(refused, "/state")


def test_each_emulator_has_the_serial_port_of_its_number() -> None:
    tree = domain_xml(spec("rom"), "/state")
    assert [
        (serial.find("target").get("port"), serial.find("source").get("path"))  # type: ignore[union-attr]
        for serial in tree.iterfind("devices/serial")
    ] == [(str(number), emulator.channel.address) for number, emulator in enumerate(spec("rom").emulators)]
    assert not tree.findall("devices/channel")


def test_a_record_without_firmware_is_read_and_written_as_before() -> None:
    old = json.loads((GOLDENS / "device-vm.json").read_text())
    read = from_data(DomainSpec, old)
    assert read.firmware is None
    assert "firmware" not in to_data(read)
    assert from_data(DomainSpec, to_data(spec())) == spec()


def test_an_image_is_the_one_planned_with(tmp_path: Path) -> None:
    image = tmp_path / "a.rom"
    image.write_bytes(b"code")
    known = hashlib.sha256(b"code").hexdigest()
    assert firmware_digest(str(image)) == known
    for digest in ("", known[:12], known):
        check_firmware("dvm", Firmware(FirmwareKind.ROM, str(image), digest))
    with pytest.raises(DevicevmError, match=f"dvm: firmware .*planned {'0' * 12}"):
        check_firmware("dvm", Firmware(FirmwareKind.ROM, str(image), "0" * 12))


def test_what_is_no_image_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    for name, says in {
        "none": "No such file",
        "pipe": "no regular file",
        "empty": "0 bytes",
        "large": "allowed",
    }.items():
        with pytest.raises(DevicevmError, match=says):
            firmware_digest(str(tmp_path / name))


class Instrument:
    """A serial port behind a socket, one peer at a time: it hears nothing of what comes before `wakes` seconds, and
    answers every line after that. It notices `lingers` seconds late that a peer has left."""

    def __init__(self, path: str, wakes: float, lingers: float) -> None:
        self.lingers = lingers
        self.wakes, self.asked, self.left = time.monotonic() + wakes, 0, False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        try:
            while True:
                peer, _ = self.listener.accept()
                with peer:
                    while data := peer.recv(100):
                        self.asked += data.count(b"\n")
                        if time.monotonic() >= self.wakes:
                            peer.sendall(b"\x1b[2Jdevicevm,thermometer,test,1\n" * data.count(b"\n"))
                    self.left = True
                    time.sleep(self.lingers)
        except OSError:
            return


@contextmanager
def instrument(path: Path, *, wakes: float = 0.0, lingers: float = 0.0) -> Iterator[Instrument]:
    made = Instrument(str(path), wakes, lingers)
    try:
        yield made
    finally:
        made.listener.shutdown(socket.SHUT_RDWR)
        made.listener.close()


def test_who_does_not_listen_yet_is_asked_again(tmp_path: Path) -> None:
    with instrument(tmp_path / "s", wakes=0.5) as made:
        found = probe_answer(str(tmp_path / "s"), 5.0, ask=b"*IDN?\n", pattern=b"thermometer", again=0.1)
        assert b"devicevm,thermometer,test,1\n" in found
        assert made.asked >= 4
        with pytest.raises(DevicevmError, match=r"no answer within 0.5 s .*what came: b'.*thermometer"):
            probe_answer(str(tmp_path / "s"), 0.5, ask=b"*IDN?\n", pattern=b"oscilloscope", again=0.1)


def test_the_host_knows_who_is_connected(tmp_path: Path) -> None:
    path = str(tmp_path / "s s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as peer:
        assert not has_peer(path)
        listener.bind(path)
        listener.listen()
        assert not has_peer(path)
        peer.connect(path)
        assert not has_peer(path), "it waits to be accepted"
        accepted, _ = listener.accept()
        assert has_peer(path)
        accepted.close()
        assert not has_peer(path)


class Driver:
    """Knows whether the domain runs."""

    def __init__(self, *, active: bool = True) -> None:
        self.active = active

    def is_active(self, name: str) -> bool:
        return self.active


def at(path: Path, **changes: Any) -> DomainSpec:
    """A device VM with one emulator, whose channel is at `path`."""
    emulator: Emulator = spec("uefi").emulators[0]
    channel = Channel("stream", str(path), "")
    return replace(spec("uefi"), emulators=(replace(emulator, channel=channel, **changes),))


def wait(domain: DomainSpec, driver: Driver, seconds: float) -> None:
    wait_ready(cast(Any, driver), domain, time.monotonic() + seconds)


def test_firmware_is_ready_when_it_has_answered(tmp_path: Path) -> None:
    with instrument(tmp_path / "s", wakes=0.7) as made:
        begun = time.monotonic()
        wait(at(tmp_path / "s"), Driver(), 10)
        assert time.monotonic() - begun > 0.7
        assert made.left
        with pytest.raises(NotReady, match=r"device VM web-firmware: no answer in time: web\.t0: "):
            wait(at(tmp_path / "s", expect="oscilloscope"), Driver(), 0.5)


def test_a_probe_that_has_left_is_not_taken_for_a_client(tmp_path: Path) -> None:
    with instrument(tmp_path / "s", lingers=0.4), pytest.raises(NotReady, match="no answer in time"):
        wait(at(tmp_path / "s", expect="oscilloscope"), Driver(), 3)


def test_a_channel_whose_client_is_there_is_not_probed(tmp_path: Path) -> None:
    with instrument(tmp_path / "s") as made, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(tmp_path / "s"))
        while not has_peer(str(tmp_path / "s")):
            time.sleep(0.01)
        wait(at(tmp_path / "s", expect="oscilloscope"), Driver(), 1)
        assert made.asked == 0


def test_firmware_of_which_nothing_is_expected_must_only_run(tmp_path: Path) -> None:
    quiet = at(tmp_path / "s", ask="", expect="")
    wait(quiet, Driver(), 1)
    with pytest.raises(NotReady, match="it has stopped by itself"):
        wait(quiet, Driver(active=False), 1)
    with pytest.raises(NotReady, match="it has powered off"):
        wait(at(tmp_path / "s"), Driver(active=False), 1)
