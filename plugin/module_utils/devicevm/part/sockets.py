"""A unix socket that a host part listens on: made at its path, removed from it, and for some users only."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct

from ..errors import DevicevmError

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of a peer (unix(7))."""


def listen(path: str) -> socket.socket:
    """A socket that listens at the path. Anybody can reach it: `accept` says who may use it."""
    listener = _bound(path, socket.SOCK_STREAM)
    listener.listen(4)
    return listener


def datagrams(path: str) -> socket.socket:
    """A socket for datagrams at the path. Anybody can send to it: `receive` says who is heard."""
    made = _bound(path, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return made


def receive(made: socket.socket, size: int, users: frozenset[int]) -> bytes:
    """The next datagram, empty for one of another user than those who may; BlockingIOError when there is none."""
    data, notes = made.recvmsg(size, socket.CMSG_SPACE(_CREDENTIALS.size))[:2]
    known = [_CREDENTIALS.unpack(note)[1] for level, kind, note in notes if kind == socket.SCM_CREDENTIALS]
    return data if users.issuperset(known) and known else b""


def _bound(path: str, kind: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, kind)
    # Another user runs the VMM. To change the mode by name would follow whatever has taken its place by then.
    mask = os.umask(0)
    try:
        made.bind(path)
        made.setblocking(False)
        return made
    except OSError as error:
        made.close()
        raise DevicevmError(f"cannot listen at {path}: {error.strerror}") from error
    finally:
        os.umask(mask)


def accept(listener: socket.socket, users: frozenset[int]) -> socket.socket | None:
    """The next peer; None for one that has gone again, or that is another user than those who may."""
    try:
        peer = listener.accept()[0]
    except OSError:
        return None
    user = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
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
