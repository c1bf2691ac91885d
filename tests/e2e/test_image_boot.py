"""The base image in a real guest, straight under QEMU: agent, emulators, control port, probes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from devicevm.errors import DevicevmError
from devicevm.guest.boot_config import boot_config
from devicevm.guest.control import Control, DeviceState, DeviceStatus
from devicevm.guest.probe import probe_bytes, probe_egd, probe_nbd, probe_nmea
from devicevm.guest.store import ImageStore, default_store

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(180)]

BOOT = 60.0  # seconds; a machine with two cores may be busy with other guests
PAUSE = 0.05  # seconds between two peers of one channel
SIZE = 16 << 20
DISK = ["/bin/sh", "-c", f"truncate -s {SIZE} /run/disk && exec nbdkit -s file /run/disk"]
DEVICES: list[dict[str, Any]] = [
    {"name": "disk", "command": DISK, "onExit": "restart"},
    {"name": "rng", "command": ["/usr/lib/devicevm/egd"]},
    {"name": "gps", "command": ["/usr/lib/devicevm/nmea"]},
    {"name": "script", "command": ["/bin/sh", "-c", 'while read line; do echo "got $line"; done']},
    {"name": "fatal", "command": ["/usr/lib/devicevm/echo"], "onExit": "poweroff"},
    {"name": "broken", "command": ["/no/such/program"]},
    {
        "name": "backed",
        "command": ["/bin/sh", "-c", "nbdkit -s file $(readlink /dev/backing/BACK1)"],
        "backing": "BACK1",
    },
    {
        "name": "sealed",
        "command": ["/bin/sh", "-c", "while read -r x; do cat /run/secrets/BOOT; done"],
        "secrets": {"BOOT": None},
    },
    {"name": "stuck", "command": ["/bin/sh", "-c", 'while read line; do echo "got $line"; kill -STOP $$; done']},
]
SECRET = b"of the host's fw_cfg\n"
PORTS = [*(str(device["name"]) for device in DEVICES), "spare"]


@dataclass
class Guest:
    folder: Path
    process: subprocess.Popen[bytes]

    def socket(self, port: str) -> str:
        return str(self.folder / port)

    def control(self) -> Control:
        return Control(self.socket("org.devicevm.control"), timeout=BOOT)

    @contextlib.contextmanager
    def monitor(self) -> Iterator[Callable[[str], None]]:
        """QEMU's own control: a function that runs one of its commands."""
        with connected(str(self.folder / "monitor")) as peer, peer.makefile("rw") as lines:

            def run(command: str) -> None:
                lines.write(json.dumps({"execute": command}))
                lines.flush()
                while "return" not in json.loads(lines.readline()):
                    pass

            run("qmp_capabilities")
            yield run

    def device(self, control: Control, name: str) -> DeviceStatus:
        return next(device for device in control.status().devices if device.name == name)

    def wait_for(self, control: Control, name: str, *states: DeviceState, timeout: float = BOOT) -> DeviceStatus:
        deadline = time.monotonic() + timeout
        while (found := self.device(control, name)).state not in states:
            assert time.monotonic() < deadline, f"{name} is {found.state}: {control.log(20)}"
            time.sleep(0.05)
        return found


