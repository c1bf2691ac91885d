"""libvirt's embedded QEMU driver: no daemon, one process at a time per state directory.

What it leaves to its user: the settings that a daemon's configuration would have, a clear word on who holds
the directory, and patience until running domains are known again.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import grp
import os
import pwd
import re
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...cache import cache_folder
from ...errors import DevicevmError
from ...whole import write_whole
from ..accelerator import BOOT_ID
from ..driver import VmmError

if TYPE_CHECKING:
    import libvirt

QEMU_USERS = ("libvirt-qemu", "qemu")
"""Whom QEMU runs as under a privileged libvirt: Debian's name, then Fedora's."""

# As libvirt's own parser takes a line (util/virconf.c): in double, single or three double quotes.
_IDENTITY = re.compile(r"""^[ \t]*(user|group)[ \t]*=[ \t]*(\"{3}|"|')(.*?)\2""", re.MULTILINE)

RECONNECT_LIMIT = 10.0
"""Seconds that running domains may take to come back after the directory was opened."""

MAX_OPENINGS = 10
"""How often a process really opens embedded VMMs. libvirt 9.0 registers its drivers anew each time and has room
for some fifteen, so the last of these connections stays open until the process ends."""


@dataclass
class _Opened:
    """A connection of this process's, shared by all that open the same directory."""

    connection: libvirt.virConnect
    users: int


_opened: dict[Path, _Opened] = {}
_openings = 0


def connect(uri: str, root: Path, wait: float) -> libvirt.virConnect:
    """A connection to the embedded VMM at `root`, whose running domains are known again.

    Another process that has the directory open is waited for, at most `wait` seconds. To be given back to `close`.
    """
    global _openings  # noqa: PLW0603 - libvirt's table of drivers is one per process
    if root in _opened:
        _opened[root].users += 1
        return _opened[root].connection
    import libvirt

    with _alone(root, wait):
        names = _names_of_last_seen(root)
        connection = libvirt.open(uri)
    _openings += 1
    _opened[root] = _Opened(connection, 1)
    _wait_for_domains(connection, names)
    return connection


def close(root: Path) -> None:
    """Give a connection back; the directory is then another process's to open, if nobody else here uses it."""
    opened = _opened[root]
    opened.users -= 1
    if opened.users == 0 and _openings < MAX_OPENINGS:
        del _opened[root]
        opened.connection.close()


@atexit.register
def _close_kept() -> None:
    """At exit, before the interpreter takes the binding apart: connections still open would complain."""
    while _opened:
        _opened.popitem()[1].connection.close()


@contextlib.contextmanager
def _alone(root: Path, wait: float) -> Iterator[None]:
    """The state directory, made where it is not there, with nobody else who has it open or is about to open it.

    libvirt locks it once it is open, and what is done before would be done to another's domains. DevicevmError when
    another process still has it after `wait` seconds.
    """
    end = time.monotonic() + wait
    try:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        write_settings(root)
        _share_knowledge(root)
        opening = os.open(root / "opening", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DevicevmError(f"the embedded VMM's directory {root} cannot be used: {error.strerror}") from error
    try:
        while not _locked(opening) or holder(root):
            pid = holder(root) or _who_locks(opening)
            if pid and time.monotonic() >= end:
                raise DevicevmError(
                    f"the embedded VMM at {root} is in use by {describe_process(pid)}",
                    hint="only one process at a time can have it open: wait for that one to end",
                )
            time.sleep(0.1)
        yield
    finally:
        os.close(opening)


def _names_of_last_seen(root: Path) -> tuple[str, ...]:
    """The names of the domains that ran in the directory when last seen, and may run still."""
    status = root / "run" / "qemu"
    _forget_last_boot(root / "boot", status)
    return tuple(sorted(path.stem for path in status.glob("*.xml")))


def _share_knowledge(root: Path) -> None:
    """Have what libvirt finds out about every QEMU there is, which takes it ten seconds, kept for all directories.

    It checks itself whether that still holds.
    """
    known = root / "cache" / "qemu" / "capabilities"
    # It may be done by two at once; and where it cannot be, libvirt keeps it for this directory alone.
    with contextlib.suppress(OSError):
        if not known.exists():
            shared = cache_folder() / "libvirt"
            shared.mkdir(parents=True, exist_ok=True)
            known.parent.mkdir(parents=True, exist_ok=True)
            known.symlink_to(shared)


def _forget_last_boot(note: Path, status: Path) -> None:
    """Remove what libvirt keeps of running domains, if the host has booted since: none of them runs.

    libvirt has it where a boot removes it, and this directory is on a disk. It takes the process ids there at their
    word: one whose domain does not answer it kills, whoever has the number by now.
    """
    boot = BOOT_ID.read_text(encoding="ascii")
    last = note.read_text(encoding="utf-8") if note.exists() else ""
    if last == boot:
        return
    # A note without a word was never written whole: it tells of no other boot, and what is kept may run.
    if last:
        for path in (*status.glob("*.xml"), *status.glob("*.pid")):
            path.unlink()
    try:
        write_whole(note, boot)
    except OSError as error:
        raise DevicevmError(f"{note} cannot be written: {error.strerror}", hint="is its disk full?") from error


def _wait_for_domains(connection: libvirt.virConnect, names: tuple[str, ...]) -> None:
    """Wait until each of the domains that were running is known as running again, or as ended.

    libvirt connects to their QEMUs in threads of its own after the directory was opened.
    """
    import libvirt

    end = time.monotonic() + RECONNECT_LIMIT
    for name in names:
        while time.monotonic() < end:
            try:
                domain = connection.lookupByName(name)
                # state() waits for the domain's lock, which the reconnecting thread holds.
                if domain.state()[0] != libvirt.VIR_DOMAIN_NOSTATE:
                    break
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    break
            time.sleep(0.02)


def holder(root: Path) -> int:
    """The process that has the state directory open; 0 for none.

    Not for a directory that this process has open itself: closing the file would drop its own lock.
    """
    try:
        with open(root / "run" / "qemu" / "driver.pid", "rb") as file:
            return _who_locks(file.fileno())
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise VmmError(f"the embedded VMM's directory {root} cannot be used: {error.strerror}") from error


def _who_locks(file: int) -> int:
    """The other process that has locked a file, as libvirt does (fcntl(2)); 0 for none."""
    # struct flock on Linux: short type, short whence, off_t start, off_t len, pid_t pid.
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return 0 if answer[0] == fcntl.F_UNLCK else int(answer[-1])


def _locked(file: int) -> bool:
    """Whether a file is this process's now, until it closes it or ends."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def describe_process(pid: int) -> str:
    """`process 123 (devicevm apply web.yaml)`."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()[:200].replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({command.strip()})"


def write_settings(root: Path, user: tuple[int, int] | None = None) -> None:
    """qemu.conf for a state directory that has none. One that is there is the user's and stays as it is.

    `user` (uid, gid) is whom QEMU is to run as, when that is not libvirt's own choice."""
    path = root / "etc" / "qemu.conf"
    if path.exists():
        return
    # No virtlogd belongs to an embedded VMM: QEMU writes console logs itself, and console.py bounds them.
    # Images are shared with the system's libvirt, whose QEMU may be another user: each would refuse a file of which
    # the other remembers that it is in use. Everybody may read them anyway.
    lines = ['stdio_handler = "file"', "remember_owner = 0"]
    if user is not None:
        lines += [f'user = "+{user[0]}"', f'group = "+{user[1]}"'] if user[0] else ['user = "root"', 'group = "root"']
    elif os.getuid() == 0 and not _qemu_user_has_kvm():
        # QEMU under its usual user could not open /dev/kvm, and libvirt, which finds that the device
        # is there and then is not, would probe QEMU anew at each call: 40 s for the first domain.
        lines += ['user = "root"', 'group = "root"']
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    write_whole(path, "\n".join(lines) + "\n")


def _qemu_user_has_kvm() -> bool:
    """Whether QEMU's user may open /dev/kvm, by the node's mode; True where there is no such device."""
    try:
        device = os.stat("/dev/kvm")
    except OSError:
        return True
    for name in QEMU_USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        groups = {user.pw_gid, *(group.gr_gid for group in grp.getgrall() if name in group.gr_mem)}
        owns, shares = device.st_uid == user.pw_uid, device.st_gid in groups
        return bool(device.st_mode & (0o600 if owns else 0o060 if shares else 0o006))
    return True


def qemu_user(root: Path) -> tuple[int, int] | None:
    """The (uid, gid) that QEMU runs as below this directory, by its qemu.conf; None for the caller's own.

    libvirt's capabilities would tell, too, but take ten seconds where QEMU cannot open /dev/kvm."""
    if os.getuid() != 0:
        return None
    path = root / "etc" / "qemu.conf"
    named = {name: value for name, _quote, value in _IDENTITY.findall(path.read_text(encoding="utf-8"))}
    usual = _usual_user()
    try:
        user = _number(named["user"], lambda name: pwd.getpwnam(name).pw_uid) if "user" in named else usual[0]
        group = _number(named["group"], lambda name: grp.getgrnam(name).gr_gid) if "group" in named else usual[1]
    except ValueError as error:
        raise DevicevmError(f"{path} names a user or group that there is not: {error}") from error
    return (user, group) if user else None


def _number(word: str, look_up: Callable[[str], int]) -> int:
    """An id as libvirt reads it: +64055, a name, or the digits that are none's name (virGetUserID)."""
    if not word.startswith("+"):
        with contextlib.suppress(KeyError):
            return look_up(word)
    return int(word)


def _usual_user() -> tuple[int, int]:
    """Whom libvirt runs QEMU as where it is not told; (0, 0) where it has no user for that."""
    for name in QEMU_USERS:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return user.pw_uid, user.pw_gid
    return 0, 0
