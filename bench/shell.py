"""Root's shell in a client guest, on the virtio port that its init serves."""

from __future__ import annotations

import itertools
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path


class Shell:
    """`path`: the host's end of the port org.devicevm.shell. `timeout` in seconds, for the guest to be there."""

    def __init__(self, path: Path, timeout: float = 120) -> None:
        self._count = 0
        self._rest = b""
        deadline = time.monotonic() + timeout
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(str(path))
            try:
                self.run("true", 20)
                return
            except TimeoutError:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise

    def run(self, command: str, timeout: float = 120) -> str:
        """What a command prints; RuntimeError when it fails."""
        self._count += 1
        # Written so that an echo of the command would not look like its end.
        self._socket.sendall(f'{{ {command}\n}} 2>&1; echo "do"ne-{self._count}:$?:\n'.encode())
        pattern = re.compile(rf"done-{self._count}:(\d+):\r?\n".encode())
        deadline = time.monotonic() + timeout
        while not (match := pattern.search(self._rest)):
            self._socket.settimeout(max(deadline - time.monotonic(), 0.01))
            data = self._socket.recv(65536)
            if not data:
                raise EOFError(f"{command}: the guest is gone")
            self._rest += data
        output = self._rest[: match.start()].decode(errors="replace")
        self._rest = self._rest[match.end() :]
        if match[1] != b"0":
            raise RuntimeError(f"{command}: exit {match[1].decode()}\n{output}")
        return output

    def lines(self, command: str) -> Iterator[float]:
        """When each line comes that a command prints which does not end (perf_counter's time)."""
        self._socket.sendall(f"{command}\n".encode())
        self._socket.settimeout(120)
        while data := self._socket.recv(65536):
            now = time.perf_counter()
            yield from itertools.repeat(now, data.count(b"\n"))
        raise EOFError(f"{command}: the guest is gone")

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()
