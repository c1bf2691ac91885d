"""The VMMs that every driver test runs on: libvirt's test driver, and QEMU embedded, per session and per system.

Each is the tests' own: the system's libvirt, where one runs, is neither used nor disturbed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from devicevm.domain import DomainSpec
from devicevm.vmm.libvirt.driver import LibvirtDriver
from devicevm.vmm.registry import open_driver
from guests import client, device_vm, tiny_kernel
from private_libvirtd import PATH, NoLibvirtd, daemon, system_libvirtd

pytest.importorskip("libvirt", reason="python3-libvirt is not there for this Python")


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
    except NoLibvirtd as reason:
        pytest.skip(str(reason))
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
    if not shutil.which("libvirtd", path=PATH):
        pytest.skip("libvirtd is not there")
    names = ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, str(work / name[4:7].lower()))
            (work / name[4:7].lower()).mkdir(mode=0o700)
        with daemon(["libvirtd", "-p", str(work / "libvirtd.pid")], work / "run/libvirt/libvirt-sock", work / "log"):
            yield _make("session", "qemu:///session", "tcg", work)


def _system(work: Path) -> Iterator[Vmm]:
    with system_libvirtd(work) as uri:
        yield _make("system", uri, "tcg", work)
