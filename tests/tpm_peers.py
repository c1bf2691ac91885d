"""Both sides of a TPM's relay: a VMM that asks as QEMU does, and device VMs that answer, rightly or not."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devicevm.part import tpm as tpm_relay
from devicevm.part.part import Part

CANCEL, INIT, LOCALITY, STOP, STATE_BLOB, DATAFD, BUFFERSIZE = 9, 2, 5, 14, 12, 16, 17
STARTUP = bytes.fromhex("80010000000c000001440000")
READ_PCR = bytes.fromhex("8001000000140000017e00000001000b03000001")
EXTEND = bytes.fromhex("80020000004100000182000000100000000940000009000000000000000001000b") + b"\1" * 32
RESPONSE = bytes.fromhex("80010000000a00000000")


class Vmm:
    """The client's VMM, as QEMU's tpm-emulator speaks."""

    def __init__(self, path: str) -> None:
        self.control = socket.socket(socket.AF_UNIX)
        self.control.settimeout(20)
        self.control.connect(path)
        self.data, other = socket.socketpair()
        self.data.settimeout(20)
        socket.send_fds(self.control, [struct.pack(">I", DATAFD)], [other.fileno()])
        other.close()
        assert self.control.recv(100) == bytes(4)

    def ask(self, command: int, rest: bytes = b"") -> bytes:
        self.control.sendall(struct.pack(">I", command) + rest)
        return self.control.recv(100)

    def tpm(self, command: bytes) -> bytes:
        self.data.sendall(command)
        return self.data.recv(8192)

    def power_on(self) -> None:
        assert self.ask(INIT, bytes(4)) == bytes(4)

    def close(self) -> None:
        self.control.close()
        self.data.close()


class Machine:
    """What a device VM does with its channel: `behave` has each connection in turn, until `stop`."""

    def __init__(self, path: Path, behave: Callable[[socket.socket], None]) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(5)
        self.peers: list[socket.socket] = []
        self.behave = behave
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            self.peers.append(peer)
            try:
                self.behave(peer)
            except OSError:
                continue

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            # Shut down: the thread that reads it sees the end.
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()
        self.path.unlink()


def frame(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack(">H", len(content)) + content


def read_frame(peer: socket.socket) -> tuple[bytes, bytes]:
    head = peer.recv(3, socket.MSG_WAITALL)
    if len(head) < 3:
        raise OSError
    return head[:1], peer.recv(struct.unpack(">H", head[1:])[0], socket.MSG_WAITALL)


def right(kind: bytes, content: bytes) -> bytes:
    """What a TPM would answer."""
    if kind == b"s":
        return frame(b"s", b"\0")
    if kind == b"c":
        size = 16 if content[3] == BUFFERSIZE else 4
        return frame(b"c", struct.pack(">IIII", 0, 4096, 4096, 4096)[:size])
    return frame(b"d", content[:4] + RESPONSE)


def wrong_in(kind: bytes, answer: bytes) -> Callable[[socket.socket], None]:
    """A device VM that is right but for the answers to one kind of frame."""

    def behave(peer: socket.socket) -> None:
        peer.sendall(frame(b"h", b"devicevm-tpm 1"))
        while True:
            asked, content = read_frame(peer)
            peer.sendall(answer if asked == kind else right(asked, content))

    return behave


class Tpm(Machine):
    """A device VM with a real TPM in it."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.running: list[subprocess.Popen[bytes]] = []
        backing = folder / "backing"
        if not backing.exists():
            backing.write_bytes(bytes(1 << 20))

        def behave(peer: socket.socket) -> None:
            environment = {**os.environ, "TMPDIR": str(folder)}
            self.running.append(
                subprocess.Popen([program, backing], stdin=peer, stdout=peer, env=environment, start_new_session=True)
            )
            peer.close()
            self.running[-1].wait()

        super().__init__(folder / "channel", behave)

    def kill(self) -> None:
        """As a device VM dies: all at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.running[-1].pid, signal.SIGKILL)
        self.running[-1].wait()


def powered_on(part: Part) -> Vmm:
    vmm = Vmm(part.address)
    vmm.power_on()
    assert vmm.tpm(STARTUP) == RESPONSE
    return vmm


class HereStage:
    """A part in a thread of the test's own, whose limits can be changed."""

    users = frozenset({os.getuid()})

    def __init__(self) -> None:
        self.stop, self.wake = os.pipe()
        self.lines: list[str] = []
        self.is_ready = threading.Event()

    def ready(self) -> None:
        self.is_ready.set()

    def log(self, text: str) -> None:
        self.lines.append(text)


@contextmanager
def relaying(part: Part) -> Iterator[HereStage]:
    """A relay that runs here; in the end it has done so all the time, and leaves nothing."""
    stage = HereStage()
    thread = threading.Thread(target=tpm_relay.TPM.serve, args=(part, stage))
    thread.start()
    assert stage.is_ready.wait(5)
    yield stage
    assert thread.is_alive()
    os.write(stage.wake, b".")
    thread.join(5)
    assert not thread.is_alive()
    assert not Path(part.address).exists()
