"""Host parts without a VMM: real processes, and peers that behave as they should not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from hashlib import sha256
from pathlib import Path

import pytest
from devicevm import part as package
from devicevm.errors import DevicevmError
from devicevm.part import lock, log
from devicevm.part import tpm as tpm_relay
from devicevm.part.keeper import Parts
from devicevm.part.pack import packed
from devicevm.part.part import Part
from devicevm.part.tpm import CANCELED, FAILURE
from tpm_peers import (
    BUFFERSIZE,
    CANCEL,
    EXTEND,
    INIT,
    LOCALITY,
    READ_PCR,
    RESPONSE,
    STARTUP,
    STATE_BLOB,
    STOP,
    HereStage,
    Machine,
    Tpm,
    Vmm,
    frame,
    powered_on,
    relaying,
    wrong_in,
)

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sockets have short names."""
    return tmp_path


@pytest.fixture
def part(folder: Path) -> Part:
    """A relay; its device VM's channel is at `channel`."""
    return Part("tpm", "web-tpm", str(folder / "channel"), str(folder / "tpm"))


@pytest.fixture
def parts(folder: Path, part: Part) -> Iterator[Parts]:
    """Nothing is left of a part in the end."""
    made = Parts(folder / "parts")
    yield made
    made.stop(part)
    assert not Path(part.address).exists()
    assert not made.folder.exists()


def pid_of(parts: Parts, part: Part) -> int:
    """The process of a part that runs."""
    held = lock.holder(parts.folder / f"{part.name}.lock")
    assert held
    return held.pid


