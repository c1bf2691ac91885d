"""The main job, for real: manifests become device VMs that serve clients, judged by tools nobody here wrote."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from functools import reduce
from typing import Any

import pytest
from manifests import Document, client, device_vm, disk, entropy, serial, write
from stage import Shell, Stage

pytestmark = pytest.mark.e2e

INSTRUMENTS = device_vm("instruments", "disk", "rng", "serial")


def a_client(stage: Stage, name: str, frontend: str, **parameters: Any) -> Document:
    """A client with a disk, entropy and a GPS receiver, and fio to work with."""
    devices = (disk("data", "32MiB", frontend, **parameters), entropy(), serial())
    return client(name, *devices, stage=stage, image="test-client", memory="512MiB")


def checksum_holds(sentence: str) -> bool:
    body, _, given = sentence.strip().lstrip("$").partition("*")
    return given.upper() == f"{reduce(lambda total, char: total ^ ord(char), body, 0):02X}"


def use_disk(shell: Shell, device: str) -> None:
    """mkfs, mount, fio's own verification, fsck: on the disk that the device VM emulates."""
    shell.run(f"mkfs.ext4 -q -F {device} && mkdir -p /mnt && mount {device} /mnt")
    fio = (
        "fio --name=v --filename=/mnt/f --size=8M --rw=randwrite --bs=4k --ioengine=psync --end_fsync=1 "
        "--verify=crc32c --do_verify=1 --verify_fatal=1"
    )
    assert "err= 0" in shell.run(fio, timeout=200)
    shell.run("umount /mnt")
    assert "clean" in shell.run(f"e2fsck -f -n {device} >/dev/null && e2fsck -n {device}")


def use_instruments(shell: Shell) -> None:
    """Entropy and position: from the device VM's emulators, by the guest's stock drivers."""
    assert "virtio_rng" in shell.run("cat /sys/class/misc/hw_random/rng_current")
    bytes_ = shell.run("dd if=/dev/hwrng bs=32 count=4 iflag=fullblock 2>/dev/null | hexdump -ve '1/1 \"%02x\"'")
    assert len(set(re.findall("..", bytes_))) > 40
    sentence = shell.run("stty -F /dev/ttyS1 raw -echo; timeout 20 grep -m1 '^.GPRMC' /dev/ttyS1")
    assert checksum_holds(sentence.strip().splitlines()[-1])


def test_two_clients_share_a_device_vm_and_a_third_is_added_live(stage: Stage) -> None:
    pair = [a_client(stage, "a", "virtio-blk"), a_client(stage, "b", "sata")]
    path = write(stage.folder, INSTRUMENTS, *pair)
    result = stage.json("apply", path)
    assert not result["failed"]
    assert stage.domains() == ["a", "b", "instruments"]

    shells = {name: Shell(stage.folder / f"{name}.shell") for name in "ab"}
    use_disk(shells["a"], "/dev/vda")
    use_disk(shells["b"], "/dev/sda")
    for shell in shells.values():
        use_instruments(shell)

    assert stage.json("plan", path)["steps"] == [] if "steps" in (planned := stage.json("plan", path)) else planned
    assert "No changes" in stage.devicevm("apply", path).stdout

    # virsh alone shows who serves whom.
    assert re.search(r"a/data.*a/entropy|a: data", stage.virsh("desc", "instruments"))
    metadata = stage.virsh("metadata", "instruments", "urn:devicevm:v1")
    for name in ("data", "entropy", "gps"):
        assert f'client="a" name="{name}"' in metadata or f"client='a' name='{name}'" in metadata

    boots = {name: shells[name].run("cat /proc/sys/kernel/random/boot_id") for name in "ab"}
    path = write(stage.folder, INSTRUMENTS, *pair, client("c", entropy(), stage=stage, memory="192MiB"))
    steps = stage.json("plan", path)["steps"]
    assert [(step["id"], step["effect"]) for step in steps] == [
        ("update/device-vm/instruments", "live"),
        ("define/client/c", "none"),
        ("start/client/c", "none"),
    ]
    stage.devicevm("apply", path)
    shells["c"] = Shell(stage.folder / "c.shell")
    assert len(shells["c"].run("dd if=/dev/hwrng bs=16 count=1 2>/dev/null | hexdump -C")) > 40
    for name in "ab":
        assert shells[name].run("cat /proc/sys/kernel/random/boot_id") == boots[name]
        use_instruments(shells[name])

    health = {(item["client"], item["device"]): item["state"] for item in stage.json("status")["devices"]}
    assert set(health.values()) == {"connected"}, health
    assert len(health) == 7

    # One client less: its devices leave the running device VM, the others go on.
    stage.devicevm("apply", "--yes", "--prune", write(stage.folder, INSTRUMENTS, *pair))
    assert stage.domains() == ["a", "b", "instruments"]
    use_instruments(shells["a"])
    stage.devicevm("destroy", "--yes", "--owner", "default")


def test_acknowledged_writes_are_on_the_backing_store_and_outlive_everything(stage: Stage) -> None:
    backing = stage.folder / "data.raw"
    document = a_client(stage, "a", "virtio-blk", store={"file": str(backing)})
    path = write(stage.folder, INSTRUMENTS, document)
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "a.shell")
    shell.run(
        "dd if=/dev/urandom of=/tmp/x bs=64k count=16 2>/dev/null;"
        " dd if=/tmp/x of=/dev/vda bs=64k oflag=direct 2>/dev/null"
    )
    wanted = shell.run("md5sum /tmp/x").split()[0]
    # No flush, no warning: the processes are gone from one moment to the next. (virsh destroy would let QEMU clean up.)
    for pid in stage.processes():
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while stage.virsh("list", "--name").split():
        assert time.monotonic() < deadline, "libvirt has not seen its guests die"
        time.sleep(0.2)
    assert hashlib.md5(backing.read_bytes()[: 1 << 20], usedforsecurity=False).hexdigest() == wanted
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "a.shell")
    assert shell.run("dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum").split()[0] == wanted
    stage.devicevm("destroy", "--yes", path)
    assert backing.exists()
    stage.devicevm("apply", path)
    stage.devicevm("destroy", "--yes", "--delete-data", path)
    assert not backing.exists()
