"""A channel of bytes, as a part has it that is between it and the host: there while the device VM is."""

from __future__ import annotations

import socket
import time

from .part import Stage

RETRY = 0.5
"""Seconds between two looks for a device VM that is away."""


class Channel:
    """The connection to the channel's socket at `path`, made again and again. Reading and writing never wait."""

    def __init__(self, path: str, stage: Stage) -> None:
        self._path, self._stage = path, stage
        self._again = 0.0
        self._told = False
        self.socket: socket.socket | None = None

    def connected(self) -> bool:
        """Whether it is there; tries to make it so when it is time."""
        if self.socket is None and time.monotonic() >= self._again:
            self._connect()
        return self.socket is not None

    def receive(self, size: int) -> bytes:
        """What has arrived; nothing when nothing has, or the device VM has gone."""
        if self.socket is None:
            return b""
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.close(str(error.strerror))
            return b""
        if not data:
            self.close("it is gone")
        return data

    def send(self, data: bytes) -> None:
        """What does not go out is lost, as on a line that nobody has."""
        if self.socket:
            try:
                self.socket.send(data, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(str(error.strerror))

    def close(self, reason: str = "") -> None:
        """Let the next peer in."""
        if self.socket:
            self.socket.close()
        self.socket = None
        self._again = time.monotonic() + RETRY
        if reason and not self._told:
            self._stage.log(f"the device VM is away: {reason}")
            self._told = True

    def _connect(self) -> None:
        peer = socket.socket(socket.AF_UNIX)
        peer.setblocking(False)
        try:
            peer.connect(self._path)
        except OSError as error:
            peer.close()
            self.close(str(error.strerror))
            return
        self.socket = peer
        if self._told:
            self._stage.log("the device VM is back")
        self._told = False
