"""The link to `tpm` in a device VM (plugin/guest/emulators/tpm.c has the frames): one question at a time.

The device VM is not trusted: a frame that is too long, or that nobody has asked for, ends the connection.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

HELLO, START, CONTROL, DATA = b"h", b"s", b"c", b"d"
GREETING = b"devicevm-tpm 1"
_HEAD = struct.Struct(">cH")
_MAX_FRAME = 8192


class LinkError(Exception):
    """The device VM is away, or says what makes no sense."""


@dataclass(frozen=True)
class Frame:
    """What was said: `kind` is a letter."""

    kind: bytes
    content: bytes


class Link:
    """A connection to the channel's socket at `path`. LinkError when nobody is there."""

    def __init__(self, path: str) -> None:
        self._buffer = b""
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            # To connect to a unix socket takes no time; a queue that is full is somebody else's channel.
            self.socket.setblocking(False)
            self.socket.connect(path)
        except OSError as error:
            self.socket.close()
            raise LinkError(f"nobody is there: {error.strerror}") from error

    def close(self) -> None:
        """Let the next peer in."""
        self.socket.close()

    def send(self, frame: Frame) -> None:
        """Say it whole. There is room for one question, so what does not fit goes to nobody who reads."""
        data = _HEAD.pack(frame.kind, len(frame.content)) + frame.content
        try:
            sent = self.socket.send(data)
        except OSError as error:
            raise LinkError(f"it is gone: {error.strerror}") from error
        if sent != len(data):
            raise LinkError("it does not read")

    def received(self) -> list[Frame]:
        """What has arrived, when the socket can be read."""
        try:
            data = self.socket.recv(_MAX_FRAME)
        except OSError as error:
            raise LinkError(f"it is gone: {error.strerror}") from error
        if not data:
            raise LinkError("it is gone")
        self._buffer += data
        frames = []
        while len(self._buffer) >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._buffer)
            if size > _MAX_FRAME:
                raise LinkError(f"it says {size} bytes at once")
            if len(self._buffer) < _HEAD.size + size:
                break
            frames.append(Frame(kind, self._buffer[_HEAD.size : _HEAD.size + size]))
            self._buffer = self._buffer[_HEAD.size + size :]
        return frames
