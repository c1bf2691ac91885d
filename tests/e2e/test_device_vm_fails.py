"""What may befall a client and its device VM: a device VM that hangs, panics or has no memory left, an emulator that
crashes, a client that is reset or killed, and a reboot of the host. What was written is always there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import yaml
from conformance.guests import tiny_kernel
from manager_stage import CLIENT, ECHO, ManagedStage, managed_stage
from manifests import client, disk, entropy, serial, write
from private_libvirtd import why_not
from stage import Shell, Stage, until

pytestmark = pytest.mark.e2e

SILENCE = 6.0
OPTIONS = ("--silence", str(SILENCE), "--timeout", "200")
SECONDS = 90.0
# What ends the device VM, as its own root types it, and what `status` tells of it then.
PANIC = "echo c >/proc/sysrq-trigger", "its kernel panicked: sysrq triggered crash"
STARVED = (
    "echo 1000 >/proc/$(pidof nbdkit)/oom_score_adj; tail /dev/zero",
    "web.data: killed by signal 9 while its peer was connected, out of memory",
)
CRASH = "kill -SEGV $(pidof nbdkit)", "web.data: killed by signal 11 while its peer was connected"
HANG = "echo freeze >/sys/power/state", f"it has not answered for {SILENCE:g} s"
STOPPED = "", HANG[1]
# Piece after piece, each counted once it was acknowledged.
WRITE = (
    "n=0; while test ! -e /tmp/enough && test $n -lt 256; do "
    "dd if=/tmp/data of=/dev/vda bs=4k count=4 skip=$((n * 4)) seek=$((n * 4)) oflag=direct || exit 1; "
    "n=$((n + 1)); echo $n >/tmp/written; done"
)


@pytest.fixture(scope="module")
def managed(images: None) -> Iterator[ManagedStage]:
    if reason := why_not():
        pytest.skip(reason)
    with managed_stage(*OPTIONS) as made:
        yield made
        assert (made.domains(), made.device_vms(), made.sockets()) == ([], {}, [])
        assert made.virsh("list", "--all", "--autostart", "--name").split() == []


class Working:
    """A client that writes its disk and reads it back, hears a GPS receiver and draws entropy, and that has, as no
    client should, a root shell in its device VM."""

    def __init__(self, stage: ManagedStage, image: str) -> None:
        self.stage = stage
        store = {"file": str(stage.folder / "data.raw")}
        devices = [
            disk("data", "8MiB", store=store),
            entropy(),
            serial(program="nmea", interval=100),
            serial("inside", command=["/bin/sh"]),
        ]
        memory = "512MiB" if image == "test-client" else "256MiB"
        self.path = write(stage.folder, client("web", *devices, stage=stage, image=image, memory=memory))
        stage.devicevm("apply", self.path)
        self.shell = Shell(stage.folder / "web.shell")
        self.booted = self.shell.run("cat /proc/sys/kernel/random/boot_id")
        self.listen()

    def listen(self) -> None:
        """Hear the receiver and draw entropy from now on."""
        self.shell.run(
            "dmesg -c >/dev/null; "
            "stty -F /dev/ttyS1 raw -echo; (while read -r line; do echo $line >/tmp/position; done </dev/ttyS1) & "
            "stty -F /dev/ttyS2 raw -echo; "
            "(while dd if=/dev/hwrng bs=16 count=1 >/tmp/drawn 2>/dev/null; do mv /tmp/drawn /tmp/entropy; done) & "
        )

    def begin(self, job: str) -> None:
        """Begin to use the disk, and be in the midst of it."""
        self.shell.run(f"rm -f /tmp/end; ({job}; echo $? >/tmp/end) >/tmp/job 2>&1 & sleep 0.2; test ! -s /tmp/end")

    def inside(self, command: str) -> None:
        """Have a shell in the device VM run a command."""
        self.shell.run(f"echo '{command}' >/dev/ttyS2")

    def works(self) -> None:
        """Wait until all that it uses gives it something new."""
        self.shell.run("rm -f /tmp/entropy /tmp/position")
        read = "dd if=/dev/vda of=/dev/null count=1 iflag=direct"
        back = f"test -s /tmp/entropy && grep -q '^.GP' /tmp/position && {read}"
        self.shell.run(f'for i in $(seq 300); do {back} && back=1 && break; sleep 0.1; done; test -n "$back"; back=')

    def has_noticed_nothing(self) -> None:
        """See that what it does with its disk ends well, and that nobody in the guest has seen anything."""
        self.shell.run("for i in $(seq 900); do test -s /tmp/end && break; sleep 0.1; done", timeout=120)
        assert self.shell.run("cat /tmp/end").strip() == "0", self.shell.run("cat /tmp/job; dmesg | tail -30")
        assert self.shell.run("dmesg | grep -iE 'i/o error|reset' || true").strip() == ""
        assert self.shell.run("cat /proc/sys/kernel/random/boot_id") == self.booted

    def back(self, words: str) -> None:
        """Wait until the device VM has died of this, and serves all its devices again."""

        def so() -> bool:
            status = self.stage.json("status")
            detail = next(one.get("detail", "") for one in status["domains"] if one["name"] == "web-dvm")
            return detail.endswith(words) and {one["state"] for one in status["devices"]} == {"connected"}

        until(so, SECONDS, lambda: (self.stage.said(), self.stage.json("status")))

    def boots_again(self) -> None:
        """Use the shell of the next boot, once that is there."""
        self.shell.close()
        self.shell = Shell(self.stage.folder / "web.shell")

        def answers() -> bool:
            # What is said before the guest has opened its port may be lost.
            try:
                return bool(self.shell.run("echo here", timeout=15))
            except TimeoutError:
                return False

        until(answers, SECONDS, lambda: (self.stage.said(), self.stage.json("status")))
        again = self.shell.run("cat /proc/sys/kernel/random/boot_id")
        assert again != self.booted
        self.booted = again
        self.listen()

    def remember(self) -> str:
        """Write something new; the checksum of what is there once that was acknowledged."""
        self.shell.run("dd if=/dev/urandom of=/dev/vda bs=64k count=16 oflag=direct 2>/dev/null")
        return self.checksum()

    def checksum(self) -> str:
        """Of what the client finds on its disk."""
        return self.shell.run("dd if=/dev/vda bs=64k count=16 iflag=direct 2>/dev/null | sha256sum")

    def close(self) -> None:
        self.shell.close()
        self.stage.devicevm("destroy", "--yes", "--delete-data", self.path)


@pytest.fixture(scope="module")
def working(managed: ManagedStage) -> Iterator[Working]:
    made = Working(managed, "client")
    yield made
    made.close()


@pytest.mark.parametrize(("command", "words"), [HANG, PANIC, STARVED], ids=["hang", "panic", "memory"])
def test_a_client_goes_on_when_its_device_vm_does_not(working: Working, command: str, words: str) -> None:
    working.shell.run("dd if=/dev/urandom of=/tmp/data bs=16k count=256 2>/dev/null; rm -f /tmp/enough")
    working.begin(WRITE)
    working.inside(command)
    working.back(words)
    working.works()
    working.shell.run("touch /tmp/enough")
    working.has_noticed_nothing()
    working.shell.run(
        "dd if=/dev/vda of=/tmp/read bs=16k count=$(cat /tmp/written) iflag=direct 2>/dev/null; "
        "dd if=/tmp/data bs=16k count=$(cat /tmp/written) 2>/dev/null | cmp - /tmp/read"
    )
    assert "No changes" in working.stage.devicevm("plan", working.path).stdout


def test_an_emulator_that_crashes_alone_is_started_anew_beside_the_others(working: Working) -> None:
    def since() -> dict[str, datetime]:
        devices = working.stage.json("status")["devices"]
        return {one["device"]: datetime.strptime(one["since"], "%Y-%m-%dT%H:%M:%SZ") for one in devices}

    before, connected = working.stage.device_vms(), since()
    working.inside("kill -SEGV $(pidof nmea)")
    working.works()
    devices = {one["device"]: one for one in working.stage.json("status")["devices"]}
    assert {name: one.get("restarts", 0) for name, one in devices.items()}["gps"] == 1
    assert {one["state"] for one in devices.values()} == {"connected"}
    assert working.stage.device_vms() == before
    # The guest's clock and the host's are not one: whole seconds may differ by one and one.
    again, about = since(), timedelta(seconds=2)
    assert again["gps"] > connected["gps"] and abs(again["data"] - connected["data"]) <= about


def test_a_client_that_is_reset_finds_all_as_it_was(working: Working) -> None:
    before, written = working.stage.device_vms(), working.remember()
    working.stage.virsh("reset", "web")
    working.boots_again()
    assert working.checksum() == written
    working.works()
    assert working.stage.device_vms() == before


@pytest.mark.long
def test_a_client_that_is_killed_is_started_by_apply_and_its_device_vm_stays(working: Working) -> None:
    before, written = working.stage.device_vms(), working.remember()
    working.stage.kill("web")
    assert {one["state"] for one in working.stage.json("status")["devices"]} == {"ready"}
    assert [step["id"] for step in working.stage.json("plan", working.path)["steps"]] == ["start/client/web"]
    working.stage.devicevm("apply", working.path)
    working.boots_again()
    assert working.checksum() == written
    working.works()
    assert working.stage.device_vms() == before


def test_after_a_reboot_of_the_host_what_starts_with_it_is_up_with_its_devices(working: Working) -> None:
    stage = working.stage
    declared = yaml.safe_load(working.path.read_text())
    declared["spec"]["vm"]["autostart"] = True
    write(stage.folder, declared)
    steps = stage.json("plan", working.path)["steps"]
    assert [(step["id"], step["effect"]) for step in steps] == [("update/client/web", "live")]
    stage.devicevm("apply", working.path)
    stage.virsh("autostart", "--disable", "web")
    (step,) = stage.json("plan", working.path)["steps"]
    assert (step["id"], step["reason"]) == ("define/client/web", "autostart is off, declared on")
    stage.devicevm("apply", working.path)

    written = working.remember()
    stage.reboot_host(*OPTIONS)
    until(lambda: "running" in stage.try_virsh("domstate", "web")[1], SECONDS, stage.said)
    working.boots_again()
    assert working.checksum() == written
    working.works()
    assert "No changes" in stage.devicevm("plan", working.path).stdout


def test_without_a_manager_one_apply_brings_all_back_after_a_reboot_of_the_host(stage: Stage) -> None:
    kernel, store = stage.folder / "kernel", stage.folder / "data.raw"
    kernel.write_bytes(tiny_kernel())
    kernel.chmod(0o644)
    store.write_bytes(os.urandom(65536))
    store.chmod(0o666)
    kept = store.read_bytes()
    data = f"{{name: data, class: disk, parameters: {{size: 64KiB, store: {{file: {store}}}}}}}"
    path = stage.folder / "web.yaml"
    path.write_text((CLIENT % ("web", kernel, f"{data}, {ECHO}")).replace("start: request, ", ""))
    stage.devicevm("apply", path)
    stage.crash_host()
    stage.start_libvirtd()
    states = {one["name"]: one["state"] for one in stage.json("status")["domains"]}
    assert states == {"web": "stopped", "web-dvm": "stopped"}
    stage.devicevm("apply", path)
    assert {one["state"] for one in stage.json("status")["devices"]} == {"connected"}
    assert store.read_bytes() == kept
    assert "No changes" in stage.devicevm("plan", path).stdout
    stage.devicevm("destroy", "--yes", path)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_client_goes_on_time_and_again(managed: ManagedStage) -> None:
    made = Working(managed, "test-client")
    # Verified by fio itself: all that was written before, in the midst of it, and since.
    fio = (
        "fio --rw=randrw --bs=4k --size=8M --direct=1 --ioengine=libaio --iodepth=2 --verify=crc32c --verify_fatal=1 "
        "--time_based --runtime=25 --rate_iops=100 --name=data --filename=/dev/vda"
    )
    for _turn in range(3):
        for command, words in (PANIC, CRASH, STARVED, HANG, STOPPED):
            made.begin(fio)
            if command:
                made.inside(command)
            else:
                os.kill(managed.device_vms()["web-dvm"], signal.SIGSTOP)
            made.back(words)
            made.works()
            made.has_noticed_nothing()
    made.close()
