"""A unix socket that a host part listens on: made at its path, removed from it, and for some users only."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct

from ..errors import DevicevmError


def listen(path: str) -> socket.socket:
    """A socket that listens at the path. Anybody can reach it: `accept` says who may use it."""
    listener = socket.socket(socket.AF_UNIX)
    # Another user runs the VMM. To change the mode by name would follow whatever has taken its place by then.
    mask = os.umask(0)
    try:
        listener.bind(path)
        listener.listen(4)
        listener.setblocking(False)
        return listener
    except OSError as error:
        listener.close()
        raise DevicevmError(f"cannot listen at {path}: {error.strerror}") from error
    finally:
        os.umask(mask)


def accept(listener: socket.socket, users: frozenset[int]) -> socket.socket | None:
    """The next peer; None for one that has gone again, or that is another user than those who may."""
    try:
        peer = listener.accept()[0]
    except OSError:
        return None
    data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    user = struct.unpack("3i", data)[1]
    if user in users:
        return peer
    peer.close()
    return None


def remove(path: str) -> None:
    """Remove a socket that nobody listens on any more; anything else stays. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def listens(path: str) -> bool:
    """Whether anybody listens on the socket at the path, without troubling them."""
    # "address: references protocol flags type state inode path"; __SO_ACCEPTCON is 0x10000.
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        lines = (line.rstrip("\n").split(None, 7) for line in table)
        return any(len(line) == 8 and line[7] == path and int(line[3], 16) & 0x10000 for line in lines)