def qemu_command(folder: Path) -> list[str]:
    store = ImageStore(default_store())
    image = store.current("base")
    command = [
        *("qemu-system-x86_64", "-machine", "pc", "-no-acpi", "-accel", "tcg", "-cpu", "qemu64,+rdrand", "-m", "128"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-bios", "/usr/share/qemu/qboot.rom"),
        *("-kernel", str(store.kernel(image)), "-initrd", str(store.initramfs(image)), "-append", image.command_line),
        *("-chardev", f"file,id=console,path={folder}/console", "-device", "isa-serial,chardev=console"),
        *("-fw_cfg", f"name=opt/org.devicevm/config,file={folder}/config", "-device", "virtio-serial-pci"),
        *("-fw_cfg", f"name=opt/org.devicevm/secret/BOOT,file={folder}/secret"),
        *("-drive", f"if=none,id=back,format=raw,file={folder}/backing", "-device", "virtio-scsi-pci"),
        *("-device", "scsi-hd,drive=back,serial=BACK1", "-qmp", f"unix:{folder}/monitor,server=on,wait=off"),
    ]
    for number, port in enumerate(["org.devicevm.control", *PORTS]):
        command += ["-chardev", f"socket,id=c{number},path={folder}/{port},server=on,wait=off"]
        command += ["-device", f"virtserialport,chardev=c{number},name={port}"]
    return command


@contextlib.contextmanager
def booted(devices: list[dict[str, Any]]) -> Iterator[Guest]:
    """A guest of the test's own, which is gone afterwards whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="dvm-", dir="/tmp"))
    (folder / "config").write_text(boot_config(devices))
    (folder / "backing").write_bytes(bytes(4 << 20))
    (folder / "secret").write_bytes(SECRET)
    process = subprocess.Popen(qemu_command(folder), stdin=subprocess.DEVNULL)
    try:
        yield Guest(folder, process)
    except BaseException:
        print(
            (folder / "console").read_text(errors="replace")[-4000:] if (folder / "console").exists() else "no console"
        )
        raise
    finally:
        process.kill()
        process.wait(10)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def guest(images: None) -> Iterator[Guest]:
    with booted(DEVICES) as made, made.control() as control:
        for device in DEVICES:
            good = [DeviceState.FAILED] if device["name"] == "broken" else [DeviceState.RUNNING, DeviceState.WAITING]
            made.wait_for(control, device["name"], *good)
        control.close()
        yield made


def connected(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(20)
    peer.connect(path)
    return peer


@pytest.fixture(scope="module")
def stuck(guest: Guest) -> Iterator[socket.socket]:
    """The peer of a program that has been stopped. It takes half a minute until that is noticed: others use it."""
    with connected(guest.socket("stuck")) as peer, guest.control() as control:
        peer.sendall(b"one\n")
        assert peer.recv(100) == b"got one\n"
        guest.wait_for(control, "stuck", DeviceState.RUNNING)
        control.close()
        yield peer


def test_status(guest: Guest, stuck: socket.socket) -> None:
    with guest.control() as control:
        status = control.status()
        assert {device.name: device.state.value for device in status.devices} == {
            "disk": "running",
            "rng": "running",
            "gps": "running",
            "script": "waiting",  # ends when nobody is there, so that it is started for each peer
            "fatal": "running",
            "broken": "failed",
            "backed": "running",
            "sealed": "waiting",
            "stuck": "running",
        }
        assert 0 < status.memory_available < 128 << 20
        assert any("/no/such/program" in line for line in control.log(200))


def test_probes(guest: Guest) -> None:
    for _ in range(3):
        assert probe_nbd(guest.socket("disk"), 20) == SIZE
        assert len(probe_egd(guest.socket("rng"), 20)) == 16
        assert probe_nmea(guest.socket("gps"), 20).startswith("GP")
        assert probe_bytes(guest.socket("script"), 20, send=b"hello\n", pattern=rb"got hello\n")
        time.sleep(PAUSE)
    assert probe_nbd(guest.socket("backed"), 20) == 4 << 20


def test_data(guest: Guest) -> None:
    if not shutil.which("nbdcopy"):
        pytest.skip("nbdcopy (libnbd-bin) is not installed")
    there, back = guest.folder / "there", guest.folder / "back"
    there.write_bytes(os.urandom(SIZE))
    uri = f"nbd+unix:///?socket={guest.socket('disk')}"
    for source, target in ((str(there), uri), (uri, str(back))):
        time.sleep(PAUSE)
        subprocess.run(["nbdcopy", "--connections=1", source, target], check=True, timeout=60)
    assert there.read_bytes() == back.read_bytes()
    time.sleep(PAUSE)


def restarts_after(guest: Guest, before: int) -> int:
    """How often the disk's emulator was started anew, once that is more often than before and it waits for a peer.

    On a busy host the agent may take longer than any fixed pause to see that a peer is gone.
    """
    with guest.control() as control:
        deadline = time.monotonic() + 20
        while (device := guest.device(control, "disk")).restarts <= before or device.connected:
            assert time.monotonic() < deadline
            time.sleep(PAUSE)
        return guest.wait_for(control, "disk", DeviceState.RUNNING).restarts


def test_peer_that_leaves_in_mid_answer(guest: Guest) -> None:
    """The next peer gets a greeting, not the rest of an answer to the last."""
    request = b"\x25\x60\x95\x13" + bytes(3) + b"\0" + bytes(8) + bytes(8) + (1 << 20).to_bytes(4, "big")
    # The last test's peer may have left a moment ago: what it leads to must not be taken for what this one's do.
    time.sleep(1)
    with guest.control() as control:
        restarts = guest.device(control, "disk").restarts
    for _ in range(3):
        with connected(guest.socket("disk")) as peer:
            while len(peer.recv(18, socket.MSG_PEEK)) < 18:
                pass
            # NBD_OPT_EXPORT_NAME, then reads of 1 MiB that nobody takes
            peer.sendall(b"\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\0" + request * 4)
            time.sleep(0.3)
        restarts = restarts_after(guest, restarts)
        assert probe_nbd(guest.socket("disk"), 20) == SIZE
        restarts = restarts_after(guest, restarts)


def test_a_peer_that_comes_unseen_gets_a_program_of_its_own(guest: Guest) -> None:
    """The guest stands still while one peer leaves and the next, which waited behind it, comes: nothing in the guest
    can see it. Who knows it asks for a restart."""
    with guest.control() as control, guest.monitor() as monitor:
        control.add({"name": "spare", "command": ["/bin/sh", "-c", 'while read -r x; do echo "$x $$"; done']})
        guest.wait_for(control, "spare", DeviceState.RUNNING, DeviceState.WAITING)
        with connected(guest.socket("spare")) as first, connected(guest.socket("spare")) as second:
            first.sendall(b"a\n")
            program = first.makefile().readline().split()[1]
            monitor("stop")
            first.close()
            time.sleep(0.5)
            monitor("cont")
            before = guest.device(control, "spare").restarts
            control.restart("spare")
            deadline = time.monotonic() + BOOT
            while (found := guest.device(control, "spare")).restarts <= before or not found.serving:
                assert time.monotonic() < deadline, found
                time.sleep(PAUSE)
            second.sendall(b"b\n")
            assert second.makefile().readline().split() == ["b", str(found.pid)]
            assert str(found.pid) != program
        with pytest.raises(DevicevmError, match="no such device"):
            control.restart("nobody")
        control.remove("spare")


def test_processor(guest: Guest) -> None:
    """What QEMU was told to emulate is there (`-cpu qemu64,+rdrand`), and what it was not is not."""
    with guest.control() as control:
        assert control.status().arch == "x86_64"
        found = control.cpu()
    assert found.arch == "x86_64"
    assert {"sse2", "rdrand"} <= set(found.flags)
    assert not {"avx512f", "asimd"} & set(found.flags)


def test_add_replace_remove(guest: Guest) -> None:
    with guest.control() as control:
        echo = {"name": "spare", "command": ["/usr/lib/devicevm/echo"]}
        control.add(echo)
        first = guest.wait_for(control, "spare", DeviceState.RUNNING)
        control.add(echo)
        assert guest.device(control, "spare").pid == first.pid
        assert probe_bytes(guest.socket("spare"), 20, send=b"abc", pattern=b"abc") == b"abc"
        control.add({"name": "spare", "command": ["/usr/lib/devicevm/nmea", "-p", "1,2"]})
        assert "0100.0000,N,00200.0000,E" in probe_nmea(guest.socket("spare"), 20)
        control.remove("spare")
        control.remove("spare")
        assert "spare" not in {device.name for device in control.status().devices}


def test_secrets(guest: Guest) -> None:
    """One that was there at the start, and one that comes with a device, which goes with it."""
    assert probe_bytes(guest.socket("sealed"), 20, send=b"\n", pattern=rb"\n") == SECRET
    show = "while read -r x; do cat /run/secrets/LIVE; stat -c %a /run/secrets/LIVE; done"
    with guest.control() as control:
        device = {"name": "spare", "command": ["/bin/sh", "-c", show]}
        control.add({**device, "secrets": {"LIVE": base64.b64encode(b"x" * 4096).decode()}})
        guest.wait_for(control, "spare", DeviceState.RUNNING, DeviceState.WAITING)
        assert probe_bytes(guest.socket("spare"), 20, send=b"\n", pattern=rb"\n") == b"x" * 4096 + b"400\n"
        for wrong in (b"", b"x" * 4097):
            with pytest.raises(DevicevmError, match="secret LIVE: none, or more than 4096 bytes"):
                control.add({**device, "secrets": {"LIVE": base64.b64encode(wrong).decode()}})
        control.remove("spare")
        control.add({"name": "spare", "command": ["/bin/sh", "-c", "while read -r x; do ls /run/secrets; done"]})
        guest.wait_for(control, "spare", DeviceState.RUNNING, DeviceState.WAITING)
        assert probe_bytes(guest.socket("spare"), 20, send=b"\n", pattern=rb"\n") == b"BOOT\n"
        control.remove("spare")
        assert not any("xxxx" in line for line in control.log(200))


def test_a_program_without_a_port_says_itself_that_it_is_ready(guest: Guest) -> None:
    waits = "while [ ! -e /run/go ]; do sleep 0.05; done"
    script = f'trap "echo left; exit 0" TERM; {waits}; echo here; : >"$READY"; while :; do sleep 1; done'
    with guest.control() as control:
        control.add({"name": "alone", "port": None, "command": ["/bin/sh", "-c", script]})
        # Another without a port takes nothing from it.
        control.add({"name": "short", "port": None, "command": ["/bin/sh", "-c", "exit 0"]})
        guest.wait_for(control, "short", DeviceState.FAILED)
        found = guest.device(control, "alone")
        assert (found.state, found.connected) == (DeviceState.STARTING, False) and found.pid
        control.add({"name": "short", "port": None, "command": ["/bin/sh", "-c", ": >/run/go; exec sleep 1000"]})
        found = guest.wait_for(control, "alone", DeviceState.RUNNING)
        assert (found.restarts, found.serving) == (0, False)
        control.remove("short")
        control.remove("alone")
        assert {"alone: here", "alone: left"} <= set(control.log(50))


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ({"name": "x"}, "command is missing"),
        ({"name": "../x", "command": ["y"]}, "name: "),
        ({"name": "x", "command": "y"}, "command: "),
        ({"name": "x", "command": ["y"], "port": "disk"}, "port disk is taken by device disk"),
        ({"name": "x", "command": ["y"], "mode": 1}, "mode: unknown key"),
        ({"name": "x", "command": ["y"], "onExit": "shrug"}, "onExit: "),
        ({"name": "x", "command": ["y"], "base": "../x"}, "base: "),
        ({"name": "x", "command": ["y"], "secrets": {"../x": None}}, "secrets: "),
        ({"name": "x", "command": ["y"], "secrets": {"NONE": None}}, "secret NONE: none"),
    ],
)
def test_wrong_device(guest: Guest, device: dict[str, Any], reason: str) -> None:
    with guest.control() as control, pytest.raises(DevicevmError, match=re.escape(reason)):
        control.add(device)


def test_nonsense_on_the_control_port(guest: Guest) -> None:
    junk = [b"{\n", b"[]\n", b"x" * 70000 + b"\n", b"\xff\n", b"[" * 60000 + b"\n", b'{"id":1,"op":"nope"}\n']
    with connected(guest.socket("org.devicevm.control")) as peer:
        for line in junk:
            peer.sendall(line)
            reply = peer.makefile("rb").readline()
            assert json.loads(reply)["ok"] is False
        peer.sendall(b'{"id": 5, "op": "sta')  # and gone
    time.sleep(PAUSE)
    with guest.control() as control:
        assert control.status().devices


def test_killed_emulator_restarts(guest: Guest) -> None:
    with guest.control() as control, connected(guest.socket("disk")) as peer:
        assert peer.recv(8) == b"NBDMAGIC"
        before = guest.device(control, "disk")
        control.add({"name": "spare", "command": ["/bin/sh", "-c", f"kill -9 {before.pid}; exec sleep 1000"]})
        deadline = time.monotonic() + 20
        while (after := guest.device(control, "disk")).pid in (0, before.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert after.restarts == before.restarts + 1
        control.remove("spare")


@pytest.mark.parametrize("how", ["killed emulator", "asked"])
def test_power_off(images: None, how: str) -> None:
    fatal = next(device for device in DEVICES if device["name"] == "fatal")
    with booted([fatal]) as guest, guest.control() as control:
        victim = guest.wait_for(control, "fatal", DeviceState.RUNNING)
        with connected(guest.socket("fatal")) as peer:
            peer.sendall(b"x")
            assert peer.recv(1) == b"x"
            if how == "asked":
                control.poweroff()
            else:
                control.add({"name": "spare", "command": ["/bin/sh", "-c", f"kill -9 {victim.pid}; exec sleep 1000"]})
            assert guest.process.wait(20) == 0
        console = (guest.folder / "console").read_text(errors="replace")
        assert ("power off asked for" if how == "asked" else "fatal: powering off") in console


# Each boots a guest: the rest is for those who wait.
ODD = [pytest.param(config, marks=pytest.mark.long) for config in ("", "e30=x", "e30", "!", '{"devices": 5}')]


@pytest.mark.parametrize("config", ["{", '{"devices": [{"name": "x"}]}', '{"extra": 1}', *ODD])
def test_wrong_configuration(images: None, config: str) -> None:
    with booted([]) as guest:
        # QEMU reads the file as it starts: give it another one.
        guest.process.kill()
        guest.process.wait(10)
        (guest.folder / "config").write_text(config)
        for path in guest.folder.glob("*"):
            if path.is_socket():
                path.unlink()
        guest.process = subprocess.Popen(qemu_command(guest.folder), stdin=subprocess.DEVNULL)
        try:
            with guest.control() as control:
                status = control.status()
                assert "opt/org.devicevm/config" in status.config_problem
                assert not status.ready
        finally:
            guest.process.kill()
            guest.process.wait(10)


def test_a_program_that_hangs_is_ended_and_its_peer_has_the_next_one(guest: Guest, stuck: socket.socket) -> None:
    # Last, since others have taken their time by now.
    with guest.control() as control:
        deadline = time.monotonic() + BOOT
        killed = "stuck: killed by signal 9 while its peer was connected"
        # What comes before the next one is there goes with the port of the last.
        while not (any(killed in line for line in control.log(100)) and guest.device(control, "stuck").serving):
            assert time.monotonic() < deadline, control.status()
            time.sleep(0.2)
        stuck.sendall(b"two\n")
        assert stuck.recv(100) == b"got two\n"
        hung = {line for line in control.log(500) if "it hangs" in line}
        assert hung and all("stuck" in line for line in hung), "nobody else is taken for one that hangs"
