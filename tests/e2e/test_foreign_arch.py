"""Emulation code of another architecture: an aarch64 device VM, which QEMU translates, serves an x86 client."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from devicevm.guest.architecture import build_architecture
from devicevm.guest.control import Control
from manifests import client, device_vm, entropy, with_shell, write
from stage import Shell, Stage
from stage_collection import REPO
from test_main_job import a_client, use_disk, use_instruments

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

ARCH = "aarch64"
EXAMPLE = REPO / "examples" / "resource-translator.yaml"


@pytest.fixture(scope="module")
def foreign(images: None) -> None:
    """The image base for aarch64, built (or found) in the default store."""
    if build_architecture() == ARCH:
        pytest.skip(f"{ARCH} is this machine's own architecture")
    if not shutil.which(f"qemu-system-{ARCH}"):
        pytest.skip(f"qemu-system-{ARCH} is not installed (qemu-system-arm)")
    command = [sys.executable, "-m", "devicevm.cli", "image", "build", "--arch", ARCH, "base"]
    subprocess.run(command, check=True, timeout=900)


TRANSLATED = device_vm("instruments", "disk", "rng", "serial", resources=[{"microcode": {"arch": ARCH}}])
"""One device VM for all clients, whose emulation code the VMM is to translate."""


def test_an_aarch64_device_vm_serves_x86_clients(foreign: None, stage: Stage) -> None:
    backing = stage.folder / "data.raw"
    first = a_client(stage, "a", "virtio-blk", store={"file": str(backing)})
    path = write(stage.folder, TRANSLATED, first)
    plan = stage.json("plan", path)
    (device_vm,) = [spec for spec in plan["domains"] if spec["role"] == "device-vm"]
    assert f"the VMM translates {ARCH}" in plan["allocations"][0]["reasons"][0]
    stage.devicevm("apply", path)

    # The VMM, the device VM's kernel, and its processor all say so; the client's own kernel is another.
    assert f"<type arch='{ARCH}'" in stage.virsh("dumpxml", "instruments")
    programs = sorted(Path(f"/proc/{pid}/exe").resolve().name for pid in stage.processes())
    assert programs == [f"qemu-system-{ARCH}", f"qemu-system-{build_architecture()}"]
    with Control(device_vm["control"]) as control:
        assert control.status().arch == ARCH
        cpu = control.cpu()
        assert cpu.arch == ARCH
        assert {"fp", "asimd", "aes"} <= set(cpu.flags)
        assert not {"sse2", "sve"} & set(cpu.flags)  # x86's, and what a cortex-a53 has not
    assert "agent: up after" in stage.devicevm("logs", "instruments").stdout
    shell = Shell(stage.folder / "a.shell")
    assert shell.run("uname -m").strip() == build_architecture()

    use_disk(shell, "/dev/vda")
    use_instruments(shell)
    shell.run("dd if=/dev/urandom of=/tmp/x bs=64k count=16 2>/dev/null; dd if=/tmp/x of=/dev/vda oflag=direct bs=64k")
    assert shell.run("md5sum </tmp/x") == shell.run("dd if=/dev/vda bs=64k count=16 iflag=direct 2>/dev/null | md5sum")
    assert shell.run("head -c 4096 /tmp/x | md5sum").split()[0] == md5_of(backing, 4096)

    # What it has stays; what is added comes to the running device VM.
    assert "No changes" in stage.devicevm("apply", path).stdout
    boot = shell.run("cat /proc/sys/kernel/random/boot_id")
    write(stage.folder, TRANSLATED, first, client("c", entropy(), stage=stage, memory="192MiB"))
    step = stage.json("plan", path)["steps"][0]
    assert (step["id"], step["effect"]) == ("update/device-vm/instruments", "live")
    stage.devicevm("apply", path)
    second = Shell(stage.folder / "c.shell")
    assert len(second.run("dd if=/dev/hwrng bs=16 count=1 2>/dev/null | hexdump -C")) > 40
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == boot
    with Control(device_vm["control"]) as control:
        assert (control.status().arch, len(control.status().devices)) == (ARCH, 4)
    stage.devicevm("destroy", "--yes", "--delete-data", path)


def test_the_example_of_a_translator(foreign: None, stage: Stage) -> None:
    device_vm_, user = reversed(list(yaml.safe_load_all(EXAMPLE.read_text())))
    path = write(stage.folder, device_vm_, with_shell(user, stage))
    stage.devicevm("apply", path)
    assert stage.devicevm("apply", path).stdout == "No changes.\n"
    assert Path(f"/proc/{stage.process('translator-storage')}/exe").resolve().name == f"qemu-system-{ARCH}"
    shell = Shell(stage.folder / "translator-user.shell")
    shell.run("echo kept | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches")
    assert shell.run("head -c 4 /dev/vda") == "kept"
    shell.run("stty -F /dev/ttyS1 raw -echo; timeout 30 grep -m1 '^.GPRMC' /dev/ttyS1")
    shell.close()
    stage.devicevm("destroy", "--yes", path)


def md5_of(path: Path, size: int) -> str:
    """The checksum of a file's beginning, by md5sum."""
    with path.open("rb") as file:
        data = file.read(size)
    return subprocess.run(["md5sum"], input=data, capture_output=True, check=True).stdout.split()[0].decode()
