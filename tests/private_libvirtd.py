"""A libvirtd of the tests' own: its directories are its alone, and it is ended by pid with all it started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from devicevm.cache import cache_folder

# libvirt's directories are the daemon's own, but for what it finds out about every QEMU there is, which takes it ten
# seconds and more: that is kept for the next one. A /dev/kvm that QEMU's user cannot open would make libvirt probe QEMU
# anew at each call (vmm/libvirt/embed.py tells why), so the daemon sees one that everybody can.
_DAEMON = """
for directory in /etc/libvirt /var/lib/libvirt /var/log/libvirt /run/libvirt; do
  mkdir -p $directory && mount -t tmpfs none $directory || exit 1
done
mkdir -p /var/cache/libvirt && mount --bind "$2" /var/cache/libvirt || exit 1
# What this one is killed in the midst of must not be remembered for the next: images are shared.
echo 'remember_owner = 0' >/etc/libvirt/qemu.conf
if test -e /dev/kvm; then
  mknod -m 666 "$1/kvm" c 10 232 && mount --bind "$1/kvm" /dev/kvm || exit 1
fi
virtlogd -p "$1/virtlogd.pid" &
while test ! -S /run/libvirt/virtlogd-sock; do sleep 0.05; done
exec libvirtd -f "$1/libvirtd.conf" -p "$1/libvirtd.pid"
"""

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def heed_interrupts() -> None:
    """For a Popen's preexec_fn: SIGINT ends the command, though a shell's job in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class NoLibvirtd(Exception):
    """Why there can be none here: the reason to skip a test with."""


def why_not() -> str:
    """Why a system libvirtd of the tests' own cannot be had; empty when it can."""
    if os.getuid() != 0:
        return "a libvirtd of the tests' own needs root"
    missing = [name for name in ("libvirtd", "virtlogd", "unshare") if not shutil.which(name, path=PATH)]
    return f"{', '.join(missing)} is not installed" if missing else ""


@contextlib.contextmanager
def system_libvirtd(work: Path) -> Iterator[str]:
    """The URI of a system libvirtd in the folder `work` (short, readable for all); NoLibvirtd says why not."""
    if reason := why_not():
        raise NoLibvirtd(reason)
    (work / "libvirtd.conf").write_text(f'unix_sock_dir = "{work}"\nauth_unix_rw = "none"\n')
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _DAEMON, "sh", str(work), str(_cache())]
    with daemon(command, work / "libvirt-sock", work / "daemon.log"):
        yield f"qemu:///system?socket={work}/libvirt-sock"


def _cache() -> Path:
    """Where the tests' daemons keep what they know of QEMU."""
    folder = cache_folder() / "tests" / "libvirt"
    folder.mkdir(parents=True, exist_ok=True)
    # QEMU runs as a user of its own while it is looked at.
    folder.chmod(0o755)
    return folder


@contextlib.contextmanager
def daemon(
    command: list[str], socket: Path, log: Path, *, environment: Mapping[str, str] | None = None, **options: Any
) -> Iterator[None]:
    """Run a daemon until the end of the block, and all that it started with it, but no QEMU: those are in
    sessions of their own. `options` are Popen's, such as the user that it runs as."""
    env = {**os.environ, "PATH": PATH, **(environment or {})}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, env=env, **options)
    try:
        end = time.monotonic() + 20
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > end:
                raise NoLibvirtd(f"{command[0]} does not start: {log.read_text()[-500:]}")
            time.sleep(0.05)
        yield
    finally:
        # Its session holds virtlogd too.
        if process.poll() is None:
            os.killpg(process.pid, 15)
        process.wait(30)
