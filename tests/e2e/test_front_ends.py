"""Every front end and every kind of store, seen by a stock guest."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from stage import Shell, Stage, shell_port

pytestmark = pytest.mark.e2e

CLIENT = """\
apiVersion: devicevm/v1
kind: Client
metadata: {{name: a}}
spec:
  vm:
    vcpus: 1
    memory: 256MiB
    boot: {{guestImage: client}}
    domainXML: "{port}"
  devices:
{devices}
"""


def apply(stage: Stage, *devices: str) -> tuple[Path, Shell]:
    """Apply a client with these devices; its manifest and its shell."""
    path = stage.folder / "a.yaml"
    lines = "\n".join(f"    - {device}" for device in devices)
    path.write_text(CLIENT.format(port=shell_port(stage.folder / "a.shell"), devices=lines))
    stage.devicevm("apply", path)
    return path, Shell(stage.folder / "a.shell")


def disks_by_size(shell: Shell) -> dict[str, str]:
    """The guest's disks: size in KiB -> device."""
    lines = [line.split() for line in shell.run("cat /proc/partitions").splitlines()[2:]]
    return {fields[2]: f"/dev/{fields[3]}" for fields in lines if len(fields) == 4}


def test_a_disk_behind_every_front_end(stage: Stage) -> None:
    sizes = {"virtio-blk": 8, "virtio-scsi": 9, "sata": 10, "usb": 11}
    path, shell = apply(
        stage,
        *(
            f"{{name: {name}, class: disk, frontend: {name}, parameters: {{size: {size}MiB}}}}"
            for name, size in sizes.items()
        ),
    )
    # USB storage is looked for in its own time.
    shell.run("for i in $(seq 100); do [ $(tail -n +3 /proc/partitions | wc -l) -ge 4 ] && break; sleep 0.2; done")
    found = disks_by_size(shell)
    for name, size in sizes.items():
        device = found[str(size * 1024)]
        shell.run(f"dd if=/dev/urandom of=/tmp/{name} bs=64k count=16 2>/dev/null")
        shell.run(f"dd if=/tmp/{name} of={device} bs=64k conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches")
        assert shell.run(f"head -c 1048576 {device} | cmp - /tmp/{name} && echo same").strip() == "same", name
    stage.devicevm("destroy", "--yes", path)


def test_a_program_behind_every_serial_port(stage: Stage) -> None:
    program = "[/bin/sh, -c, 'while read -r line; do echo \"${#line}\"; done']"
    path, shell = apply(
        stage,
        f"{{name: one, class: serial, parameters: {{command: {program}}}}}",
        "{name: two, class: serial, frontend: pci-serial, parameters: {program: echo}}",
        "{name: three, class: serial, frontend: usb-serial, parameters: {program: echo}}",
    )
    ask = "stty -F {0} raw -echo; exec 3<>{0}; echo {1} >&3; timeout 20 head -n 1 <&3; exec 3>&-"
    assert shell.run(ask.format("/dev/ttyS1", "twelve-bytes")).strip() == "12"
    # USB devices are looked for in their own time.
    usb = shell.run("for i in $(seq 100); do ls /dev/ttyUSB* 2>/dev/null && break; sleep 0.2; done").split()
    assert usb, shell.run("dmesg | tail -n 20")
    assert shell.run(ask.format(usb[0], "hello-usb")).strip() == "hello-usb"
    # The PCI port takes the first number that the ISA ones leave.
    irq = "for t in /sys/class/tty/ttyS*; do [ -e $t/device/vendor ] && echo /dev/${t##*/}; done; true"
    (pci,) = shell.run(irq).split()
    assert shell.run(ask.format(pci, "hello-pci")).strip() == "hello-pci"
    stage.devicevm("destroy", "--yes", path)


def test_a_read_only_disk_and_a_volume(stage: Stage) -> None:
    handbook = stage.folder / "handbook.img"
    handbook.write_bytes(b"devicevm" * 131072)
    pool = stage.folder / "pool"
    pool.mkdir()
    stage.virsh("pool-create-as", "p", "dir", "--target", str(pool))
    path, shell = apply(
        stage,
        f"{{name: book, class: disk, parameters: {{size: 1MiB, readOnly: true, store: {{file: {handbook}}}}}}}",
        "{name: notes, class: disk, parameters: {size: 2MiB, store: {volume: {pool: p, name: notes.img}}}}",
    )
    assert (
        shell.run("md5sum </dev/vda").split()[0]
        == hashlib.md5(handbook.read_bytes(), usedforsecurity=False).hexdigest()
    )
    assert shell.run("cat /sys/block/vda/ro").strip() == "1"
    shell.run("echo kept | dd of=/dev/vdb bs=512 conv=sync,fsync 2>/dev/null")
    assert (pool / "notes.img").read_bytes().startswith(b"kept\n")
    stage.devicevm("destroy", "--yes", path)
    assert (pool / "notes.img").exists()
    stage.devicevm("apply", path)
    stage.devicevm("destroy", "--yes", "--delete-data", path)
    assert not (pool / "notes.img").exists()
    assert handbook.exists()
    stage.virsh("pool-destroy", "p")


def test_a_block_device_of_the_host(stage: Stage) -> None:
    backing = stage.folder / "block.img"
    backing.write_bytes(bytes(4 << 20))
    try:
        device = subprocess.run(
            ["losetup", "--find", "--show", str(backing)], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop device can be had here: {getattr(error, 'stderr', '') or error}")
    try:
        path, shell = apply(stage, f"{{name: raw, class: disk, parameters: {{store: {{block: {device}}}}}}}")
        assert shell.run("cat /sys/block/vda/size").strip() == str((4 << 20) // 512)
        shell.run("echo kept | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null")
        stage.devicevm("destroy", "--yes", "--delete-data", path)
        assert Path(device).read_bytes().startswith(b"kept\n")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