def runs(pid: int) -> bool:
    """Whether a process does anything; one that has ended may wait for its parent for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_part_runs_until_it_is_stopped(parts: Parts, part: Part) -> None:
    assert not parts.is_running(part)
    parts.start(part)
    pid = pid_of(parts, part)
    parts.start(part)
    assert parts.is_running(part)
    assert pid_of(parts, part) == pid
    assert not parts.is_running(replace(part, channel="/elsewhere"))
    # It is nobody's child, and needs nothing of the process that has started it.
    assert os.getsid(pid) == pid
    parts.stop(part)
    assert not parts.is_running(part)
    assert not runs(pid)
    parts.stop(part)


def test_a_part_that_was_killed_is_started_again(parts: Parts, part: Part) -> None:
    parts.start(part)
    pid = pid_of(parts, part)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while parts.is_running(part) and time.monotonic() < deadline:
        time.sleep(0.01)
    # Its lock and its socket are still there, and nobody's.
    assert not parts.is_running(part)
    assert Path(part.address).is_socket()
    parts.start(part)
    assert parts.is_running(part)
    assert pid_of(parts, part) != pid


def test_another_specification_starts_it_anew(parts: Parts, part: Part) -> None:
    parts.start(part)
    pid = pid_of(parts, part)
    other = replace(part, channel=f"{part.channel}2")
    parts.start(other)
    assert parts.is_running(other)
    assert pid_of(parts, part) != pid


def test_why_a_part_does_not_start(parts: Parts, part: Part, folder: Path) -> None:
    (folder / "tpm").write_text("somebody's")
    with pytest.raises(DevicevmError, match=r"cannot listen at .*: Address already in use"):
        parts.start(part)
    assert not parts.is_running(part)
    assert (folder / "tpm").read_text() == "somebody's"
    (folder / "tpm").unlink()
    with pytest.raises(DevicevmError, match="host part 'radio' is unknown"):
        parts.start(replace(part, kind="radio"))


def test_a_lock_that_names_another_process_ends_nobody(parts: Parts, part: Part) -> None:
    parts.folder.mkdir()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (parts.folder / f"{part.name}.lock").write_text(f'{{"pid": {bystander.pid}, "part": {{}}}}')
        parts.stop(part)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_part_of_another_version_is_ended(parts: Parts, part: Part) -> None:
    parts.start(part)
    pid = pid_of(parts, part)
    path = parts.folder / f"{part.name}.lock"
    note = json.loads(path.read_text())
    path.write_text(json.dumps({**note, "part": {**note["part"], "newer": "field"}}))
    assert not parts.is_running(part)
    parts.start(part)
    assert parts.is_running(part)
    assert not runs(pid)


def test_a_part_whose_lock_does_not_say_who_holds_it_is_waited_for(parts: Parts, part: Part) -> None:
    parts.start(part)
    pid = pid_of(parts, part)
    path = parts.folder / f"{part.name}.lock"
    note = path.read_text()
    path.write_text("")
    with pytest.raises(DevicevmError, match="does not say as which process"):
        parts.stop(part)
    assert path.exists()
    threading.Timer(0.2, path.write_text, (note,)).start()
    parts.stop(part)
    assert not runs(pid)


def test_a_folder_of_another_user_is_refused(part: Part, folder: Path) -> None:
    if os.getuid():
        pytest.skip("only root can give a folder away")
    (folder / "parts").mkdir()
    os.chown(folder / "parts", 65534, 65534)
    with pytest.raises(DevicevmError, match="belongs to another user"):
        Parts(folder / "parts").start(part)


def test_the_program_is_the_same_wherever_it_is_packed(parts: Parts, part: Part, folder: Path) -> None:
    """Also from an archive, as Ansible sends the core."""
    parts.start(part)
    (program,) = parts.folder.glob("*.pyz")
    again = subprocess.run(
        ["python3", "-I", "-c", "import sys; sys.path.insert(0, sys.argv[1]); "
         "from devicevm.part.pack import packed; sys.stdout.buffer.write(packed())", program],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert again != b""
    assert program.read_bytes() == packed()
    # The archive has no version of devicevm, which is no matter to parts.
    assert again == packed()


def test_all_of_the_program_is_imported_by_who_packs_it() -> None:
    """What is not, Ansible does not send."""
    code = (
        "import sys, devicevm.part.keeper; print(*(name for name in sys.modules if name.startswith('devicevm.part.')))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    files = Path(package.__file__ or "").parent.glob("*.py")
    assert {name.rpartition(".")[2] for name in said.split()} == {path.stem for path in files} - {"__init__"}


def test_logs_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for number in range(5000):
        log.write(path, f"line {number}: {'x' * 1000}\n\x1b[31m")
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert log.MAX_LOG // 2 < size < 2 * log.MAX_LOG + 2000
    (last,) = log.tail(path, 1)
    assert "line 4999" in last
    assert "\x1b" not in last
    log.remove(path)
    assert not list(tmp_path.iterdir())


# The TPM's relay.


@pytest.fixture
def relay(part: Part, monkeypatch: pytest.MonkeyPatch) -> Iterator[HereStage]:
    """A relay that waits for nobody long."""
    for name, seconds in (("AWAY_CONTROL", 0.8), ("AWAY_DATA", 0.3), ("SLOW_CONTROL", 0.8), ("SLOW_DATA", 0.3)):
        monkeypatch.setattr(tpm_relay, name, seconds)
    monkeypatch.setattr(tpm_relay, "_RETRY", 0.05)
    with relaying(part) as stage:
        yield stage


@pytest.mark.parametrize(
    "answer",
    [
        frame(b"d", b"\0\0\0\1" + bytes.fromhex("80010000200000000000")),
        frame(b"d", b"\0\0\0\1" + bytes.fromhex("80010000000c00000000")),
        frame(b"d", b"\0\0\0\2" + RESPONSE),
        frame(b"d", b"\0\0\0\1" + bytes.fromhex("80010000110000000000") + bytes(4342)),
        frame(b"d", b""),
        frame(b"c", bytes(4)),
        frame(b"x", bytes(4)),
        b"d\xff\xff",
        frame(b"h", b"something else"),
        b"",
    ],
    ids=[
        "claims more", "claims less", "another's", "too long", "empty", "other kind", "unknown", "frame", "greeting",
        "silence",
    ],
)  # fmt: skip
def test_what_a_hostile_device_vm_says_never_reaches_the_vmm(
    relay: HereStage, part: Part, folder: Path, answer: bytes
) -> None:
    machine = Machine(folder / "channel", wrong_in(b"d", answer))
    vmm = Vmm(part.address)
    vmm.power_on()
    assert vmm.tpm(READ_PCR) == FAILURE
    # And the client's VMM is answered as before.
    assert vmm.ask(STATE_BLOB) == struct.pack(">I", 9)
    vmm.close()
    machine.stop()
    assert any("the device VM is away" in line for line in relay.lines)


@pytest.mark.parametrize("answer", [frame(b"c", b""), frame(b"c", bytes(5)), frame(b"d", bytes(4)), b""])
def test_control_commands_end_whatever_a_hostile_device_vm_says(
    relay: HereStage, part: Part, folder: Path, answer: bytes
) -> None:
    machine = Machine(folder / "channel", wrong_in(b"c", answer))
    vmm = Vmm(part.address)
    begun = time.monotonic()
    assert vmm.ask(INIT, bytes(4)) == struct.pack(">I", 9)
    assert vmm.ask(LOCALITY, bytes(4)) == struct.pack(">I", 9)
    assert len(vmm.ask(BUFFERSIZE, bytes(4))) == 16
    assert time.monotonic() - begun < 10
    vmm.close()
    machine.stop()


def test_without_device_vm_everything_is_answered_in_time(relay: HereStage, part: Part) -> None:
    vmm = Vmm(part.address)
    begun = time.monotonic()
    assert vmm.ask(STOP) == bytes(4)
    assert vmm.ask(INIT, bytes(4)) == struct.pack(">I", 9)
    assert len(vmm.ask(BUFFERSIZE, bytes(4))) == 16
    assert vmm.tpm(READ_PCR) == FAILURE
    assert time.monotonic() - begun < 3
    vmm.close()


def test_only_those_who_may_are_let_in(parts: Parts, part: Part) -> None:
    if os.getuid():
        pytest.skip("only root can become another user")
    Path(part.address).parent.chmod(0o755)
    for above in Path(part.address).parents:
        if above.owner() == "root" and above != Path("/tmp") and above.stat().st_mode & 0o005 != 0o005:
            above.chmod(0o755)
    parts.start(part)
    code = (
        f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({part.address!r}); s.settimeout(5); "
        "s.send(bytes([0, 0, 0, 1])); print(len(s.recv(9)))"
    )

    def asked_by(user: int) -> str:
        done = subprocess.run(["python3", "-c", code], user=user, capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    assert asked_by(65534) != "8"
    assert asked_by(0) == "8"


@pytest.fixture(scope="module")
def tpm_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The device VM's program, as in its image."""
    if not shutil.which("gcc") or not shutil.which("swtpm"):
        pytest.skip("gcc or swtpm is not installed")
    from devicevm.guest.compile import HostToolchain, compile_program

    path = tmp_path_factory.mktemp("program") / "tpm"
    compile_program("tpm", Path(__file__).parents[2] / "plugin/guest", path, HostToolchain())
    return path


