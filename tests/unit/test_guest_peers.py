"""Control and probes against peers that behave, and against some that do not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.guest.control import Control, DeviceState
from devicevm.guest.probe import PROBES, probe_9p, probe_bytes, probe_egd, probe_nbd, probe_nmea, probe_usbredir

Peer = Callable[[socket.socket], None]
Serve = Callable[[Peer], str]
STATUS = {
    "devices": [
        {"name": "d", "state": "running", "pid": 7, "restarts": 0, "connected": False, "serving": False},
        {"name": "s", "state": "waiting", "pid": 0, "restarts": 1, "connected": False, "serving": False},
    ],
    "uptime": 1.5,
    "memoryAvailable": 1000,
}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a peer in a thread; returns its socket's path. One connection, closed in the end."""
    listeners: list[socket.socket] = []

    def start(peer: Peer) -> str:
        listener = socket.socket(socket.AF_UNIX)
        path = str(tmp_path / f"s{len(listeners)}")
        listener.bind(path)
        listener.listen(1)
        listeners.append(listener)

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                # The other side may leave in the midst of anything.
                with contextlib.suppress(OSError, ValueError):
                    peer(connection)

        threading.Thread(target=run, daemon=True).start()
        return path

    yield start
    for listener in listeners:
        listener.close()


def answering(*replies: Callable[[dict[str, object]], bytes]) -> Peer:
    """A control port that answers one request after the other."""

    def peer(connection: socket.socket) -> None:
        stream = connection.makefile("rwb")
        for reply in replies:
            line = b"\n"
            while line == b"\n":
                line = stream.readline()
            stream.write(reply(json.loads(line)))
            stream.flush()
        stream.read()

    return peer


def good(**extra: object) -> Callable[[dict[str, object]], bytes]:
    return lambda request: json.dumps({"id": request["id"], "ok": True, **extra}).encode() + b"\n"


def forever(data: bytes) -> Peer:
    def peer(connection: socket.socket) -> None:
        while True:
            connection.sendall(data)

    return peer


def silent(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    time.sleep(5)


def closing(connection: socket.socket) -> None:
    connection.close()


def test_status(serve: Serve) -> None:
    with Control(serve(answering(good(**STATUS)))) as control:
        status = control.status()
    assert [device.state for device in status.devices] == [DeviceState.RUNNING, DeviceState.WAITING]
    assert status.ready
    assert (status.uptime, status.memory_available, status.arch) == (1.5, 1000, "")
    with Control(serve(answering(good(**STATUS, arch="aarch64")))) as control:
        assert control.status().arch == "aarch64"


def test_late_replies_to_others_are_skipped(serve: Serve) -> None:
    stale = b'{"id":null,"ok":false,"error":"not JSON"}\n{"id":-1,"ok":true}\n'
    with Control(serve(answering(lambda request: stale + good(lines=["a", "b\x1b[2J"])(request)))) as control:
        assert control.log() == ("a", "b?[2J")


def test_what_a_guest_calls_things_is_printable(serve: Serve) -> None:
    status = {**STATUS, "configProblem": "line 1\x1b]0;owned\x07"}
    with Control(serve(answering(good(**status)))) as control, pytest.raises(DevicevmError, match=r"1\?\]0;owned\?\n"):
        control.wait_ready(0)


def test_cpu(serve: Serve) -> None:
    with Control(serve(answering(good(arch="aarch64", flags=["fp", "asimd"])))) as control:
        found = control.cpu()
    assert (found.arch, found.flags) == ("aarch64", ("fp", "asimd"))


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"arch": "x86_64"}, "flags missing"),
        ({"arch": "x86_64", "flags": "sse2"}, "a list expected"),
        ({"arch": "x86_64", "flags": ["sse2", "\x1b[2J"]}, "processor's flags"),
        ({"arch": "", "flags": []}, "processor's flags"),
    ],
)
def test_cpu_of_a_hostile_guest(serve: Serve, reply: dict[str, object], reason: str) -> None:
    with Control(serve(answering(good(**reply)))) as control, pytest.raises(DevicevmError, match=reason):
        control.cpu()


