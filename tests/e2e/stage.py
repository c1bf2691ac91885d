"""A private VMM for one test, the real command, and a shell inside client guests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devicevm.part.lock import holder
from devicevm.vmm.places import places_of
from private_libvirtd import PATH, heed_interrupts, system_libvirtd

SECONDS = 240


@dataclass
class Stage:
    """A libvirtd of its own in a folder of its own; nothing of it outlives `stage`."""

    folder: Path
    uri: str
    daemon: subprocess.Popen[bytes] | None = None
    """The libvirtd that was started after the first one."""

    @property
    def environment(self) -> dict[str, str]:
        """The real command's: as a user has it, but for the VMM; images are where the tests built them."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("DEVICEVM_") or key == "DEVICEVM_IMAGES"
        }
        return {**kept, "LIBVIRT_DEFAULT_URI": self.uri, "PATH": PATH, "NO_COLOR": "1"}

    def devicevm(
        self, *arguments: str | Path, ok: bool = True, timeout: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run the real command; unless `ok` is False, its failure is the test's."""
        result = subprocess.run(
            [sys.executable, "-m", "devicevm.cli", *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if ok and result.returncode:
            raise AssertionError(
                f"devicevm {' '.join(map(str, arguments))}: {result.returncode}\n{result.stdout}\n{result.stderr}"
            )
        return result

    def json(self, *arguments: str | Path) -> Any:
        """What a command answers with -o json."""
        return json.loads(self.devicevm(*arguments, "-o", "json").stdout)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start the real command and go on."""
        return subprocess.Popen(
            [sys.executable, "-m", "devicevm.cli", *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
            preexec_fn=heed_interrupts,  # noqa: PLW1509 - it calls signal() alone
        )

    def virsh(self, *arguments: str) -> str:
        """What virsh alone sees; its failure is the test's."""
        result = subprocess.run(
            ["virsh", "-c", self.uri, *arguments],
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if result.returncode:
            raise AssertionError(f"virsh {' '.join(arguments)}: {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result.stdout

    def domains(self) -> list[str]:
        """The names of all domains, running or not."""
        return sorted(self.virsh("list", "--all", "--name").split())

    def processes(self) -> list[int]:
        """The QEMU processes of this stage, by the pid files that its libvirtd has in directories of its own."""
        found = []
        for path in self._pid_files.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                found.append(int(path.read_text()))
        # The driver's own pid file stands among them.
        return [pid for pid in found if pid != self._daemon and Path(f"/proc/{pid}").exists()]

    def process(self, domain: str) -> int:
        """The QEMU process of a running domain."""
        return int((self._pid_files / f"{domain}.pid").read_text())

    def kill(self, domain: str) -> None:
        """A domain's QEMU is gone from one moment to the next, and libvirt has seen it."""
        os.kill(self.process(domain), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while domain in self.virsh("list", "--name").split():
            assert time.monotonic() < deadline, f"libvirt has not seen {domain} die"
            time.sleep(0.05)

    def inside(self, *command: str) -> list[str]:
        """What runs a command where its libvirtd sees /etc/libvirt and the host's devices."""
        return ["nsenter", "--mount", "--target", self._namespace, *command]

    def restart_libvirtd(self) -> None:
        """End libvirtd and start it anew, as if the host had booted: it then starts what is to start by itself."""
        os.kill(self._daemon, signal.SIGTERM)
        until(lambda: not self._socket.exists(), 30)
        self.start_libvirtd()

    def start_libvirtd(self) -> None:
        """Start libvirtd anew, after the first one has ended."""
        (self._run / "autostarted").unlink(missing_ok=True)
        settings = ("-f", str(self.folder / "libvirtd.conf"), "-p", str(self.folder / "libvirtd.pid"))
        with (self.folder / "daemon-2.log").open("ab") as log:
            command = self.inside("libvirtd", *settings)
            self.daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        until(self._socket.exists, 30)

    def crash_host(self, *others: int) -> None:
        """End libvirtd, all guests and other processes at once, and remove what a boot of the host removes."""
        ended = [*others, self._daemon, *self.processes()]
        for pid in ended:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not any(map(_runs, ended)), 30)
        shutil.rmtree(places_of(self.uri).runtime)
        for path in (self._socket, self.folder / "libvirtd.pid"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._run)
        self._run.mkdir()

    def end_daemons(self) -> None:
        """End what `restart_libvirtd` has started, and what the first libvirtd has left."""
        if self.daemon is not None:
            # Killed, it leaves its pid file, by which the stage looks for what is left.
            self.daemon.kill()
            self.daemon.wait(30)
            os.kill(int((self.folder / "virtlogd.pid").read_text()), signal.SIGTERM)

    @property
    def _socket(self) -> Path:
        return self.folder / "libvirt-sock"

    @property
    def _namespace(self) -> str:
        """A process that sees the directories of this stage's libvirt, and outlives libvirtd."""
        return (self.folder / "virtlogd.pid").read_text().strip()

    @property
    def _run(self) -> Path:
        return Path(f"/proc/{self._namespace}/root/run/libvirt/qemu")

    @property
    def _daemon(self) -> int:
        return int((self.folder / "libvirtd.pid").read_text())

    @property
    def _pid_files(self) -> Path:
        return Path(f"/proc/{self._daemon}/root/run/libvirt/qemu")

    def runtime_files(self) -> list[str]:
        """The names of what is in devicevm's runtime directory."""
        return sorted(path.name for path in places_of(self.uri).runtime.rglob("*"))

    def sockets(self) -> list[Path]:
        """devicevm's own sockets that are left."""
        return sorted(places_of(self.uri).runtime.rglob("*.sock"))

    def parts(self) -> list[int]:
        """The processes of host parts, by the locks that they hold."""
        held = (holder(path) for path in (places_of(self.uri).state / "parts").glob("*.lock"))
        return [one.pid for one in held if one]


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
def stage() -> Iterator[Stage]:
    """A new stage; what its VMM still runs in the end is ended, by pid."""
    # Short, for libvirt puts sockets below it, and open, for QEMU runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="dvm-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with system_libvirtd(folder) as uri:
            made = Stage(folder, uri)
            try:
                yield made
            finally:
                for pid in made.parts() + made.processes():
                    os.kill(pid, signal.SIGKILL)
                made.end_daemons()
                for left in (places_of(uri).runtime, places_of(uri).private, places_of(uri).state):
                    shutil.rmtree(left, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(*command: str | Path, timeout: float = 60) -> str:
    """What a tool of the host's says; its failure is the test's."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Shell:
    """Root's shell in a client guest, on a virtio port that the manifest's domainXML adds."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        self.count = 0
        self.rest = b""

    def run(self, command: str, timeout: float = 120) -> str:
        """What the command prints; its failure is the test's."""
        self.count += 1
        # Written so that an echo of the command itself does not look like its end.
        mark = f"done-{self.count}"
        self.socket.settimeout(timeout)
        self.socket.sendall(f'{{ {command}\n}} 2>&1; echo "do"ne-{self.count}:$?:\n'.encode())
        pattern = re.compile(rf"{mark}:(\d+):\r?\n".encode())
        deadline = time.monotonic() + timeout
        while not (match := pattern.search(self.rest)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{command}: no end; so far {self.rest[-2000:]!r}")
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"{command}: the guest is gone; so far {self.rest[-2000:]!r}")
            self.rest += data
        output = self.rest[: match.start()].decode(errors="replace").replace("\r\n", "\n")
        self.rest = self.rest[match.end() :]
        assert match[1] == b"0", f"{command}: exit {match[1].decode()}\n{output}"
        return output

    def ask(self, query: bytes, answer: int) -> bytes:
        """What is answered at the client's second serial port: `answer` bytes."""
        text = "".join(f"\\{byte:03o}" for byte in query)
        said = self.run(
            "stty -F /dev/ttyS1 raw -echo; exec 3<>/dev/ttyS1; "
            f"printf '{text}' >&3; timeout 60 dd bs=1 count={answer} <&3 2>/dev/null | hexdump -ve '1/1 \"%02x\"'; "
            "exec 3>&-"
        )
        assert re.fullmatch(r"[0-9a-f\s]*", said), said
        return bytes.fromhex(re.sub(r"\s", "", said))

    def close(self) -> None:
        """Let go of the port."""
        self.socket.close()


def shell_port(path: Path) -> str:
    """A libvirt fragment that gives a client the port of its shell."""
    return (
        "<domain><devices><channel type='unix'>"
        f"<source mode='bind' path='{path}'/><target type='virtio' name='org.devicevm.shell'/>"
        "</channel></devices></domain>"
    )