@pytest.fixture
def tpm(folder: Path, tpm_program: Path) -> Iterator[Tpm]:
    """A device VM with a TPM; the test stops it."""
    made = Tpm(folder, tpm_program)
    yield made
    for process in made.running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_real_tpm_goes_on_after_its_device_vm_has_died(parts: Parts, part: Part, tpm: Tpm) -> None:
    parts.start(part)
    vmm = powered_on(part)
    zero = vmm.tpm(READ_PCR)
    assert vmm.tpm(EXTEND)[6:10] == bytes(4)
    extended = vmm.tpm(READ_PCR)
    # Part of a response is a counter of updates; the register's value comes last.
    assert extended[-32:] != zero[-32:]
    for count in range(3):
        tpm.kill()
        assert vmm.tpm(READ_PCR) == extended, count
    # Power off and on: the registers start again, as they must.
    assert vmm.ask(STOP) == bytes(4)
    vmm.power_on()
    assert vmm.tpm(STARTUP) == RESPONSE
    tpm.kill()
    assert vmm.tpm(READ_PCR)[-32:] == zero[-32:]
    vmm.close()
    vmm = powered_on(part)
    assert vmm.tpm(READ_PCR)[-32:] == zero[-32:]
    vmm.close()


def test_what_is_cancelled_is_not_done_later(
    part: Part, relay: HereStage, tpm: Tpm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWAY_DATA", "SLOW_DATA", "SLOW_CONTROL"):
        monkeypatch.setattr(tpm_relay, name, 20.0)
    vmm = powered_on(part)
    zero = vmm.tpm(READ_PCR)
    (folder / "channel").rename(folder / "away")
    tpm.kill()
    deadline = time.monotonic() + 5
    while not any("away" in line for line in relay.lines) and time.monotonic() < deadline:
        time.sleep(0.01)
    vmm.data.sendall(EXTEND)
    assert vmm.ask(CANCEL) == bytes(4)
    assert vmm.data.recv(100) == CANCELED
    (folder / "away").rename(folder / "channel")
    assert vmm.tpm(READ_PCR) == zero
    vmm.close()


def test_no_command_is_done_twice_or_lost(parts: Parts, part: Part, tpm: Tpm) -> None:
    """Killed again and again in the middle of extending a register, which would show it."""
    parts.start(part)
    vmm = powered_on(part)
    done = 0
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.15):
            tpm.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert vmm.tpm(EXTEND)[6:10] == bytes(4)
            done += 1
    finally:
        stop.set()
        killer.join()
    found = vmm.tpm(READ_PCR)[-32:]
    vmm.close()

    wanted = reduce(lambda value, more: sha256(value + more).digest(), [b"\1" * 32] * done, bytes(32))
    assert done > 5
    assert len(tpm.running) > 5
    assert found == wanted


