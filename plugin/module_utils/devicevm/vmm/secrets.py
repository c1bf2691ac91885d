"""Secrets: files of the user's that are handed to emulators, and never written anywhere that stays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..domain import DomainSpec, Secret
from ..errors import DevicevmError
from ..part.lock import is_at

MAX_SECRET = 4096
"""Bytes, as in the agent (plugin/guest/agent/agent.h)."""
SUFFIX = ".secret"
"""Of the copies' names (planner/requests.py)."""
_HINT = "such as: head -c 32 /dev/urandom | base64 >{path}"


def read_secret(path: str) -> bytes:
    """The content of a file with a secret, to its last byte; DevicevmError when it is none that can be used."""
    try:
        # A pipe or a terminal would have us wait.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DevicevmError(
            f"the key file {path} cannot be read: {error.strerror}", hint=_HINT.format(path=path)
        ) from error
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise DevicevmError(f"the key file {path} is no plain file")
        data = opened.read(MAX_SECRET + 1)
    if not data:
        raise DevicevmError(f"the key file {path} is empty", hint=_HINT.format(path=path))
    if len(data) > MAX_SECRET:
        raise DevicevmError(f"the key file {path} is too long: a key has {MAX_SECRET} bytes at most")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        # QEMU's LUKS takes no other passphrase.
        raise DevicevmError(f"the key file {path} is no text in UTF-8", hint=_HINT.format(path=path)) from error
    return data


@contextlib.contextmanager
def lent(spec: DomainSpec, qemu_user: tuple[int, int] | None) -> Iterator[None]:
    """Copies of a device VM's secrets for its VMM, which runs as `qemu_user` and may not read the user's own files.

    They are in the runtime directory, which is memory, and gone when the device VM has started. Each is locked as long
    as somebody lends it: what one has left who was killed is told by that.
    """
    with contextlib.ExitStack() as copies:
        for emulator in spec.emulators:
            for secret in emulator.secrets:
                copies.enter_context(_copied(secret, qemu_user))
        yield


@contextlib.contextmanager
def _copied(secret: Secret, qemu_user: tuple[int, int] | None) -> Iterator[None]:
    data = read_secret(secret.path)
    file = _locked_copy(secret.address)
    try:
        with open(file, "wb", closefd=False) as copy:
            copy.write(data)
        if qemu_user and os.getuid() == 0:
            os.fchown(file, *qemu_user)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(secret.address)
        os.close(file)


def _locked_copy(address: str) -> int:
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)
        file = os.open(address, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        fcntl.flock(file, fcntl.LOCK_EX)
        # Before it was locked somebody may have taken it for a stale one.
        if is_at(file, address):
            return file
        os.close(file)


def remove_stale(runtime: Path) -> None:
    """Remove the copies in a runtime directory that nobody lends any more. Who may not write there leaves them."""
    for path in runtime.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)
