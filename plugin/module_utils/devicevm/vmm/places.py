"""Where a VMM's files live on its host: sockets, overlays, images. One rule per kind of URI."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ..errors import DevicevmError
from ..guest.store import default_store

MAX_RUNTIME_DIR = 60
"""Bytes of the runtime directory: leaves 39 of a socket path's 99 (channel/registry.py) for the name."""

SYSTEM_RUNTIME = Path("/run/devicevm")
SYSTEM_STATE = Path("/var/lib/devicevm")


@dataclass(frozen=True)
class Places:
    """A VMM's directories. `uri` is normal form: two ways to write one VMM have the same.

    `runtime` holds sockets and console logs; it vanishes with a reboot. `state` outlives it.
    `system`: the VMM's processes run as a user of their own and must be let in. Making places writes nothing:
    who only looks needs no right to write there.
    """

    uri: str
    runtime: Path
    state: Path
    images: Path
    logs: Path
    """Console logs. virtlogd bounds those of a daemon's. An embedded VMM's are bounded now and then (console.bound),
    and therefore are on its own disk: the host's /run is memory, and everybody's."""
    embed_root: Path | None = None
    system: bool = False

    @property
    def private(self) -> Path:
        """Beside `runtime`, and as short-lived: the lock, and notes that are believed. QEMU's user, whose `runtime` is,
        cannot write here."""
        return self.runtime.with_name(f"{self.runtime.name}.private")

    @property
    def overlays(self) -> Path:
        """Copy-on-write disks of clients that boot from an image."""
        return self.state / "clients"


def places_of(uri: str, images: Path | None = None) -> Places:
    """The places of the VMM at `uri`; DevicevmError for one that is not on this host."""
    normal = normal_uri(uri)
    parts = urlsplit(normal)
    root = embed_root(normal) if parts.path == "/embed" else None
    short = hashlib.sha256((str(root) if root else normal).encode()).hexdigest()[:8]
    privileged = os.getuid() == 0
    # One system's VMM is one, whoever asks: two who called it by two locks would both take what is free.
    shared = privileged or parts.path == "/system"
    runtime = (SYSTEM_RUNTIME if shared else _user_runtime()) / short
    state = (SYSTEM_STATE if shared else _user_state()) / "vmm" / short
    return Places(
        uri=normal,
        runtime=runtime,
        state=root / "devicevm" if root else state,
        images=images or default_store(),
        logs=root / "devicevm" / "logs" if root else runtime,
        embed_root=root,
        system=parts.path == "/system" or (root is not None and privileged),
    )


def managers_places(places: Places) -> Places:
    """The places of the VMM that the manager of the VMM at `places` runs device VMs on: an embedded one, whose channels
    are where the clients' VMM looks for them."""
    root = places.state / "manager"
    return replace(places, uri=f"qemu:///embed?root={root}", embed_root=root, logs=places.state / "logs")


def is_managed(places: Places) -> bool:
    """Whether a VMM's device VMs are its manager's: it has been installed, whether it runs or not."""
    return places.uri.startswith("qemu:///system") and (places.state / "manager").is_dir()


def overlays_of_all(places: Places) -> tuple[Path, ...]:
    """Where overlays can be on this host: a VMM's, and those of the others that can be known without being asked."""
    known = [state for root in sorted({SYSTEM_STATE, _user_state()}) for state in root.glob("vmm/*")]
    states = {places.state, default_embed_root() / "devicevm", *known}
    return tuple(sorted(replace(places, state=state).overlays for state in states))


def verdicts() -> Path:
    """Where it is kept which accelerators work: the host's affair, whatever VMMs there are on it."""
    return (SYSTEM_STATE if os.getuid() == 0 else _user_state()) / "accelerator.json"


