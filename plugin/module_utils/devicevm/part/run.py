"""The process of a host part: `python3 -I devicevm-DIGEST.pyz JSON`. Whoever starts it waits until it is ready."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from ..errors import DevicevmError
from . import lock, log
from .part import Part
from .registry import kind_named

_READY = b"."


class Process:
    """This process, as the kind that it runs sees it (part.Stage)."""

    def __init__(self, folder: Path, part: Part, users: frozenset[int], told: int) -> None:
        self.users = users
        self._log = folder / f"{part.name}.log"
        self._told = told
        self.stop, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        self._wake = wake

    def _end(self, *_signal: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b".")

    def ready(self) -> None:
        """Tell whoever waits, and let go of its standard streams."""
        self.log("ready")
        os.write(self._told, _READY)
        os.close(self._told)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        os.close(nowhere)

    def log(self, text: str) -> None:
        """A line of the log."""
        log.write(self._log, text)


def main(arguments: list[str]) -> int:
    """Run the part that the one argument describes: {"folder", "users", "part"}. 0 once it is ready."""
    wanted = json.loads(arguments[0])
    part = Part(**wanted["part"])
    heard, told = os.pipe()
    if os.fork() == 0:
        os.close(heard)
        os._exit(_run(Path(wanted["folder"]), part, frozenset(wanted["users"]), told))
    os.close(told)
    # Nothing comes when it has ended before; it has told why on standard error.
    return 0 if os.read(heard, 1) == _READY else 1


def _run(folder: Path, part: Part, users: frozenset[int], told: int) -> int:
    os.setsid()
    os.chdir("/")
    process = Process(folder, part, users, told)
    path = folder / f"{part.name}.lock"
    try:
        held = lock.take(path, part)
        try:
            kind_named(part.kind).serve(part, process)
            process.log("ended")
        finally:
            lock.release(path, held)
    except (DevicevmError, OSError) as error:
        process.log(f"failed: {error}")
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        return 1
    except BaseException as error:
        process.log(f"failed: unexpected {type(error).__name__}: {error}")
        raise
    return 0
