"""Probes: is there an emulator that speaks its protocol behind a channel's socket?

A probe is a peer like any other, and a channel serves one peer at a time: it takes the place
of the client, and the emulator starts anew after it (docs/images.md has what that costs).
Leave 50 ms between a probe and the next peer.
"""

from __future__ import annotations

import math
import re
import struct
import time
from collections.abc import Callable
from itertools import repeat

from ..errors import DevicevmError
from .channel_socket import Stream

_NBD_MAGIC = b"NBDMAGIC"
_NBD_OPTION_MAGIC = b"IHAVEOPT"
_NBD_REPLY_MAGIC = 0x3E889045565A9
_NBD_FIXED_NEWSTYLE, _NBD_NO_ZEROES = 1, 2
_NBD_OPT_ABORT, _NBD_OPT_INFO = 2, 6
_NBD_REP_ACK, _NBD_REP_INFO, _NBD_INFO_EXPORT = 1, 3, 0
_NBD_MAX_REPLY = 4096  # bytes; NBD allows 4096-byte strings at most
_NBD_MAX_REPLIES = 16
_EGD_READ_BLOCKING = 2
_9P_VERSION_ASKED, _9P_VERSION_TOLD, _9P_NO_TAG = 100, 101, 0xFFFF
_9P_VERSION = b"9P2000.L"
_9P_MAX_MESSAGE = 8192  # bytes
_USBREDIR_HELLO = 0
_USBREDIR_VERSION = 64  # bytes; 32-bit words of capabilities follow
_USBREDIR_MAX_HELLO = 256
_MAX_BYTES = 64 * 1024
_QUIET = 0.2  # seconds after which a device that was asked has said all
_DRAIN = 1.0  # seconds at most: some never stop talking
_SENTENCE = re.compile(rb"\$([A-Z0-9,.*+-]{5,80}?)\*([0-9A-F]{2})\r?\n")

Probe = Callable[[str, float], str]


def probe_nbd(path: str, timeout: float = 5.0) -> int:
    """The size in bytes of the default export; DevicevmError when what answers is no NBD server."""
    with Stream(path, timeout) as stream:
        greeting = stream.exactly(18)
        if greeting[:16] != _NBD_MAGIC + _NBD_OPTION_MAGIC:
            raise DevicevmError(f"{path}: this is no NBD server: {greeting[:16]!r}")
        (flags,) = struct.unpack(">H", greeting[16:])
        if not flags & _NBD_FIXED_NEWSTYLE:
            raise DevicevmError(f"{path}: the NBD server does not speak fixed newstyle")
        stream.send(struct.pack(">I", _NBD_FIXED_NEWSTYLE | flags & _NBD_NO_ZEROES))
        # An empty export name, no particular information asked for.
        stream.send(_nbd_option(_NBD_OPT_INFO, struct.pack(">IH", 0, 0)))
        size = _nbd_size(stream)
        stream.send(_nbd_option(_NBD_OPT_ABORT))
        # Its answer must not be left in the channel for the next peer.
        stream.exactly(20)
        return size


def _nbd_option(option: int, data: bytes = b"") -> bytes:
    return _NBD_OPTION_MAGIC + struct.pack(">II", option, len(data)) + data


def _nbd_size(stream: Stream) -> int:
    size = None
    for head in map(stream.exactly, repeat(20, _NBD_MAX_REPLIES)):
        magic, option, kind, length = struct.unpack(">QIII", head)
        if magic != _NBD_REPLY_MAGIC or option != _NBD_OPT_INFO or length > _NBD_MAX_REPLY:
            raise DevicevmError(f"{stream.path}: the NBD server's answer makes no sense")
        data = stream.exactly(length)
        if kind == _NBD_REP_ACK:
            break
        if kind != _NBD_REP_INFO or length < 2:
            raise DevicevmError(f"{stream.path}: the NBD server refused (reply {kind:#x})")
        if struct.unpack_from(">H", data)[0] == _NBD_INFO_EXPORT and length == 12:
            (size,) = struct.unpack_from(">Q", data, 2)
    if size is None:
        raise DevicevmError(f"{stream.path}: the NBD server told no size")
    return int(size)


def probe_egd(path: str, timeout: float = 5.0, *, size: int = 16) -> bytes:
    """`size` (1 to 255) random bytes."""
    with Stream(path, timeout) as stream:
        stream.send(bytes([_EGD_READ_BLOCKING, size]))
        data = stream.exactly(size)
    if size >= 8 and len(set(data)) == 1:
        raise DevicevmError(f"{path}: {size} equal bytes are not random")
    return data


