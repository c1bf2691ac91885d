"""What the manager and its callers say to each other: one line of JSON, and one for an answer, on a unix socket.

The socket is root's alone, and so is every caller. Lines and waits are bounded all the same: a caller may be stopped,
or another version.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from .. import __version__
from ..errors import DevicevmError
from ..vmm.driver import VmmError
from ..vmm.places import Places

MAX_LINE = 64 * 2**20
"""Bytes. A fleet of device VMs, observed, is some kilobytes for each."""

UNIT = "devicevm-manager"


def socket_path(places: Places) -> str:
    """Where the manager of a VMM listens: beside the directory of its channels, which is QEMU's own to write in."""
    return f"{places.runtime}.manager"


def ask(path: str, operation: str, seconds: float, **parameters: Any) -> Any:
    """The result of an operation. VmmError in the manager's words, or because it does not run or answer in time."""
    request = json.dumps({"op": operation, "version": __version__, **parameters}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(seconds)
        try:
            peer.connect(path)
        except OSError as error:
            raise VmmError("devicevm's manager does not run", hint=f"systemctl start {UNIT}") from error
        try:
            peer.sendall(request)
            answer = json.loads(read_line(peer, time.monotonic() + seconds))
        except (OSError, ValueError) as error:
            raise VmmError(
                f"devicevm's manager does not answer to {operation!r}: {error}", hint=f"systemctl status {UNIT}"
            ) from error
    if not isinstance(answer, dict) or "error" not in answer:
        raise VmmError("devicevm's manager answers something else", hint=f"systemctl restart {UNIT}")
    if answer["error"]:
        raise VmmError(str(answer["error"]), hint=str(answer.get("hint", "")))
    return answer.get("result")


def read_line(peer: socket.socket, deadline: float) -> bytes:
    """One line, until the deadline (time.monotonic()); OSError or ValueError when it does not come, or does not end."""
    parts: list[bytes] = []
    size = 0
    while not (parts and parts[-1].endswith(b"\n")):
        peer.settimeout(max(deadline - time.monotonic(), 0.001))
        part = peer.recv(2**18)
        if not part:
            raise ValueError("the connection was closed")
        parts.append(part)
        size += len(part)
        if size > MAX_LINE:
            raise ValueError("the line does not end")
    return b"".join(parts)


def result_line(result: Any) -> bytes:
    """An operation's result, as it is sent."""
    return json.dumps({"error": "", "result": result}).encode() + b"\n"


def error_line(error: DevicevmError) -> bytes:
    """Why an operation failed, as it is sent."""
    return json.dumps({"error": error.message, "hint": error.hint}).encode() + b"\n"


def check_caller(version: object) -> None:
    """DevicevmError when a caller is another version than this process."""
    if version != __version__:
        raise DevicevmError(
            f"devicevm's manager is version {__version__}, and this devicevm is {version}",
            hint=f"systemctl restart {UNIT}: what runs goes on",
        )
