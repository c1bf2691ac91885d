"""A device VM panics, hangs, or is out of memory while its client works with all that it emulates: its manager has it
back, and the client goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from manager_stage import ManagedStage, managed_stage, until
from manifests import client, disk, entropy, serial, write
from private_libvirtd import why_not
from stage import Shell

pytestmark = pytest.mark.e2e

SILENCE = 6.0
SECONDS = 90.0
# What ends the device VM, as its own root types it, and what `status` tells of it then.
PANIC = "echo c >/proc/sysrq-trigger", "its kernel panicked: sysrq triggered crash"
STARVED = (
    "echo 1000 >/proc/$(pidof nbdkit)/oom_score_adj; tail /dev/zero",
    "web.data: killed by signal 9 while its peer was connected, out of memory",
)
CRASH = "kill -SEGV $(pidof nbdkit)", "web.data: killed by signal 11 while its peer was connected"
HANG = "echo freeze >/sys/power/state", f"it has not answered for {SILENCE:g} s"


@pytest.fixture(scope="module")
def managed(images: None) -> Iterator[ManagedStage]:
    if reason := why_not():
        pytest.skip(reason)
    with managed_stage("--silence", str(SILENCE), "--timeout", "200") as made:
        yield made
        assert (made.domains(), made.device_vms(), made.sockets()) == ([], {}, [])


class Working:
    """A client that writes its disk and reads it back, hears a GPS receiver and draws entropy, and that has, as no
    client should, a root shell in its device VM."""

    def __init__(self, stage: ManagedStage) -> None:
        self.stage = stage
        store = {"file": str(stage.folder / "data.raw")}
        devices = [
            disk("data", "8MiB", store=store),
            entropy(),
            serial(program="nmea", interval=100),
            serial("inside", command=["/bin/sh"]),
        ]
        self.path = write(stage.folder, client("web", *devices, stage=stage, image="test-client", memory="512MiB"))
        stage.devicevm("apply", self.path)
        self.shell = Shell(stage.folder / "web.shell")
        self.booted = self.shell.run("dmesg -c >/dev/null; cat /proc/sys/kernel/random/boot_id")
        self.shell.run(
            "stty -F /dev/ttyS1 raw -echo; (while read -r line; do echo $line >/tmp/position; done </dev/ttyS1) & "
            "stty -F /dev/ttyS2 raw -echo; "
            "(while dd if=/dev/hwrng bs=16 count=1 >/tmp/drawn 2>/dev/null; do mv /tmp/drawn /tmp/entropy; done) & "
        )

    def write_and_read(self, seconds: int) -> None:
        """Begin to write the disk and to read it back."""
        self.shell.run(
            "(fio --rw=randrw --bs=4k --size=8M --direct=1 --ioengine=libaio --iodepth=2 --verify=crc32c "
            f"--verify_fatal=1 --time_based --runtime={seconds} --rate_iops=100 --name=data --filename=/dev/vda "
            ">/tmp/fio 2>&1; echo $? >/tmp/fio.end) & "
        )

    def inside(self, command: str) -> None:
        """Have a shell in the device VM run a command."""
        self.shell.run(f"echo '{command}' >/dev/ttyS2")

    def works(self) -> None:
        """Wait until all that it uses gives it something new."""
        self.shell.run("rm -f /tmp/entropy /tmp/position")
        back = (
            "test -s /tmp/entropy && grep -q '^.GP' /tmp/position && dd if=/dev/vda count=1 iflag=direct of=/dev/null"
        )
        self.shell.run(f'for i in $(seq 300); do {back} && back=1 && break; sleep 0.1; done; test -n "$back"; back=')

    def has_lost_nothing(self) -> None:
        """See that what was written is there, and that nobody in the guest has noticed anything."""
        self.shell.run("for i in $(seq 900); do test -s /tmp/fio.end && break; sleep 0.1; done", timeout=120)
        assert self.shell.run("cat /tmp/fio.end").strip() == "0", self.shell.run("cat /tmp/fio; dmesg | tail -30")
        assert self.shell.run("dmesg | grep -iE 'i/o error|reset' || true").strip() == ""
        assert self.shell.run("cat /proc/sys/kernel/random/boot_id") == self.booted
        assert "No changes" in self.stage.devicevm("plan", self.path).stdout

    def device_vm(self) -> dict[str, Any]:
        """What `status` tells of its device VM."""
        domains = self.stage.json("status")["domains"]
        return next(one for one in domains if one["name"] == "web-dvm")

    def back(self, died: int, words: str) -> None:
        """Wait until the device VM has died so many times, and serves all its devices again."""

        def so() -> bool:
            status = self.stage.json("status")
            detail = next(one.get("detail", "") for one in status["domains"] if one["name"] == "web-dvm")
            times = "it died at" if died == 1 else f"it died {died} times"
            states = {one["state"] for one in status["devices"]}
            return detail.startswith(times) and words in detail and states == {"connected"}

        until(so, SECONDS, lambda: (self.stage.said(), self.stage.json("status")))

    def close(self) -> None:
        self.shell.close()
        self.stage.devicevm("destroy", "--yes", "--delete-data", self.path)


@pytest.fixture
def working(managed: ManagedStage) -> Iterator[Working]:
    made = Working(managed)
    yield made
    made.close()


def test_a_client_goes_on_when_its_device_vm_hangs_panics_or_starves(working: Working) -> None:
    working.write_and_read(25)
    working.works()
    for number, (command, words) in enumerate((HANG, PANIC, STARVED), 1):
        begun = time.monotonic()
        working.inside(command)
        working.back(number, words)
        print(number, words, time.monotonic() - begun, working.device_vm())
        working.works()
        print(number, words, time.monotonic() - begun)
    print(working.stage.said())
    working.has_lost_nothing()