def test_a_tpm_that_has_lost_its_memory_fails_until_the_client_is_reset(
    parts: Parts, part: Part, tpm: Tpm, folder: Path
) -> None:
    parts.start(part)
    vmm = powered_on(part)
    (folder / "backing").write_bytes(bytes(1 << 20))
    tpm.kill()
    assert vmm.tpm(READ_PCR) == FAILURE
    assert vmm.tpm(STARTUP) == FAILURE
    assert vmm.ask(STOP) == bytes(4)
    vmm.power_on()
    assert vmm.tpm(STARTUP) == RESPONSE
    vmm.close()


def started_on(tpm_program: Path, backing: Path) -> subprocess.CompletedProcess[bytes]:
    """The device VM's program, whose peer has left before it has begun."""
    environment = {"TMPDIR": str(backing.parent), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [tpm_program, backing], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False, env=environment
    )


@pytest.mark.parametrize("place", [0, 511, 1024, MIB - 1, MIB, 3 * MIB, 4 * MIB - 1])
def test_a_backing_with_something_else_is_left_alone(tpm_program: Path, folder: Path, place: int) -> None:
    backing = folder / "backing"
    before = (bytes(place) + b"x").ljust(4 * MIB, b"\0")
    backing.write_bytes(before)
    done = started_on(tpm_program, backing)
    assert done.returncode == 1
    assert b"something else" in done.stderr
    assert backing.read_bytes() == before


def test_a_file_system_does_not_become_a_tpm(tpm_program: Path, folder: Path) -> None:
    """Its first kilobyte is empty: it is the boot loader's."""
    backing = folder / "backing"
    backing.write_bytes(bytes(MIB))
    subprocess.run(["/sbin/mke2fs", "-q", "-F", backing], check=True, timeout=60)
    assert started_on(tpm_program, backing).returncode == 1
    assert (
        subprocess.run(["/sbin/e2fsck", "-fn", backing], capture_output=True, check=False, timeout=60).returncode == 0
    )


def test_a_first_writing_that_was_torn_is_no_foreign_data(parts: Parts, part: Part, tpm: Tpm, folder: Path) -> None:
    """Of what was being written when all went dark, any sectors may be there."""
    backing = folder / "backing"
    parts.start(part)
    vmm = Vmm(part.address)
    vmm.close()
    deadline = time.monotonic() + 10
    first = MIB // 2
    while not (claimed := backing.read_bytes()).startswith(b"devicevm-tpm", first) and time.monotonic() < deadline:
        time.sleep(0.01)
    tpm.kill()
    torn = bytearray(claimed)
    torn[first + 4096 : first + 4608] = b"x" * 512
    backing.write_bytes(torn)
    powered_on(part).close()