def test_refusal(serve: Serve) -> None:
    def refuse(request: dict[str, object]) -> bytes:
        return json.dumps({"id": request["id"], "ok": False, "error": "port x is taken"}).encode() + b"\n"

    with Control(serve(answering(refuse))) as control, pytest.raises(DevicevmError, match="port x is taken"):
        control.add({"name": "x", "command": ["y"]})


def test_not_ready_in_time(serve: Serve) -> None:
    status = {**STATUS, "devices": [{**STATUS["devices"][0], "state": "failed"}]}  # type: ignore[dict-item,index]
    with Control(serve(answering(*[good(**status)] * 50))) as control, pytest.raises(DevicevmError, match="d failed"):
        control.wait_ready(0.2)


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (forever(b"x" * 4096), "longer than"),
        (forever(b"{}\n"), "nobody asked"),
        (forever(b"[]\n"), "no object"),
        (forever(b"\xff\xfe\n"), "not JSON"),
        (forever(b"[" * 100000 + b"\n"), "not JSON"),
        (silent, "no reply within"),
        (closing, "closed|does not listen|reset"),
        (answering(good(devices=5, uptime=1, memoryAvailable=1)), "a list expected"),
        (answering(good(devices=[], uptime="1", memoryAvailable=1)), "a number expected"),
        (answering(good(**{**STATUS, "surprise": 1})), "unknown key"),
        (answering(good(**{**STATUS, "\x1b[2J\ud800": 1})), r"unknown key \?\[2J\?\n"),
        (answering(good(**{**STATUS, "uptime": float("nan")})), "a number expected"),
        (answering(good(**{**STATUS, "uptime": float("inf")})), "a number expected"),
        (answering(good(**{**STATUS, "uptime": 10**400})), "a number expected"),
        (answering(good(**{**STATUS, "uptime": -1e300})), "a number in it that cannot be"),
        (answering(good(**{**STATUS, "memoryAvailable": 2**63})), "a number in it that cannot be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_control(serve: Serve, peer: Peer, reason: str) -> None:
    began = time.monotonic()
    with pytest.raises(DevicevmError, match=reason), Control(serve(peer), timeout=1.0) as control:
        control.status()
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("name", sorted(PROBES))
@pytest.mark.parametrize("peer", [silent, closing], ids=["silent", "closing"])
def test_probes_end(serve: Serve, name: str, peer: Peer) -> None:
    began = time.monotonic()
    with pytest.raises(DevicevmError):
        PROBES[name](serve(peer), 0.5)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("name", ["9p", "nbd", "nmea"])
def test_probes_do_not_believe_noise(serve: Serve, name: str) -> None:
    with pytest.raises(DevicevmError):
        PROBES[name](serve(forever(b"noise" * 100)), 3.0)


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(DevicevmError, match="cannot connect"):
        probe_nbd(str(tmp_path / "none"), 0.2)
    with pytest.raises(DevicevmError, match="too long"):
        probe_nbd(str(tmp_path / ("x" * 200)), 60)


def nbd_replying(*replies: bytes) -> Peer:
    def peer(connection: socket.socket) -> None:
        connection.sendall(b"NBDMAGICIHAVEOPT\x00\x03")
        connection.recv(100)
        for reply in replies:
            connection.sendall(reply)
        connection.recv(100)
        time.sleep(1)

    return peer


def nbd_reply(kind: int, data: bytes = b"", length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack(">QIII", 0x3E889045565A9, 6, kind, size) + data


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([b"\0" * 20], "makes no sense"),
        ([nbd_reply(3, length=2**32 - 1)], "makes no sense"),
        ([nbd_reply(2**31 + 6)], "refused"),
        ([nbd_reply(1)], "told no size"),
        ([nbd_reply(3, b"\0\3" + bytes(12))] * 20, "told no size"),
    ],
)
def test_hostile_nbd(serve: Serve, replies: list[bytes], reason: str) -> None:
    with pytest.raises(DevicevmError, match=reason):
        probe_nbd(serve(nbd_replying(*replies)), 2.0)


