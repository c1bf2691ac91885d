"""What tests with Ansible share: the collection, installed from its tarball, and a test driver that remembers."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from devicevm.vmm.places import places_of
from playing import BIN, Player
from private_libvirtd import PATH, daemon
from stage_collection import stage

if TYPE_CHECKING:
    from conftest import Run


@pytest.fixture(scope="session")
def collections(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path with nothing but the collection, as users install it."""
    built, path = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("collections")
    staged = stage(tmp_path_factory.mktemp("stage"))
    run(BIN / "ansible-galaxy", "collection", "build", "--output-path", built, cwd=staged)
    (tarball,) = built.iterdir()
    run(BIN / "ansible-galaxy", "collection", "install", "--offline", "-p", path, tarball, cwd=built)
    return path


@pytest.fixture
def player(collections: Path, tmp_path: Path) -> Player:
    return Player(collections, tmp_path)


@dataclass(frozen=True)
class TestVmm:
    """libvirt's test driver in a daemon of its own: what one task does, the next one sees."""

    __test__ = False
    uri: str
    connection: Any

    def domains(self) -> dict[str, bool]:
        """All domains, and whether they run."""
        return {domain.name(): bool(domain.isActive()) for domain in self.connection.listAllDomains()}

    def define(self, name: str) -> str:
        """Define a domain that is not devicevm's; its XML as libvirt has it."""
        xml = f"<domain type='test'><name>{name}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>"
        return str(self.connection.defineXML(xml).XMLDesc())

    def xml(self, name: str) -> str:
        """A domain's definition."""
        return str(self.connection.lookupByName(name).XMLDesc())

    def clear(self) -> None:
        """No domains are left, libvirt's own one, which takes all memory, included."""
        for domain in self.connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefine()


@pytest.fixture(scope="session")
def _daemon() -> Iterator[TestVmm]:
    """A libvirtd that has none of the system's files: its state lasts as long as the connection that is held here."""
    libvirt = pytest.importorskip("libvirt")
    if not shutil.which("libvirtd", path=PATH):
        pytest.skip("libvirtd is not installed")
    folder = Path(tempfile.mkdtemp(prefix="dvm-test-"))
    (folder / "conf").write_text(f'unix_sock_dir = "{folder}"\nauth_unix_rw = "none"\n')
    # root's libvirtd would take the system's places; any other user's takes that user's.
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    homes = ("HOME", "XDG_RUNTIME_DIR", *(f"XDG_{name}_HOME" for name in ("CONFIG", "CACHE", "DATA", "STATE")))
    command = ["libvirtd", "--config", str(folder / "conf"), "--pid-file", str(folder / "pid")]
    socket = folder / "libvirt-sock"
    uri = f"test+unix:///default?socket={socket}"
    try:
        with daemon(command, socket, folder / "log", environment=dict.fromkeys(homes, str(folder)), **user):
            yield TestVmm(uri, libvirt.open(uri))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for left in (places_of(uri).runtime, places_of(uri).private):
            shutil.rmtree(left, ignore_errors=True)


@pytest.fixture
def vmm(_daemon: TestVmm) -> TestVmm:
    """The test driver without any domain."""
    _daemon.clear()
    return _daemon


@pytest.fixture(scope="session")
def images() -> Path:
    """The store with the images base and client, built where they are not there."""
    from devicevm.guest.store import default_store

    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    command = [sys.executable, "-m", "devicevm.cli", "image", "build", "base", "client"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    if done.returncode:
        pytest.skip(f"no images: {done.stderr.strip()[-500:]}")
    return default_store()
