"""A program that a host part keeps running: it is started again when it ends, and ends with the part."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import DevicevmError
from .part import Stage

_PR_SET_PDEATHSIG = 1
_READY = 15.0
_LOOK = 0.05
_GRACE = 3.0
_PAUSES = (0.2, 1.0, 5.0)
"""Seconds before it is started again: longer each time that it has ended at once."""
_LONG = 10.0
_OUTPUT = 4096
_HEALTH = 2.0
"""Seconds between two looks whether what was built on it is sound."""


def _nothing() -> None:
    pass


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Work:
    """What a program is run for.

    `ready` tells whether it does its work, `clear` removes what it has left when it has died. `begin` builds on its
    work, each time anew, `sound` tells whether that holds, and `finish` takes it down while the program still runs.
    """

    ready: Callable[[], bool]
    clear: Callable[[], None]
    begin: Callable[[], None] = _nothing
    sound: Callable[[], bool] = _always
    finish: Callable[[], None] = _nothing


def keep_running(command: Sequence[str], stage: Stage, work: Work) -> None:
    """Run `command` until the stage says stop; DevicevmError when it never gets to work."""
    failed = 0
    first = True
    while True:
        work.clear()
        begun = time.monotonic()
        with _started(command) as process:
            try:
                _wait(process, work.ready)
                work.begin()
                if first:
                    stage.ready()
                first = False
                reason = _watch(process, stage, work.sound)
                if not reason:
                    work.finish()
                    return
            except (DevicevmError, OSError) as error:
                if first:
                    raise
                reason = f"does not get to work: {error}"
            finally:
                _end(process)
        failed = failed + 1 if time.monotonic() - begun < _LONG else 0
        stage.log(f"{command[0]} {reason}, and is started again")
        if select.select([stage.stop], [], [], _PAUSES[min(failed, len(_PAUSES) - 1)])[0]:
            return


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def with_us() -> None:
        # Whatever ends this process ends it too.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    try:
        # There are no threads here, which a function before exec could meet in the middle.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=with_us,  # noqa: PLW1509
        )
    except OSError as error:
        raise DevicevmError(f"cannot run {command[0]}: {error.strerror}", hint="is it installed?") from error


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    end = time.monotonic() + _READY
    while not ready():
        if process.poll() is not None:
            raise DevicevmError(f"{_said(process) or 'it'} (ended with {process.returncode})")
        if time.monotonic() > end:
            raise DevicevmError(f"it does not get to work within {_READY:g} s")
        time.sleep(_LOOK)


def _watch(process: subprocess.Popen[bytes], stage: Stage, sound: Callable[[], bool]) -> str:
    """Wait and log what it says, until it is of no use any more: why; empty when the part is to end instead."""
    output = process.stdout.fileno() if process.stdout else -1
    while True:
        ready = select.select([stage.stop, output], [], [], _HEALTH)[0]
        if stage.stop in ready:
            return ""
        if not ready:
            if not sound():
                return "is sound, but not what is built on it"
            continue
        said = _said(process)
        if not said:
            # It has closed its output, as whoever ends does.
            return "has ended"
        for line in said.splitlines():
            stage.log(line)


def _said(process: subprocess.Popen[bytes]) -> str:
    """What it says next, or has said before it ended."""
    data = os.read(process.stdout.fileno(), _OUTPUT) if process.stdout else b""
    return data.decode(errors="replace").strip("\n") or " " * bool(data)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