def normal_uri(uri: str) -> str:
    """The URI without what makes no difference; a remote one is refused."""
    parts = urlsplit(uri)
    driver, *transport = parts.scheme.split("+")
    if driver not in ("qemu", "test"):
        raise DevicevmError(f"{uri!r} is no VMM that devicevm knows", hint="use qemu:///system or qemu:///session")
    if parts.netloc or transport not in ([], ["unix"]):
        raise DevicevmError(
            f"{uri!r} is on another host, and devicevm works on the host it runs on",
            hint="run it there: the Ansible role `host` of this collection does",
        )
    if driver == "qemu" and parts.path not in ("/system", "/session", "/embed"):
        raise DevicevmError(f"{uri!r} is no URI of QEMU's", hint="use /system, /session or /embed?root=DIR")
    if driver == "qemu" and parts.path == "/embed":
        return f"qemu:///embed?root={embed_root(uri)}"
    query = f"?{parts.query}" if parts.query else ""
    # libvirt's test driver without a daemon is another one than the daemon's.
    scheme = parts.scheme if driver == "test" else driver
    return f"{scheme}://{parts.path}{query}"


def embed_root(uri: str) -> Path:
    """The state directory that an embedded VMM's URI names, absolute and without symbolic links."""
    roots = parse_qs(urlsplit(uri).query).get("root", [])
    if len(roots) != 1:
        raise DevicevmError(f"{uri!r} does not say where", hint="write qemu:///embed?root=DIR")
    return Path(os.path.realpath(roots[0]))


def default_embed_root() -> Path:
    """Where the embedded VMM lives when the user names none."""
    return Path("/var/lib/devicevm/embed") if os.getuid() == 0 else _user_state() / "embed"


def make_runtime(places: Places, qemu_user: tuple[int, int] | None) -> None:
    """Create the runtime directory and the private one, again after each reboot.

    `qemu_user` (uid, gid) is who the VMM's processes run as: they make the sockets of channels that are added to a
    running domain, so the runtime directory is theirs. Others may go through it and list nothing. DevicevmError for a
    caller who may not write in the system's.
    """
    if os.getuid() != 0 and places.system:
        _refuse_unless_let_in(places)
        return
    if os.getuid() == 0:
        places.runtime.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    _make_own(places.private, 0o700)
    made = _make_own(places.runtime, 0o711)
    owner = qemu_user if places.system and qemu_user and os.getuid() == 0 else None
    if owner and (made.st_uid, made.st_gid) != owner:
        os.chown(places.runtime, *owner)
    if made.st_mode & 0o777 != 0o711:
        os.chmod(places.runtime, 0o711)  # noqa: S103 - sockets are reached through it


def make_logs(places: Places) -> None:
    """Create the directory of the console logs where it is another one. libvirt opens them, and hands them to QEMU."""
    places.logs.mkdir(mode=0o711, parents=True, exist_ok=True)


def _refuse_unless_let_in(places: Places) -> None:
    """The directory is root's to make; who has been given access to it may use it."""
    for directory in (places.runtime, places.private):
        if not os.access(directory, os.W_OK | os.X_OK):
            raise DevicevmError(
                f"{places.uri} is the whole host's, and you may not write in {directory}",
                hint=f"run it as root, or be given access to {places.runtime}, {places.private} and {places.state}; "
                "plan and status need none",
            )


def _make_own(path: Path, mode: int) -> os.stat_result:
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    made = path.lstat()
    if not os.path.isdir(path) or path.is_symlink():
        raise DevicevmError(f"{path} is no directory", hint="remove it")
    # /tmp is the last resort, and anybody could have made a directory of that name there.
    if os.getuid() != 0 and made.st_uid != os.getuid():
        raise DevicevmError(f"{path} belongs to another user", hint="set XDG_RUNTIME_DIR to a directory of yours")
    return made


def _user_runtime() -> Path:
    uid = os.getuid()
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"]
    for candidate in candidates:
        path = Path(candidate) / "devicevm"
        usable = candidate and os.path.isabs(candidate) and os.access(candidate, os.W_OK)
        if usable and len(str(path).encode()) + 9 <= MAX_RUNTIME_DIR:
            return path
    return _last_resort()


def _last_resort() -> Path:
    # Not $TMPDIR: it may be long, and differ between two runs. _make_own sees that it is the user's own.
    return Path("/tmp") / f"devicevm-{os.getuid()}"  # noqa: S108


def _user_state() -> Path:
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".local/state") / "devicevm"