def probe_9p(path: str, timeout: float = 5.0) -> str:
    """The version of the protocol that a 9p server agrees to; DevicevmError when it is not Linux's, 9P2000.L."""
    body = struct.pack("<BHIH", _9P_VERSION_ASKED, _9P_NO_TAG, _9P_MAX_MESSAGE, len(_9P_VERSION)) + _9P_VERSION
    with Stream(path, timeout) as stream:
        stream.send(struct.pack("<I", 4 + len(body)) + body)
        length, kind, tag, size, text = struct.unpack("<IBHIH", stream.exactly(13))
        if (kind, tag) != (_9P_VERSION_TOLD, _9P_NO_TAG) or length != 13 + text or length > _9P_MAX_MESSAGE:
            raise DevicevmError(f"{path}: the 9p server's answer makes no sense")
        version = stream.exactly(text)
    if version != _9P_VERSION or size > _9P_MAX_MESSAGE:
        raise DevicevmError(f"{path}: the 9p server offers {version!r}, not {_9P_VERSION!r}")
    return version.decode()


def probe_usbredir(path: str, timeout: float = 5.0) -> str:
    """The version that the other side greets with (usb-redirection-protocol.md, usb_redir_hello)."""
    with Stream(path, timeout) as stream:
        kind, length = struct.unpack_from("<II", stream.exactly(12))
        if kind != _USBREDIR_HELLO or not _USBREDIR_VERSION <= length <= _USBREDIR_MAX_HELLO:
            raise DevicevmError(f"{path}: this is no usbredir host: packet {kind} of {length} bytes")
        version = stream.exactly(length)[:_USBREDIR_VERSION].split(b"\0")[0]
    return version.decode("ascii", "replace")


def probe_bytes(path: str, timeout: float = 5.0, *, send: bytes = b"", pattern: bytes = b"") -> bytes:
    """What arrives, after `send` has been sent, until it matches the regular expression `pattern` (none: any byte)."""
    expected = re.compile(pattern, re.DOTALL)
    data = b""
    with Stream(path, timeout) as stream:
        if send:
            stream.send(send)
        while not data or not expected.search(data):
            if len(data) >= _MAX_BYTES:
                raise DevicevmError(f"{path}: {_MAX_BYTES} bytes, and none of what was expected")
            data += stream.some(4096)
    return data


def probe_answer(path: str, timeout: float = 5.0, *, ask: bytes, pattern: bytes, again: float = 0.5) -> bytes:
    """What arrives until it matches `pattern`, with `ask` (none: nothing) sent every `again` seconds until it does.

    For what may not listen yet: firmware that is still starting may throw away what it was asked. All on one
    connection, so that no late answer is left for the next peer.
    """
    expected = re.compile(pattern, re.DOTALL)
    data, sent, deadline = b"", -math.inf, time.monotonic() + timeout
    with Stream(path, timeout) as stream:
        while not data or not expected.search(data):
            if len(data) >= _MAX_BYTES:
                raise DevicevmError(f"{path}: {_MAX_BYTES} bytes, and none of what was expected")
            if time.monotonic() >= deadline:
                raise DevicevmError(f"{path}: no answer within {timeout:g} s to {ask!r}; what came: {data[-80:]!r}")
            if ask and time.monotonic() - sent >= again:
                stream.send(ask)
                sent = time.monotonic()
            data += stream.whatever(4096, again)
        # The answers to what was asked in vain before come now, or never.
        end = min(time.monotonic() + _DRAIN, deadline)
        while stream.whatever(4096, _QUIET) and time.monotonic() < end:
            pass
    return data


def probe_nmea(path: str, timeout: float = 5.0) -> str:
    """The first NMEA sentence with a right checksum, without `$`."""
    data = b""
    with Stream(path, timeout) as stream:
        while len(data) < _MAX_BYTES:
            data += stream.some(4096)
            for match in _SENTENCE.finditer(data):
                if _nmea_checksum(match[1]) == int(match[2], 16):
                    return match[1].decode()
    raise DevicevmError(f"{path}: {_MAX_BYTES} bytes, and no NMEA sentence among them")


def _nmea_checksum(body: bytes) -> int:
    checksum = 0
    for byte in body:
        checksum ^= byte
    return checksum


PROBES: dict[str, Probe] = {
    "nbd": lambda path, timeout: f"{probe_nbd(path, timeout)} bytes",
    "egd": lambda path, timeout: f"{len(probe_egd(path, timeout))} random bytes",
    "9p": probe_9p,
    "nmea": probe_nmea,
    "usbredir": probe_usbredir,
    "bytes": lambda path, timeout: f"{len(probe_bytes(path, timeout))} bytes arrived",
}
"""Name -> probe: called with a socket's path and a timeout in seconds, returns what it found."""
