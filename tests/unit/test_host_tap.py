"""A tap of the host's on a link: a real tap, whose frames the kernel itself sends and counts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.part import lock
from devicevm.part.keeper import Parts
from devicevm.part.part import Part

NAME = f"dvm{os.getpid()}"
INTERFACE = Path("/sys/class/net") / NAME
MAC = "02:00:00:00:00:07"
# Of no protocol that anybody answers (IEEE 802 local experimental), from a port of the device VM.
FRAME = bytes.fromhex("02000000000702000000009988b5") + bytes(46)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    options = {"mac": MAC, "address": "10.93.7.2/24", "socket": str(tmp_path / "here")}
    return Part("tap", "lab-lan", str(tmp_path / "there"), NAME, options)


@pytest.fixture
def parts(tmp_path: Path, part: Part) -> Iterator[Parts]:
    if os.getuid() != 0 or not os.access("/dev/net/tun", os.W_OK):
        pytest.skip("it takes root and /dev/net/tun")
    made = Parts(tmp_path / "parts")
    yield made
    made.stop(part)
    assert not INTERFACE.exists() and not Path(part.options["socket"]).exists()


@pytest.fixture
def peer(part: Part) -> Iterator[socket.socket]:
    """The device VM's end of the link."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(part.channel)
        made.settimeout(10)
        yield made


def say_something(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"?", (address, 9))


def asked_for(peer: socket.socket, address: str) -> bool:
    """Whether the host asks at the device VM's end who has an address."""
    say_something(address)
    arp = bytes.fromhex("ffffffffffff" + MAC.replace(":", "") + "0806")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        frame = peer.recv(2048)
        if frame.startswith(arp) and socket.inet_aton(address) in frame:
            return True
    return False


def heard(part: Part, *command: str) -> bool:
    """Whether what a command sends comes out of the tap."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as ear:
        ear.bind((NAME, 0x88B5))
        ear.settimeout(1)
        subprocess.run([*command, sys.executable, "-c", SEND, part.options["socket"], FRAME.hex()], check=True)
        try:
            return ear.recv(2048) == FRAME
        except TimeoutError:
            return False


SEND = """\
import socket, sys
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(bytes.fromhex(sys.argv[2]), sys.argv[1])
"""


def test_frames_go_both_ways_and_the_tap_goes_with_its_part(parts: Parts, part: Part, peer: socket.socket) -> None:
    parts.start(part)
    assert (INTERFACE / "address").read_text().strip() == MAC
    assert "10.93.7.2/24" in subprocess.check_output(["ip", "address", "show", "dev", NAME], text=True)
    assert asked_for(peer, "10.93.7.1")
    assert heard(part)
    # The device VM goes and comes back.
    peer.close()
    os.unlink(part.channel)
    say_something("10.93.7.3")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(part.channel)
        again.settimeout(10)
        assert asked_for(again, "10.93.7.4")


def test_who_is_not_the_vmm_is_not_heard(parts: Parts, part: Part, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    parts.start(part)
    nobody = ("setpriv", "--reuid=65534", "--clear-groups", "--")
    assert not heard(part, *nobody)
    assert heard(part)
    parts.stop(part)
    other = Parts(parts.folder, (65534,))
    other.start(part)
    assert heard(part, *nobody)


def test_one_that_was_killed_leaves_no_tap(parts: Parts, part: Part) -> None:
    parts.start(part)
    held = lock.holder(parts.folder / f"{part.name}.lock")
    assert held
    os.kill(held.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (INTERFACE.exists() or parts.is_running(part)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not INTERFACE.exists()
    parts.start(part)
    assert INTERFACE.exists()


def test_one_that_somebody_deletes_ends_its_part_and_is_made_anew(parts: Parts, part: Part) -> None:
    parts.start(part)
    subprocess.run(["ip", "link", "delete", NAME], check=True)
    deadline = time.monotonic() + 10
    while parts.is_running(part) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not parts.is_running(part)
    assert "somebody has removed the tap" in parts.tail(part, 1)[0]
    parts.start(part)
    assert INTERFACE.exists()


def test_one_that_is_down_for_a_while_stays(parts: Parts, part: Part, peer: socket.socket) -> None:
    parts.start(part)
    subprocess.run(["ip", "link", "set", NAME, "down"], check=True)
    assert parts.is_running(part)
    subprocess.run(["ip", "link", "set", NAME, "up"], check=True)
    assert asked_for(peer, "10.93.7.1")


def test_somebody_elses_tap_stays(parts: Parts, part: Part) -> None:
    subprocess.run(["ip", "tuntap", "add", "mode", "tap", "name", NAME], check=True)
    try:
        with pytest.raises(DevicevmError, match=f"cannot make the tap {NAME}: Device or resource busy"):
            parts.start(part)
        parts.stop(part)
        assert INTERFACE.exists()
    finally:
        subprocess.run(["ip", "link", "delete", NAME], check=True)
    wrong = replace(part, options={**part.options, "address": "10.93.7.2/64"})
    with pytest.raises(DevicevmError, match=r"10\.93\.7\.2/64"):
        parts.start(wrong)
    assert not INTERFACE.exists()