def p9_replying(version: bytes, *, kind: int = 101, tag: int = 0xFFFF, size: int = 8192, short: int = 0) -> Peer:
    """A 9p server that answers the first request with this."""

    def peer(connection: socket.socket) -> None:
        connection.recv(100)
        body = struct.pack("<BHIH", kind, tag, size, len(version) - short) + version
        connection.sendall(struct.pack("<I", 4 + len(body)) + body)
        connection.recv(100)

    return peer


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (p9_replying(b"unknown"), "offers b'unknown'"),
        (p9_replying(b"9P2000.L", kind=107), "no sense"),
        (p9_replying(b"9P2000.L", tag=0), "no sense"),
        (p9_replying(b"9P2000.L", short=1), "no sense"),
        (p9_replying(b"9P2000.L", size=1 << 20), "offers"),
        (p9_replying(b"9" * 9000), "no sense"),
    ],
    ids=["version", "kind", "tag", "length", "size", "long"],
)
def test_hostile_9p(serve: Serve, peer: Peer, reason: str) -> None:
    with pytest.raises(DevicevmError, match=reason):
        probe_9p(serve(peer), 2.0)


def test_a_9p_server_tells_its_version(serve: Serve) -> None:
    assert probe_9p(serve(p9_replying(b"9P2000.L", size=4096)), 2.0) == "9P2000.L"


def test_real_nbd(tmp_path: Path) -> None:
    if not shutil.which("nbdkit"):
        pytest.skip("nbdkit is not installed")
    path = str(tmp_path / "nbd")
    server = subprocess.Popen(["nbdkit", "-f", "-U", path, "memory", "3M"], stdin=subprocess.DEVNULL)
    try:
        assert probe_nbd(path) == 3 << 20
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our emulators, compiled as for an image."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    from devicevm.guest.compile import HostToolchain, compile_program

    folder = tmp_path_factory.mktemp("programs")
    for name in ("egd", "nmea", "echo", "hid", "usbredir"):
        compile_program(name, Path(__file__).parents[2] / "plugin/guest", folder / name, HostToolchain())
    return folder


def running(program: Path, *arguments: str) -> Peer:
    """The program on the connection, as on a port."""

    def peer(connection: socket.socket) -> None:
        # A port blocks; a socket with a timeout does not, whoever reads it.
        connection.setblocking(True)
        subprocess.run([program, *arguments], stdin=connection, stdout=connection, timeout=10, check=False)

    return peer


def test_egd(serve: Serve, programs: Path) -> None:
    assert len(set(probe_egd(serve(running(programs / "egd")), size=200))) > 50


