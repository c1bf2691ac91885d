"""The TPM's relay between a device VM that goes and comes and a VMM that asks more than it should: all is bounded."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from devicevm.part import tpm as tpm_relay
from devicevm.part.part import Part
from devicevm.part.tpm import FAILURE
from tpm_peers import (
    BUFFERSIZE,
    DATAFD,
    INIT,
    READ_PCR,
    STOP,
    HereStage,
    Machine,
    Vmm,
    frame,
    read_frame,
    relaying,
    right,
)

FAILED = struct.pack(">I", 9)
LIMIT = 1.0


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part("tpm", "web-tpm", str(tmp_path / "channel"), str(tmp_path / "tpm"))


@pytest.fixture
def relay(part: Part, monkeypatch: pytest.MonkeyPatch) -> Iterator[HereStage]:
    """A relay that waits a second for an answer."""
    for name in ("AWAY_CONTROL", "AWAY_DATA", "SLOW_CONTROL", "SLOW_DATA"):
        monkeypatch.setattr(tpm_relay, name, LIMIT)
    for name in ("_RETRY", "_DISTRUST"):
        monkeypatch.setattr(tpm_relay, name, 0.05)
    with relaying(part) as stage:
        yield stage


@pytest.fixture
def machine(part: Part) -> Iterator[Callable[[Callable[[socket.socket], None]], None]]:
    """Start a device VM that does with each connection what it is told to."""
    made: list[Machine] = []
    yield lambda behave: made.append(Machine(Path(part.channel), behave))
    for one in made:
        one.stop()


def never_answers(peer: socket.socket) -> None:
    peer.sendall(frame(b"h", b"devicevm-tpm 1"))
    peer.sendall(right(*read_frame(peer)))
    while peer.recv(65536):
        pass


def leaves(peer: socket.socket) -> None:
    """It is there, takes the question, and goes."""
    peer.sendall(frame(b"h", b"devicevm-tpm 1"))
    peer.sendall(right(*read_frame(peer)))
    read_frame(peer)
    time.sleep(LIMIT / 5)
    peer.close()


def greets_anew(peer: socket.socket) -> None:
    while True:
        peer.sendall(frame(b"h", b"devicevm-tpm 1"))
        peer.sendall(right(*read_frame(peer)))
        read_frame(peer)
        time.sleep(LIMIT / 5)


@pytest.mark.parametrize("behave", [never_answers, leaves, greets_anew])
def test_a_question_has_one_deadline_however_often_the_device_vm_goes_and_comes(
    relay: HereStage,
    part: Part,
    machine: Callable[[Callable[[socket.socket], None]], None],
    behave: Callable[[socket.socket], None],
) -> None:
    machine(behave)
    vmm = Vmm(part.address)
    begun = time.monotonic()
    assert vmm.ask(INIT, bytes(4)) == FAILED
    assert vmm.tpm(READ_PCR) == FAILURE
    assert time.monotonic() - begun < 8 * LIMIT
    vmm.close()


def test_a_command_that_takes_its_time_holds_up_no_control_command(
    relay: HereStage,
    part: Part,
    machine: Callable[[Callable[[socket.socket], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tpm_relay, "SLOW_DATA", 30.0)
    machine(never_answers)
    vmm = Vmm(part.address)
    vmm.data.sendall(READ_PCR)
    begun = time.monotonic()
    assert vmm.ask(BUFFERSIZE, bytes(4)).startswith(FAILED)
    assert time.monotonic() - begun < 8 * LIMIT
    vmm.close()


def sent_at_once(peer: socket.socket, data: bytes) -> int:
    """How often the data can be sent until nobody takes it any more."""
    peer.settimeout(0.3)
    count = 0
    try:
        while count < 4000:
            peer.sendall(data)
            count += 1
    except TimeoutError:
        pass
    return count


@pytest.mark.parametrize("kind", ["data", "control"])
def test_what_is_sent_without_waiting_for_answers_is_not_kept(
    relay: HereStage,
    part: Part,
    machine: Callable[[Callable[[socket.socket], None]], None],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    for name in ("SLOW_CONTROL", "SLOW_DATA"):
        monkeypatch.setattr(tpm_relay, name, 30.0)
    machine(never_answers)
    vmm = Vmm(part.address)
    if kind == "data":
        command = struct.pack(">HII", 0x8001, 4096, 0x144).ljust(4096, b"\0")
        assert sent_at_once(vmm.data, command) < 400
    else:
        assert sent_at_once(vmm.control, struct.pack(">II", BUFFERSIZE, 0) * 512) < 400
    vmm.close()


def test_control_commands_sent_together_are_all_answered(
    relay: HereStage, part: Part, machine: Callable[[Callable[[socket.socket], None]], None]
) -> None:
    def answers(peer: socket.socket) -> None:
        peer.sendall(frame(b"h", b"devicevm-tpm 1"))
        while True:
            peer.sendall(right(*read_frame(peer)))

    machine(answers)
    vmm = Vmm(part.address)
    vmm.control.sendall(struct.pack(">II", INIT, 0) * 3 + struct.pack(">I", STOP))
    got = b""
    while len(got) < 16:
        got += vmm.control.recv(100)
    assert got == bytes(16)
    vmm.close()


def test_what_is_handed_over_is_one_socket(relay: HereStage, part: Part) -> None:
    first, second = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as control, open(os.devnull, "r+b") as nothing, first, second:
        control.settimeout(10)
        control.connect(part.address)

        def hand_over(*files: int) -> bytes:
            socket.send_fds(control, [struct.pack(">I", DATAFD)], list(files))
            return control.recv(100)

        control.sendall(struct.pack(">I", DATAFD))
        assert control.recv(100) == FAILED
        before = len(os.listdir("/proc/self/fd"))
        assert hand_over(nothing.fileno()) == FAILED
        assert hand_over(first.fileno(), second.fileno()) == FAILED
        assert len(os.listdir("/proc/self/fd")) == before
        assert hand_over(first.fileno()) == bytes(4)
        assert hand_over(second.fileno()) == FAILED
        assert len(os.listdir("/proc/self/fd")) == before + 1
        # The first one still is what commands come by.
        first.close()
        second.settimeout(10)
        second.sendall(READ_PCR[:5])
        assert second.recv(100) == FAILURE
