"""A stage whose device VMs are a manager's, as on a host where `devicevm manager install` was run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from devicevm.vmm.places import managers_places, places_of
from stage import Stage, stage

CLIENT = """\
apiVersion: devicevm/v1
kind: Client
metadata: {name: %s}
spec:
  vm: {vcpus: 1, memory: 64MiB, start: request, boot: {kernel: %s}}
  devices: [%s]
"""
DISK = "{name: data, class: disk, parameters: {size: 1MiB}}"
ECHO = "{name: echo, class: serial, parameters: {program: echo}}"


@dataclass
class ManagedStage(Stage):
    """`inside`: what runs a command where its libvirtd sees /etc/libvirt and the host's devices."""

    manager: subprocess.Popen[str] | None = None
    daemon: subprocess.Popen[bytes] | None = None

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", "--mount", "--target", self._namespace, *command]

    def manage(self, *arguments: str, ok: bool = True) -> str:
        """Run `devicevm manager ...` there; what it said."""
        command = self.inside(sys.executable, "-m", "devicevm.cli", "manager", *arguments, "--connect", self.uri)
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode == 0) == ok, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def start_manager(self, *options: str) -> None:
        """Start the manager, and wait until it listens."""
        command = self.inside(sys.executable, "-m", "devicevm.cli", "manager", "run", "--connect", self.uri, *options)
        log = (self.folder / "manager.log").open("a")
        self.manager = subprocess.Popen(
            command, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True
        )
        log.close()
        socket = Path(f"{places_of(self.uri).runtime}.manager")
        until(socket.exists, 30, self.said)

    def said(self) -> str:
        """What the managers have said so far."""
        return (self.folder / "manager.log").read_text()

    def stop_manager(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the manager by a signal."""
        assert self.manager is not None
        self.manager.send_signal(number)
        self.manager.wait(30)
        Path(f"{places_of(self.uri).runtime}.manager").unlink(missing_ok=True)

    def restart_libvirtd(self) -> None:
        """End libvirtd and start it anew, as if the host had booted: it then starts what is to start by itself."""
        os.kill(self._daemon, signal.SIGTERM)
        until(lambda: not (self.folder / "libvirt-sock").exists(), 30)
        self._start_libvirtd()

    def reboot_host(self, *options: str) -> None:
        """Have everything end at once, and what a boot removes be gone; then start the manager, and libvirtd."""
        assert self.manager is not None
        ended = [self.manager.pid, self._daemon, *self.device_vms().values(), *self.processes()]
        for pid in ended:
            os.kill(pid, signal.SIGKILL)
        self.manager.wait(30)
        until(lambda: not any(map(_runs, ended)), 30)
        places = places_of(self.uri)
        shutil.rmtree(places.runtime)
        for path in (Path(f"{places.runtime}.manager"), self.folder / "libvirt-sock", self.folder / "libvirtd.pid"):
            path.unlink(missing_ok=True)
        (self.root / "boot").write_text("the boot before\n")
        run = Path(f"/proc/{self._namespace}/root/run/libvirt/qemu")
        shutil.rmtree(run)
        run.mkdir()
        self.start_manager(*options)
        self._start_libvirtd()

    @property
    def _namespace(self) -> str:
        """A process that sees the directories of this stage's libvirt, and outlives libvirtd."""
        return (self.folder / "virtlogd.pid").read_text().strip()

    def _start_libvirtd(self) -> None:
        Path(f"/proc/{self._namespace}/root/run/libvirt/qemu/autostarted").unlink(missing_ok=True)
        settings = ("-f", str(self.folder / "libvirtd.conf"), "-p", str(self.folder / "libvirtd.pid"))
        command = self.inside("libvirtd", *settings)
        with (self.folder / "daemon-2.log").open("ab") as log:
            self.daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        until((self.folder / "libvirt-sock").exists, 30)

    def end_daemons(self) -> None:
        """End what `restart_libvirtd` has started, and what the first libvirtd has left."""
        if self.daemon is not None:
            # Killed, it leaves its pid file, by which the stage looks for what is left.
            self.daemon.kill()
            self.daemon.wait(30)
            os.kill(int((self.folder / "virtlogd.pid").read_text()), signal.SIGTERM)

    @property
    def root(self) -> Path:
        """The directory of the manager's VMM."""
        root = managers_places(places_of(self.uri)).embed_root
        assert root is not None
        return root

    def device_vms(self) -> dict[str, int]:
        """The QEMU processes of the manager's device VMs."""
        found = {}
        for path in (self.root / "run" / "qemu").glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(path.read_text())
                if path.stem != "driver" and Path(f"/proc/{pid}").exists():
                    found[path.stem] = pid
        return found

    def try_virsh(self, *arguments: str) -> tuple[int, str]:
        """virsh's exit status and what it said."""
        done = subprocess.run(
            ["virsh", "-c", self.uri, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def declare(self, name: str, *documents: str) -> Path:
        """A manifest of these documents."""
        path = self.folder / f"{name}.yaml"
        path.write_text("---\n".join(documents))
        return path


def _runs(pid: int) -> bool:
    """Whether a process does anything any more: one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], object], seconds: float, words: Callable[[], object] = str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, words()
        time.sleep(0.05)


@contextlib.contextmanager
def managed_stage(*options: str) -> Iterator[ManagedStage]:
    """A new stage with a running manager; nothing of it outlives this."""
    with stage() as plain:
        made = ManagedStage(plain.folder, plain.uri)
        try:
            made.manage("install")
            made.start_manager(*options)
            yield made
        finally:
            if made.manager is not None and made.manager.poll() is None:
                made.stop_manager()
            for pid in (*made.device_vms().values(), *made.processes()):
                os.kill(pid, signal.SIGKILL)
            places = places_of(made.uri)
            shutil.rmtree(places.state, ignore_errors=True)
            made.end_daemons()


def roomy_host() -> str:
    """A document that lets this host take more virtual CPUs than tests of many clients ask."""
    return (
        f"apiVersion: devicevm/v1\nkind: Host\nmetadata: {{name: {os.uname().nodename}}}\nspec: {{cpuOvercommit: 64}}\n"
    )
