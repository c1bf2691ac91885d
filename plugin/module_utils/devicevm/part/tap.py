"""A NIC for the host: a tap, and the far end of a link (channel/link.py), where an Ethernet frame is a datagram.

There is no connection: while the device VM is away, frames go nowhere, and the tap stays. It is its process's, and goes
with that, whatever ends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
from itertools import repeat

from ..errors import DevicevmError
from . import sockets
from .command import run
from .part import Kind, Part, Stage

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
# A tap, whose frames have nothing before them, and that was not there before (linux/if_tun.h).
_FLAGS = 0x0002 | 0x1000 | 0x8000
_FRAME = 65536
_AT_ONCE = 64
"""Frames of one side before the other has its turn."""


def _serve(part: Part, stage: Stage) -> None:
    link = sockets.datagrams(part.options["socket"])
    try:
        tap = _make(part)
        try:
            _set_up(part)
            stage.ready()
            _pump(tap, link, part.channel, stage)
        finally:
            os.close(tap)
    finally:
        link.close()
        _clean(part)


def _make(part: Part) -> int:
    try:
        tap = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DevicevmError(f"cannot open {_DEVICE}: {error.strerror}", hint="is the module tun there?") from error
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", part.address.encode(), _FLAGS))
    except OSError as error:
        os.close(tap)
        raise DevicevmError(f"cannot make the tap {part.address}: {error.strerror}", hint="is it there?") from error
    return tap


def _set_up(part: Part) -> None:
    if "address" in part.options:
        run("ip", "address", "add", part.options["address"], "dev", part.address)
    run("ip", "link", "set", part.address, "address", part.options["mac"], "up")


def _pump(tap: int, link: socket.socket, peer: str, stage: Stage) -> None:
    while True:
        ready = select.select([stage.stop, tap, link.fileno()], [], [])[0]
        if stage.stop in ready:
            return
        # Until there is nothing more. What does not go out is lost, as on any wire.
        try:
            for frame in map(os.read, repeat(tap, _AT_ONCE), repeat(_FRAME)):
                with contextlib.suppress(OSError):
                    link.sendto(frame, peer)
        except BlockingIOError:
            pass
        except OSError as error:
            raise DevicevmError(f"somebody has removed the tap: {error.strerror}") from error
        with contextlib.suppress(BlockingIOError):
            for frame in map(sockets.receive, repeat(link, _AT_ONCE), repeat(_FRAME), repeat(stage.users)):
                with contextlib.suppress(OSError):
                    os.write(tap, frame)


def _clean(part: Part) -> None:
    sockets.remove(part.options["socket"])


TAP = Kind(name="tap", serve=_serve, clean=_clean)
