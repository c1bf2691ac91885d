"""What makes a VMM a managed one: the manager's own VMM, libvirt's hook, and the unit that runs the manager."""

from __future__ import annotations

import inspect
import os
import shlex
import shutil
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ..domain import Role
from ..errors import DevicevmError
from ..vmm.libvirt import embed
from ..vmm.libvirt.qemu import QemuDriver
from ..vmm.places import Places, managers_places
from ..whole import write_whole
from . import hook, wire

HOOK = Path("/etc/libvirt/hooks/qemu.d/devicevm")
_DAEMONS = ("libvirtd", "virtqemud")
_SOCKETS = tuple(f"/run/libvirt/{daemon}-sock" for daemon in ("libvirt", "virtqemud"))


def install(places: Places) -> list[str]:
    """Make the VMM at `places` a managed one; what was done, in words, nothing when it is one already. Idempotent.

    DevicevmError when device VMs are on the VMM itself: they would be planned anew beside themselves.
    """
    _check(places)
    own = managers_places(places)
    done = []
    if own.embed_root and not own.embed_root.is_dir():
        user = _empty_vmm_s_user(places)
        own.embed_root.mkdir(mode=0o711, parents=True)
        # Clients are another libvirt's: its QEMU must be let in to what this one's QEMU makes.
        embed.write_settings(own.embed_root, user)
        done.append(f"device VMs of {places.uri} are its manager's from now on")
    return done + install_hook(places)


def install_hook(places: Places) -> list[str]:
    """Write libvirt's hook where it is another one, and have libvirt know of it."""
    text = hook_text(places).encode()
    with suppress(FileNotFoundError):
        if HOOK.read_bytes() == text and HOOK.stat().st_mode & 0o111:
            return []
    HOOK.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # libvirt may run it at any time.
    write_whole(HOOK, text, mode=0o755)
    pid = _daemon(places)
    if pid:
        os.kill(pid, signal.SIGHUP)
        return [f"{HOOK} is written, and libvirt (process {pid}) told of it"]
    return [f"{HOOK} is written; have libvirt know of it: systemctl reload libvirtd"]


def uninstall(places: Places) -> list[str]:
    """The opposite; what was done, in words. DevicevmError while the manager runs or has device VMs."""
    _check(places)
    root = managers_places(places).embed_root
    done = []
    if root and root.is_dir():
        if pid := embed.holder(root):
            raise DevicevmError(
                f"the manager runs: {embed.describe_process(pid)}", hint=f"systemctl disable --now {wire.UNIT}"
            )
        left = sorted(path.stem for path in (root / "etc" / "qemu").glob("*.xml"))
        if left:
            raise DevicevmError(
                f"the manager has device VMs: {', '.join(left)}",
                hint=f"systemctl start {wire.UNIT}, and devicevm destroy them with their clients",
            )
        shutil.rmtree(root)
        done.append(f"device VMs of {places.uri} are on it again")
    if HOOK.exists():
        HOOK.unlink()
        done.append(f"{HOOK} is removed")
    return done


def is_current(places: Places) -> bool:
    """Whether libvirt's hook is there, and of this version."""
    try:
        return HOOK.read_text(encoding="utf-8") == hook_text(places)
    except OSError:
        return False


def hook_text(places: Places) -> str:
    """The hook's file for the VMM at `places`."""
    return (
        # Without site packages it takes a third of the time, and libvirt waits.
        "#!/usr/bin/python3 -IS\n"
        "# Written by `devicevm manager install`; see docs/manager.md.\n"
        f"{inspect.getsource(hook)}\n\n"
        f"sys.exit(main({wire.socket_path(places)!r}, sys.argv, sys.stdin.buffer))\n"
    )


def unit_text(uri: str) -> str:
    """A systemd unit that runs the manager: before libvirt, which starts clients as it starts."""
    command = shlex.join([sys.executable, "-m", "devicevm.cli", "manager", "run", "--connect", uri])
    return f"""\
[Unit]
Description=devicevm's manager: device VMs of clients that libvirt starts
Before=libvirtd.service virtqemud.service libvirt-guests.service

[Service]
Type=notify
ExecStart={command}
Restart=always
# Device VMs go on while it restarts.
KillMode=process
Delegate=yes

[Install]
WantedBy=multi-user.target
"""


def _check(places: Places) -> None:
    if not places.uri.startswith("qemu:///system"):
        raise DevicevmError(f"{places.uri} runs no hooks that a manager could use", hint="--connect qemu:///system")
    if os.getuid() != 0:
        raise DevicevmError("the manager is the whole host's", hint="run it as root")


def _empty_vmm_s_user(places: Places) -> tuple[int, int] | None:
    """Whom QEMU runs as on a VMM without device VMs; DevicevmError when there are any."""
    driver = QemuDriver(places)
    with driver:
        there = [seen.name for seen in driver.observe() if seen.role is Role.DEVICE_VM]
        if there:
            raise DevicevmError(
                f"device VMs are on {places.uri} itself: {', '.join(there)}",
                hint="devicevm destroy them with their clients, install, and apply again",
            )
        return driver.qemu_user()


def _daemon(places: Places) -> int:
    """The process of libvirt's daemon, by who answers at its socket; 0 when that is somebody else (systemd)."""
    asked = parse_qs(urlsplit(places.uri).query).get("socket", [])
    for path in asked or _SOCKETS:
        with socket.socket(socket.AF_UNIX) as peer, suppress(OSError):
            peer.connect(path)
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            pid = int(struct.unpack("3i", credentials)[0])
            if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() in _DAEMONS:
                return pid
    return 0
