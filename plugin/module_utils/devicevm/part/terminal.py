"""A serial port for the host: a pseudo-terminal, and a link to it at the path that was asked for."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import tty

from ..errors import DevicevmError
from .channel import RETRY, Channel
from .part import Kind, Part, Stage

_SIZE = 4096
_NOBODY = 0.1
"""Seconds between two looks whether anybody has opened it."""


def _serve(part: Part, stage: Stage) -> None:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    # As the line is: no echo, no line by line. It stays so when nobody has it open.
    tty.setraw(slave)
    try:
        os.symlink(os.ttyname(slave), part.address)
    except OSError as error:
        raise DevicevmError(f"cannot make the link {part.address}: {error.strerror}") from error
    try:
        os.close(slave)
        stage.ready()
        with contextlib.closing(Channel(part.channel, stage)) as channel:
            _pump(master, channel, stage.stop)
    finally:
        _clean(part)
        os.close(master)


def _pump(master: int, channel: Channel, stop: int) -> None:
    poll = select.poll()
    poll.register(master, 0)
    while True:
        # Without anybody it is hung up all the time, and what comes is nobody's: a line remembers nothing.
        heard = not any(events & select.POLLHUP for file, events in poll.poll(0))
        watched = [stop, *([master] if heard else [])]
        if channel.connected() and channel.socket:
            watched.append(channel.socket.fileno())
        ready = select.select(watched, [], [], RETRY if heard else _NOBODY)[0]
        if stop in ready:
            return
        if master in ready:
            with contextlib.suppress(OSError):
                channel.send(os.read(master, _SIZE))
        if len(ready) > (master in ready):
            said = channel.receive(_SIZE)
            if heard:
                with contextlib.suppress(OSError):
                    os.write(master, said)


def _clean(part: Part) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.lstat(part.address).st_mode) and os.readlink(part.address).startswith("/dev/pts/"):
            os.unlink(part.address)


PTY = Kind(name="pty", serve=_serve, clean=_clean)
