"""A random number generator for the host: a FIFO out of which come random bytes, asked for in EGD's protocol."""

from __future__ import annotations

import contextlib
import os
import select
import stat

from ..errors import DevicevmError
from .channel import RETRY, Channel
from .part import Kind, Part, Stage

_ONCE = 255
_ASK = bytes([2, _ONCE])
"""EGD's blocking read."""


def _serve(part: Part, stage: Stage) -> None:
    try:
        os.mkfifo(part.address, 0o600)
        # For reading too: it can be opened before anybody reads, and stays when they leave.
        fifo = os.open(part.address, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise DevicevmError(f"cannot make the FIFO {part.address}: {error.strerror}") from error
    try:
        stage.ready()
        with contextlib.closing(Channel(part.channel, stage)) as channel:
            _fill(fifo, channel, stage.stop)
    finally:
        os.close(fifo)
        _clean(part)


def _fill(fifo: int, channel: Channel, stop: int) -> None:
    """Keep the FIFO full, no faster than it is read."""
    owed = 0
    while True:
        there = channel.connected()
        if not there:
            owed = 0
        reading = [channel.socket.fileno()] if channel.socket and owed else []
        writing = [fifo] if there and not owed else []
        ready, room = select.select([stop, *reading], writing, [], RETRY)[:2]
        if stop in ready:
            return
        if room:
            channel.send(_ASK)
            owed = _ONCE
        elif ready:
            data = channel.receive(owed)
            owed -= len(data)
            with contextlib.suppress(BlockingIOError):
                os.write(fifo, data)


def _clean(part: Part) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISFIFO(os.lstat(part.address).st_mode):
            os.unlink(part.address)


FIFO = Kind(name="fifo", serve=_serve, clean=_clean)
