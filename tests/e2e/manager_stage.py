"""A stage whose device VMs are a manager's, as on a host where `devicevm manager install` was run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from devicevm.vmm.places import managers_places, places_of
from stage import Stage, stage, until

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
    manager: subprocess.Popen[str] | None = None

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

    def reboot_host(self, *options: str) -> None:
        """Have everything end at once, and what a boot removes be gone; then start the manager, and libvirtd."""
        assert self.manager is not None
        self.crash_host(self.manager.pid, *self.device_vms().values())
        self.manager.wait(30)
        Path(f"{places_of(self.uri).runtime}.manager").unlink(missing_ok=True)
        (self.root / "boot").write_text("the boot before\n")
        self.start_manager(*options)
        self.start_libvirtd()

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