def test_egd_gives_a_silent_peer_what_it_may_wait_for(programs: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen([programs / "egd"], stdin=theirs, stdout=theirs) as program:
        ours.settimeout(10)
        # A question that was lost is up to 255 bytes long; then it answers as ever.
        lost = ours.recv(255, socket.MSG_WAITALL)
        ours.sendall(bytes([2, 7]))
        assert (len(set(lost)) > 50, len(ours.recv(8))) == (True, 7)
        program.kill()


def test_egd_commands(programs: Path) -> None:
    asked = b"\0\1\5\2\3\3\0\10\2ab\4\2\0\2\1"
    said = subprocess.run([programs / "egd"], input=asked, capture_output=True, timeout=10, check=True).stdout
    assert (said[:4], said[4]) == (b"\0\0\x10\0", 5)
    length = said[13]
    assert said[14 : 14 + length].isdigit()
    assert len(said) == 4 + 6 + 3 + 1 + length + 0 + 1


@pytest.mark.parametrize("asked", [b"\7", b"\2", b"\3\0", b""])
def test_egd_ends_on_nonsense(programs: Path, asked: bytes) -> None:
    done = subprocess.run([programs / "egd"], input=asked, capture_output=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_nmea(serve: Serve, programs: Path) -> None:
    sentence = probe_nmea(serve(running(programs / "nmea", "-p", "-33.8568,151.2153,12.5")))
    fields = sentence.split(",")
    assert fields[0] == "GPRMC"
    assert fields[3:7] == ["3351.4080", "S", "15112.9180", "E"]


def test_nmea_query(serve: Serve, programs: Path) -> None:
    path = serve(running(programs / "nmea", "-i", "60000"))
    said = probe_bytes(path, send=b"$GPGPQ,GGA*2B\r\n", pattern=rb"(?s)GPGGA.*GPGGA[^\n]*\n")
    assert said.count(b"$GPRMC") == 1


@pytest.mark.parametrize("wrong", [["-i", "1"], ["-p", "91,0"], ["-p", "nan,0"], ["-p", "x"], ["more"], ["-x"]])
def test_nmea_usage(programs: Path, wrong: list[str]) -> None:
    done = subprocess.run(
        [programs / "nmea", *wrong], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
    )
    assert done.returncode == 2
    assert b"usage" in done.stderr


def test_echo(serve: Serve, programs: Path) -> None:
    data = os.urandom(3000)
    assert probe_bytes(serve(running(programs / "echo")), send=data, pattern=b".{3000}") == data


def test_usbredir_greets_though_its_device_is_not_there(serve: Serve, programs: Path) -> None:
    """The greeting is the work of libusbredirhost, and the program ends with its peer."""
    assert probe_usbredir(serve(running(programs / "usbredir", "ffff:ffff"))) == "devicevm"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"NBDMAGICIHAVEOPT\0\3", "this is no usbredir host"),
        (struct.pack("<III", 0, 63, 0) + bytes(63), "packet 0 of 63 bytes"),
        (struct.pack("<III", 0, 1 << 31, 0), "packet 0 of 2147483648 bytes"),
        (struct.pack("<III", 1, 64, 0) + bytes(64), "packet 1 of 64 bytes"),
        (struct.pack("<III", 0, 68, 0) + bytes(60), "closed the connection"),
    ],
)
def test_what_is_no_usbredir_host(serve: Serve, said: bytes, reason: str) -> None:
    with pytest.raises(DevicevmError, match=reason):
        probe_usbredir(serve(lambda connection: connection.sendall(said)))


def typed(programs: Path, text: str) -> list[tuple[int, int]]:
    """The modifiers and the key of each report in which a key is down."""
    # The host's first word, of the keyboard's lights.
    said = subprocess.run(
        [programs / "hid", "text", "0", text], input=b"\0", capture_output=True, timeout=10, check=True
    )
    reports = [said.stdout[i : i + 8] for i in range(0, len(said.stdout), 8)]
    assert reports[1::2] == [bytes(8)] * len(text)
    assert all(report[1:2] + report[3:] == bytes(6) for report in reports)
    return [(report[0], report[2]) for report in reports[::2]]


def test_every_character_has_a_key_of_its_own(programs: Path) -> None:
    printable = [*map(chr, range(32, 127)), "\t", "\n"]
    keys = typed(programs, "".join(printable))
    assert len(set(keys)) == len(printable)
    assert all(0x04 <= key <= 0x38 and modifiers in (0, 2) for modifiers, key in keys)
    by_character = dict(zip(printable, keys, strict=True))
    for plain, shifted in ("aA", "zZ", "1!", "0)", "-_", "/?", "\\|"):
        assert by_character[shifted] == (2, by_character[plain][1])


def test_hid_reports(programs: Path) -> None:
    command = [programs / "hid", "reports", "0", "000502", "00FBff"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True)
    assert done.stdout == bytes.fromhex("000502 00fbff")


@pytest.mark.parametrize(
    "wrong", [["text", "0"], ["reports", "0"], ["reports", "0", "0g"], ["reports", "0", "000"], []]
)
def test_hid_usage(programs: Path, wrong: list[str]) -> None:
    done = subprocess.run(
        [programs / "hid", *wrong], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")
