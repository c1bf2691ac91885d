"""The VMMs that every driver test runs on: libvirt's test driver, and QEMU embedded, per session and per system.

Each is the tests' own: the system's libvirt, where one runs, is neither used nor disturbed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from devicevm.planner.domain import DomainSpec
from devicevm.vmm.libvirt.driver import LibvirtDriver
from devicevm.vmm.registry import open_driver
from guests import client, device_vm, tiny_kernel

pytest.importorskip("libvirt", reason="python3-libvirt is not there for this Python")

# libvirt's directories are the daemon's own. A /dev/kvm that QEMU's user cannot open would make libvirt probe QEMU anew
# at each call (embed.py tells why), so the daemon sees one that everybody can.
DAEMON = """
for directory in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /run/libvirt; do
  mkdir -p $directory && mount -t tmpfs none $directory || exit 1
done
if test -e /dev/kvm; then
  mknod -m 666 "$1/kvm" c 10 232 && mount --bind "$1/kvm" /dev/kvm || exit 1
fi
virtlogd -p "$1/virtlogd.pid" &
while test ! -S /run/libvirt/virtlogd-sock; do sleep 0.05; done
exec libvirtd -f "$1/libvirtd.conf" -p "$1/libvirtd.pid"
"""


@dataclass(frozen=True)
class Vmm:
    """A VMM under test. `work` is a directory that its QEMU processes may read."""

    name: str
    uri: str
    accelerator: str
    work: Path
    open: Callable[[], LibvirtDriver]

    @property
    def guests(self) -> bool:
        return self.accelerator != "test"

    @property
    def kernel(self) -> Path:
        return self.work / "kernel"


@dataclass(frozen=True)
class Domains:
    """A device VM and its client, for one VMM."""

    device_vm: DomainSpec
    client: DomainSpec


@pytest.fixture(scope="session", params=["test", "embed", "session", "system"])
def vmm(request: pytest.FixtureRequest) -> Iterator[Vmm]:
    """One VMM after the other; skipped, with the reason, where it cannot be had."""
    name: str = request.param
    # Not pytest's own directory: that one lets nobody else in, and QEMU runs as another user.
    work = Path(tempfile.mkdtemp(prefix="devicevm-", dir="/tmp"))
    work.chmod(0o755)
    (work / "kernel").write_bytes(tiny_kernel())
    (work / "kernel").chmod(0o644)
    if name != "test" and not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not there")
    starts = {"test": _test, "embed": _embed, "session": _session, "system": _system}
    try:
        yield from starts[name](work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@pytest.fixture
def driver(vmm: Vmm) -> Iterator[LibvirtDriver]:
    """A driver on a VMM without domains of devicevm's; the test's own domains are removed after it."""
    used = vmm.open()
    yield used
    used.close()
    with vmm.open() as opened:
        for seen in opened.observe():
            opened.stop(seen.name)
            opened.undefine(seen.name)
        assert opened.observe() == ()


@pytest.fixture
def domains(vmm: Vmm, driver: LibvirtDriver) -> Domains:
    runtime = str(driver.places.runtime)
    served = device_vm(runtime, vmm.accelerator, vmm.kernel)
    return Domains(served, client(runtime, vmm.accelerator, vmm.kernel, served))


def _make(name: str, uri: str, accelerator: str, work: Path) -> Vmm:
    def opened() -> LibvirtDriver:
        driver = open_driver(uri, images=work / "images", accelerator="auto" if name == "test" else "tcg")
        assert isinstance(driver, LibvirtDriver)
        return driver

    return Vmm(name, uri, accelerator, work, opened)


def _test(work: Path) -> Iterator[Vmm]:
    yield _make("test", "test:///default", "test", work)


def _embed(work: Path) -> Iterator[Vmm]:
    yield _make("embed", f"qemu:///embed?root={work}/embed", "tcg", work)


def _session(work: Path) -> Iterator[Vmm]:
    if os.getuid() == 0:
        pytest.skip("root has no session: its libvirtd is the system's. Run the tests as another user for this one")
    if not shutil.which("libvirtd", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("libvirtd is not there")
    names = ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, str(work / name[4:7].lower()))
            (work / name[4:7].lower()).mkdir(mode=0o700)
        with _daemon(["libvirtd", "-p", str(work / "libvirtd.pid")], work / "run/libvirt/libvirt-sock", work):
            yield _make("session", "qemu:///session", "tcg", work)


def _system(work: Path) -> Iterator[Vmm]:
    if os.getuid() != 0:
        pytest.skip("a libvirtd of the tests' own needs root")
    if not (shutil.which("libvirtd") and shutil.which("virtlogd") and shutil.which("unshare")):
        pytest.skip("libvirtd, virtlogd or unshare is not there")
    settings = f'unix_sock_dir = "{work}"\nauth_unix_rw = "none"\n'
    (work / "libvirtd.conf").write_text(settings)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", DAEMON, "sh", str(work)]
    with _daemon(command, work / "libvirt-sock", work):
        yield _make("system", f"qemu:///system?socket={work}/libvirt-sock", "tcg", work)


class _daemon:
    """Runs a daemon until the end of the block, and all that it started with it, but no QEMU."""

    def __init__(self, command: list[str], socket: Path, work: Path) -> None:
        self.socket = socket
        self.log = work / "daemon.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
            )

    def __enter__(self) -> None:
        end = time.monotonic() + 20
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                pytest.skip(f"libvirtd does not start: {self.log.read_text()[-500:]}")
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        # Its session holds virtlogd too; QEMU processes are in sessions of their own and ended by the tests.
        if self.process.poll() is None:
            os.killpg(self.process.pid, 15)
        self.process.wait(30)
