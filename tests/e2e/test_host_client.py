"""The host's own devices: e2fsprogs, cmp and /dev/pts on what a device VM serves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from stage import Stage, run

pytestmark = pytest.mark.e2e
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "host.yaml"


def sentence(stage: Stage) -> str:
    """What the GPS receiver says next."""
    with open(stage.folder / "lab.gps", "rb", buffering=0) as port:
        return subprocess.check_output(["head", "-n", "2"], stdin=port, timeout=20).decode().splitlines()[1]


def test_the_host_has_a_disk_a_serial_port_and_randomness(stage: Stage) -> None:
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("there is no FUSE")
    path = stage.folder / "lab.yaml"
    path.write_text(EXAMPLE.read_text().replace("/var/lib/devicevm/", f"{stage.folder}/"))
    stage.devicevm("apply", path)
    assert "steps" not in stage.json("plan", path)
    disk, copy = stage.folder / "lab.disk", stage.folder / "copy"
    source = stage.folder / "source"
    source.write_bytes(os.urandom(256 * 1024))
    run("mkfs.ext4", "-q", "-F", "-b", "4096", disk)
    run("debugfs", "-w", "-R", f"write {source} kept", disk)
    assert sentence(stage).startswith("$GP")
    with open(stage.folder / "lab.random", "rb", buffering=0) as random:
        assert len(set(os.read(random.fileno(), 4096))) > 50

    # The device VM dies. Who reads waits until it is back, and all that was written is there.
    os.kill(stage.process("lab-dvm"), signal.SIGKILL)
    reader = subprocess.Popen(["e2fsck", "-fn", str(disk)], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while stage.virsh("domstate", "lab-dvm").strip() != "shut off":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stage.virsh("start", "lab-dvm")
    said = reader.communicate(timeout=90)[0]
    assert reader.returncode == 0, said
    run("debugfs", "-R", f"dump kept {copy}", disk)
    run("cmp", source, copy)
    assert sentence(stage).startswith("$GP")
    assert {device["state"] for device in stage.json("status")["devices"]} == {"connected"}

    # A part that has died is what `status` tells, and what apply starts.
    os.kill(stage.parts()[0], signal.SIGKILL)
    assert "part stopped" in {device["state"] for device in stage.json("status")["devices"]}
    assert len([step for step in stage.json("plan", path)["steps"] if step["kind"] == "part"]) == 1
    stage.devicevm("apply", path)
    assert {device["state"] for device in stage.json("status")["devices"]} == {"connected"}

    stage.devicevm("destroy", "--yes", path)
    assert sorted(entry.name for entry in stage.folder.glob("lab.*")) == ["lab.img", "lab.yaml"]
    assert str(stage.folder) not in Path("/proc/self/mountinfo").read_text()
    # What the host has written is in the store, as any other tool sees it.
    run("e2fsck", "-fn", stage.folder / "lab.img")
