"""The host's side of the agent's control port (docs/images.md, "Control protocol").

The guest is not trusted: lines, numbers of lines and time are bounded, and whatever does not
have the shape that is asked for is a DevicevmError.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from enum import Enum
from itertools import repeat
from types import TracebackType
from typing import Any

from ..errors import DevicevmError
from ..record import from_data
from .channel_socket import connect, remaining

_MAX_LINE = 1024 * 1024  # bytes; the agent's own bound for a reply is half of it
_MAX_FOREIGN = 64  # replies to somebody else's requests, left over in the port
_MAX_TEXT = 4096
_MAX_NUMBER = 2**63
_FLAG = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class DeviceState(str, Enum):
    """What an agent says of a device; only `running` and `waiting` ones are worth a probe."""

    STARTING = "starting"
    WAITING = "waiting"  # its program cannot wait itself: it is started when a peer connects
    RUNNING = "running"  # seen waiting for its port
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class DeviceStatus:
    """`serving`: running, and a peer is connected. `pid` is 0 when the program does not run. `changed`: the guest's
    uptime in seconds when state or peer last changed; None from images older than that."""

    name: str
    state: DeviceState
    pid: int
    restarts: int
    connected: bool
    serving: bool
    changed: float | None = None


@dataclass(frozen=True)
class GuestStatus:
    """`uptime` in seconds, `memory_available` in bytes; `config_problem`: the boot configuration's first fault;
    `arch` as `uname -m` says it in the guest, empty from images older than that."""

    devices: tuple[DeviceStatus, ...]
    uptime: float
    memory_available: int
    config_problem: str = ""
    arch: str = ""

    @property
    def ready(self) -> bool:
        """All devices can take a peer, as far as the guest itself can tell."""
        good = (DeviceState.RUNNING, DeviceState.WAITING)
        return not self.config_problem and all(device.state in good for device in self.devices)


@dataclass(frozen=True)
class GuestCpu:
    """What the guest's kernel sees of its processor: `flags` are the words of /proc/cpuinfo (x86: `flags`, ARM:
    `Features`), which are not always libvirt's names for features (`pni` is libvirt's `sse3`)."""

    arch: str
    flags: tuple[str, ...]


class Control:
    """A connection to the control port behind the unix socket at `path`.

    `timeout` (seconds) bounds each request; connecting, which waits for the socket to appear, is
    bounded by it as well. One peer at a time: QEMU lets a second one wait.
    """

    def __init__(self, path: str, *, timeout: float = 10.0) -> None:
        self._path = path
        self._timeout = timeout
        self._buffer = b""
        # Numbers that no earlier peer has used: its late replies must not pass for ours.
        self._id = int.from_bytes(os.urandom(4), "big")
        self._socket = connect(path, time.monotonic() + timeout)

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def status(self) -> GuestStatus:
        status = from_data(GuestStatus, self._request({"op": "status"}), f"status from {self._path}")
        counts = (number for device in status.devices for number in (device.pid, device.restarts))
        if not all(0 <= number < _MAX_NUMBER for number in (status.uptime, status.memory_available, *counts)):
            raise DevicevmError(f"{self._path}: the guest's status has a number in it that cannot be")
        return status

    def cpu(self) -> GuestCpu:
        """The guest's processor; DevicevmError for any other answer, such as an older image's that it knows no cpu."""
        found = from_data(GuestCpu, self._request({"op": "cpu"}), f"cpu from {self._path}")
        if not all(_FLAG.fullmatch(word) for word in (found.arch, *found.flags)):
            raise DevicevmError(f"{self._path}: what the guest calls its processor's flags are none")
        return found

    def wait_ready(self, timeout: float, *, interval: float = 0.03) -> GuestStatus:
        """The status once all devices are ready; DevicevmError with their states after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if status.ready:
                return status
            if time.monotonic() >= deadline:
                states = ", ".join(f"{device.name} {device.state.value}" for device in status.devices)
                raise DevicevmError(
                    f"not ready after {timeout:g} s: {status.config_problem or states}", hint="read the device VM's log"
                )
            time.sleep(interval)

    def add(self, device: dict[str, Any]) -> None:
        """Adds a device, as it would stand in the boot configuration; one of that name is replaced if it differs."""
        self._request({"op": "add", "device": device})

    def remove(self, name: str) -> None:
        """Returns when its program has ended; a device that is not there is no error."""
        self._request({"op": "remove", "name": name})

    def restart(self, name: str) -> None:
        """Its program is ended, and comes anew, whoever is connected to it."""
        self._request({"op": "restart", "name": name})

    def log(self, lines: int = 100) -> tuple[str, ...]:
        """The last lines of the agent's and its programs' log, oldest first."""
        found = self._request({"op": "log", "lines": lines}).get("lines")
        if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
            raise DevicevmError(f"{self._path}: the guest's log is no list of lines")
        return tuple(found[-lines:])

    def poweroff(self) -> None:
        """Returns when the guest has agreed; it is gone within some 2 seconds."""
        self._request({"op": "poweroff"})

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply without `id` and `ok`; DevicevmError when it says that it failed."""
        self._id = (self._id + 1) % 2**31
        deadline = time.monotonic() + self._timeout
        # The empty line ends what an earlier peer may have left unfinished.
        line = b"\n" + json.dumps({"id": self._id, **request}, separators=(",", ":")).encode() + b"\n"
        self._send(line, deadline)
        reply = self._own_reply(deadline)
        if reply.pop("ok", None) is True:
            return reply
        raise DevicevmError(f"the guest refused {request['op']}: {reply.get('error', 'no reason given')}")

    def _own_reply(self, deadline: float) -> dict[str, Any]:
        for reply in map(self._reply, repeat(deadline, _MAX_FOREIGN)):
            if reply.pop("id", None) == self._id:
                return reply
        raise DevicevmError(f"{self._path}: the guest answers what nobody asked")

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            self._socket.settimeout(remaining(deadline))
            self._socket.sendall(data)
        except OSError as error:
            raise DevicevmError(
                f"{self._path}: the guest does not listen: {error}", hint="is the device VM running?"
            ) from error

    def _reply(self, deadline: float) -> dict[str, Any]:
        text = self._line(deadline)
        try:
            reply = _clean(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise DevicevmError(f"{self._path}: the guest's reply is not JSON") from error
        if not isinstance(reply, dict):
            raise DevicevmError(f"{self._path}: the guest's reply is no object")
        return reply

    def _line(self, deadline: float) -> bytes:
        pieces = [self._buffer]
        size = len(self._buffer)
        while b"\n" not in pieces[-1]:
            if size > _MAX_LINE:
                raise DevicevmError(f"{self._path}: the guest's reply is longer than {_MAX_LINE} bytes")
            try:
                self._socket.settimeout(remaining(deadline))
                piece = self._socket.recv(65536)
            except TimeoutError as error:
                raise DevicevmError(
                    f"{self._path}: no reply within {self._timeout:g} s", hint="is the guest still booting?"
                ) from error
            except OSError as error:
                raise DevicevmError(f"{self._path}: {error}") from error
            if not piece:
                raise DevicevmError(f"{self._path}: the device VM closed the connection")
            pieces.append(piece)
            size += len(piece)
        line, self._buffer = b"".join(pieces).split(b"\n", 1)
        return line


def _clean(said: Any) -> Any:
    """The same with texts that end somewhere, without anything that a terminal would obey or that cannot be printed:
    errors have a guest's words in them, too."""
    if isinstance(said, str):
        return "".join(char if char.isprintable() else "?" for char in said[:_MAX_TEXT])
    if isinstance(said, list):
        return [_clean(item) for item in said]
    if isinstance(said, dict):
        return {_clean(key): _clean(item) for key, item in said.items()}
    return said
