"""Unix sockets of channels, with every wait bounded by a deadline (time.monotonic() seconds)."""

from __future__ import annotations

import socket
import time

from ..errors import DevicevmError

_RETRY = 0.02  # seconds between two looks for a socket that QEMU has not made yet


def remaining(deadline: float) -> float:
    """Seconds left, never 0 or less: that would mean something else to a socket."""
    return max(deadline - time.monotonic(), 0.001)


def has_peer(path: str) -> bool:
    """Whether somebody is connected to the unix socket that a VMM listens on at `path`.

    The host's kernel says so, without the VMM or the guest being asked (proc(5)): a socket that was accepted has its
    listener's path, is connected (state 03), and has an inode, which one that waits to be accepted has not yet.
    """
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            rows = [line.rstrip("\n").split(maxsplit=7) for line in table]
    except OSError:
        return False
    return any(len(row) == 8 and row[5] == "03" and row[6] != "0" and row[7] == path for row in rows)


def connect(path: str, deadline: float) -> socket.socket:
    """A connection to the unix socket at `path`, which may appear only before the deadline."""
    while True:
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.settimeout(remaining(deadline))
            peer.connect(path)
            return peer
        except OSError as error:
            peer.close()
            # A path that is too long will not get better; the others may.
            if time.monotonic() >= deadline or "too long" in str(error):
                raise DevicevmError(f"cannot connect to {path}: {error}", hint="is the device VM running?") from error
        time.sleep(_RETRY)


class Stream:
    """A channel's other end, read in bounded pieces. Closes on leaving the context."""

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._socket = connect(path, self._deadline)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(remaining(self._deadline))
            self._socket.sendall(data)
        except OSError as error:
            raise DevicevmError(f"{self.path}: cannot send: {error}") from error

    def some(self, limit: int) -> bytes:
        """What arrives next, at most `limit` bytes; DevicevmError at the end or the deadline."""
        if time.monotonic() >= self._deadline:
            raise self._silence()
        try:
            self._socket.settimeout(remaining(self._deadline))
            data = self._socket.recv(limit)
        except TimeoutError as error:
            raise self._silence() from error
        except OSError as error:
            raise DevicevmError(f"{self.path}: {error}") from error
        if not data:
            raise DevicevmError(f"{self.path}: the device VM closed the connection")
        return data

    def whatever(self, limit: int, seconds: float) -> bytes:
        """What arrives next, at most `limit` bytes; nothing when nothing does for that many seconds."""
        try:
            self._socket.settimeout(min(seconds, remaining(self._deadline)))
            data = self._socket.recv(limit)
        except TimeoutError:
            return b""
        except OSError as error:
            raise DevicevmError(f"{self.path}: {error}") from error
        if not data:
            raise DevicevmError(f"{self.path}: the device VM closed the connection")
        return data

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.some(size - len(data))
        return data

    def _silence(self) -> DevicevmError:
        return DevicevmError(f"{self.path}: no answer within {self._timeout:g} s", hint="read the device VM's log")
