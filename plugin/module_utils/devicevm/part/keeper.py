"""Starts and stops the host parts of one VMM, and knows which run."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import DevicevmError
from ..whole import write_whole
from . import lock, log
from .pack import packed
from .part import Part
from .registry import kind_named

_STOP = 5.0
# Who has just taken a lock says so at once.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Parts:
    """The parts whose locks, logs and program are in `folder`; `users` are who may connect to them, by id.

    The folder is this user's own: a lock names a process, and whoever could write there would choose which is ended.
    """

    folder: Path
    users: tuple[int, ...] = ()

    def start(self, part: Part) -> None:
        """Start a part and wait until it can be used. Idempotent; one that runs otherwise is started anew."""
        held = lock.holder(self._lock(part))
        if held and held.part == part:
            return
        self.stop(part)
        users = sorted({os.getuid(), *self.users})
        wanted = json.dumps({"folder": str(self.folder), "users": users, "part": asdict(part)})
        patience = kind_named(part.kind).patience
        with self._alone():
            command = [sys.executable, "-I", str(self._installed()), wanted]
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience, check=False, cwd="/"
                )
                said = done.stderr.decode(errors="replace").strip()[-2000:] or "it ended" if done.returncode else ""
            except (OSError, subprocess.TimeoutExpired) as error:
                said = str(error)
        if said:
            self._end(part)
            raise DevicevmError(f"host part {part.name} ({part.kind}) did not start: {said}")

    def stop(self, part: Part) -> None:
        """Stop a part and remove all of it. Idempotent; DevicevmError when it is in use, and then it goes on."""
        held = lock.holder(self._lock(part))
        if held and held.part:
            kind_named(held.part.kind).leave(held.part)
        self._end(part)
        kind_named(part.kind).clean(part)
        if not self.folder.is_dir():
            return
        with self._alone():
            self._lock(part).unlink(missing_ok=True)
            log.remove(self._log(part))
            if not any(self.folder.glob("*.lock")):
                # With the last one goes the program: nothing stays on a host that needs no part.
                for program in self.folder.glob("*.pyz"):
                    program.unlink(missing_ok=True)
                # Of others that have just ended, the logs are still there: who stops the last of them removes it.
                with suppress(OSError):
                    self.folder.rmdir()

    def is_running(self, part: Part) -> bool:
        """Whether it runs, as it is to be."""
        held = lock.holder(self._lock(part))
        return held is not None and held.part == part

    def tail(self, part: Part, lines: int) -> tuple[str, ...]:
        """The last lines of its log."""
        return log.tail(self._log(part), lines)

    def _lock(self, part: Part) -> Path:
        return self.folder / f"{part.name}.lock"

    def _log(self, part: Part) -> Path:
        return self.folder / f"{part.name}.log"

    def _end(self, part: Part) -> None:
        path = self._lock(part)
        held = self._holder(part)
        if held is None:
            return
        try:
            process = os.pidfd_open(held.pid)
        except ProcessLookupError:
            return
        try:
            # Still the same one: so it is that process that is ended, and no other that has its number by now.
            if lock.holder(path) != held:
                return
            for number, seconds in ((signal.SIGTERM, _STOP), (signal.SIGKILL, _STOP)):
                signal.pidfd_send_signal(process, number)
                if select.select([process], [], [], seconds)[0]:
                    return
        except ProcessLookupError:
            return
        finally:
            os.close(process)
        raise DevicevmError(f"host part {part.name} (process {held.pid}) does not end")

    def _holder(self, part: Part) -> lock.Held | None:
        """Who runs a part, by a process id that can be read; None when nobody does."""
        path = self._lock(part)
        end = time.monotonic() + _PATIENCE
        while (held := lock.holder(path)) is not None and not held.pid:
            if time.monotonic() >= end:
                raise DevicevmError(
                    f"host part {part.name} runs, and its lock {path} does not say as which process",
                    hint=f"see who has it open (fuser {path}), and end that",
                )
            time.sleep(0.02)
        return held

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time installs the program or removes it, with the folder."""
        while True:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(folder).st_uid != os.getuid():
                    raise DevicevmError(f"{self.folder} belongs to another user", hint="remove it")
                fcntl.flock(folder, fcntl.LOCK_EX)
                if self.folder.is_dir() and os.path.samestat(os.fstat(folder), os.stat(self.folder)):
                    yield
                    return
            finally:
                os.close(folder)

    def _installed(self) -> Path:
        """The program, written where it is not there as it is to be."""
        data = packed()
        path = self.folder / f"devicevm-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
        if not path.is_file() or path.read_bytes() != data:
            write_whole(path, data, mode=0o600)
        return path


class NoParts(Parts):
    """Of a VMM that runs no guests: there is nothing to relay, and nothing is missing."""

    def start(self, part: Part) -> None:
        """Nothing is done."""

    def stop(self, part: Part) -> None:
        """Nothing is done."""

    def is_running(self, part: Part) -> bool:
        """It is as good as running."""
        return True
