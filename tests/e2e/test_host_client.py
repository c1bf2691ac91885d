"""The host's own devices: e2fsprogs, cmp and /dev/pts on what a device VM serves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from loop_mounts import why_nothing_is_mounted
from stage import Stage, run

pytestmark = pytest.mark.e2e
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def sentence(stage: Stage) -> str:
    """What the GPS receiver says next."""
    with open(stage.folder / "lab.gps", "rb", buffering=0) as port:
        return subprocess.check_output(["head", "-n", "2"], stdin=port, timeout=20).decode().splitlines()[1]


def send_through(stage: Stage, source: Path) -> None:
    """What goes into the port that sends back what it gets comes out as it was."""
    words = 'exec 3<>"$0"; head -c 1024 "$1" >&3; head -c 1024 <&3 | cmp -n 1024 - "$1"'
    run("sh", "-c", words, stage.folder / "lab.port", source, timeout=20)


def declared(stage: Stage) -> Path:
    """Both examples for the host in one device VM: one boots for both."""
    documents = [yaml.safe_load((EXAMPLES / name).read_text()) for name in ("host.yaml", "host-mount.yaml")]
    mirror = {"name": "mirror", "class": "port", "path": "lab.port"}
    mirror["parameters"] = {"command": ["/usr/lib/devicevm/echo"]}
    documents[0]["spec"]["devices"] += [*documents[1]["spec"]["devices"], mirror]
    text = yaml.safe_dump(documents[0]).replace("/var/lib/devicevm/", f"{stage.folder}/")
    path = stage.folder / "lab.yaml"
    path.write_text(text.replace("/srv/archive", f"{stage.folder}/archive"))
    return path


def apply_twice(stage: Stage, path: Path) -> None:
    """The first apply is killed as soon as a part has begun; the next one finishes what it was at."""
    first = stage.start("apply", path)
    deadline = time.monotonic() + 60
    while not stage.parts() and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    first.kill()
    first.communicate()
    stage.devicevm("apply", path)
    assert "steps" not in stage.json("plan", path)


def is_left_in_order(stage: Stage, path: Path, source: Path) -> None:
    """What is in use is not taken away: it is told by whom. Then all goes, but for what was written."""
    archive, copy = stage.folder / "archive", stage.folder / "copy"
    with (archive / "open").open("wb") as file:
        failed = stage.devicevm("destroy", "--yes", path, ok=False)
        assert failed.returncode == 1
        assert f"{archive} stays mounted" in failed.stderr and f"process {os.getpid()}" in failed.stderr
        file.write(source.read_bytes())
    stage.devicevm("destroy", "--yes", path)
    assert sorted(entry.name for entry in stage.folder.glob("lab.*")) == ["lab.img", "lab.yaml"]
    assert str(stage.folder) not in Path("/proc/self/mountinfo").read_text()
    assert str(stage.folder) not in run("losetup", "-a")
    # What the host has written is in the stores, as any other tool sees it.
    run("e2fsck", "-fn", stage.folder / "lab.img")
    run("e2fsck", "-fn", stage.folder / "archive.img")
    for name in ("kept", "later", "open"):
        run("debugfs", "-R", f"dump {name} {copy}", stage.folder / "archive.img")
        run("cmp", source, copy)


def test_the_host_has_disks_a_mount_a_serial_port_and_randomness(stage: Stage) -> None:
    if reason := why_nothing_is_mounted(stage.folder):
        pytest.skip(reason)
    path = declared(stage)
    apply_twice(stage, path)
    disk, copy = stage.folder / "lab.disk", stage.folder / "copy"
    archive = stage.folder / "archive"
    source = stage.folder / "source"
    source.write_bytes(os.urandom(256 * 1024))
    assert run("findmnt", "-n", "-o", "FSTYPE", archive).strip() == "ext4"
    (archive / "kept").write_bytes(source.read_bytes())
    run("mkfs.ext4", "-q", "-F", "-b", "4096", disk)
    run("debugfs", "-w", "-R", f"write {source} kept", disk)
    assert sentence(stage).startswith("$GP")
    send_through(stage, source)
    with open(stage.folder / "lab.random", "rb", buffering=0) as random:
        assert len(set(os.read(random.fileno(), 4096))) > 50

    # The device VM dies. Who reads or writes waits until it is back, and all that was written is there.
    stage.kill("lab-dvm")
    reader = subprocess.Popen(["e2fsck", "-fn", str(disk)], stdout=subprocess.PIPE, text=True)
    writer = subprocess.Popen(["dd", f"if={source}", f"of={archive / 'later'}", "conv=fsync", "status=none"])
    plan = stage.json("plan", path)["steps"]
    assert not [step for step in plan if step["kind"] == "part"]
    stage.devicevm("apply", path)
    said = reader.communicate(timeout=90)[0]
    assert reader.returncode == 0, said
    assert writer.wait(timeout=90) == 0
    run("debugfs", "-R", f"dump kept {copy}", disk)
    run("cmp", source, copy)
    assert sentence(stage).startswith("$GP")
    send_through(stage, source)
    assert {device["state"] for device in stage.json("status")["devices"]} == {"connected"}

    # A part that has died is what `status` tells, and what apply starts.
    os.kill(stage.parts()[0], signal.SIGKILL)
    assert "part stopped" in {device["state"] for device in stage.json("status")["devices"]}
    assert len([step for step in stage.json("plan", path)["steps"] if step["kind"] == "part"]) == 1
    stage.devicevm("apply", path)
    assert {device["state"] for device in stage.json("status")["devices"]} == {"connected"}

    is_left_in_order(stage, path, source)
