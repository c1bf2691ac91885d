"""examples/disk-formats.yaml for real: what disks hold, judged by fio, mkfs, fsck, cmp and qemu-img."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from devicevm.guest.control import Control
from stage import Shell, Stage, shell_port

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "disk-formats.yaml"
KEY = "correct horse battery staple"
MARK = b"what nobody but the client may read\n"
GOLDEN = 8 << 20
PATIENCE = ("--timeout", "200")


@pytest.fixture(autouse=True, scope="module")
def image(images: None) -> None:
    """The image disk, built (or found) in the default store."""
    subprocess.run([sys.executable, "-m", "devicevm.cli", "image", "build", "disk"], check=True, timeout=900)


def manifest(stage: Stage, **faults: Any) -> Path:
    """The example with files and images of the test's own, and other faults if any are given."""
    stores = EXAMPLE.read_text().replace("/var/lib/devicevm/stores", str(stage.folder))
    document = yaml.safe_load(stores.replace("/etc/devicevm/keys", str(stage.folder)))
    vm = document["spec"]["vm"]
    vm["boot"]["guestImage"] = "test-client"
    vm["domainXML"] = shell_port(stage.folder / "vault.shell")
    (worn,) = [device for device in document["spec"]["devices"] if device["name"] == "worn"]
    worn["parameters"]["faults"] = faults or worn["parameters"]["faults"]
    path = stage.folder / "vault.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def golden(stage: Stage) -> bytes:
    """The golden image's content; it is compressed, and was never seen by devicevm."""
    raw = stage.folder / "golden.raw"
    raw.write_bytes(hashlib.shake_256(b"golden").digest(GOLDEN // 8) * 8)
    command = ["qemu-img", "convert", "-c", "-O", "qcow2", str(raw), str(stage.folder / "golden.qcow2")]
    subprocess.run(command, check=True)
    (stage.folder / "vault.key").write_text(KEY)
    return raw.read_bytes()


def disks(shell: Shell) -> dict[str, str]:
    """The guest's devices by what they are."""
    found = {"sealed": "/dev/vda", "system": "/dev/nvme0n1", "media": "/dev/sr0"}
    models = "for d in /sys/block/sd*; do echo ${d##*/} $(cat $d/size); done"
    sizes = {"32768": "slow", "49152": "worn"}
    for name, size in (line.split() for line in shell.run(models).splitlines()):
        found[sizes[size]] = f"/dev/{name}"
    assert len(found) == 5, found
    return found


def use_sealed(shell: Shell, device: str) -> str:
    """mkfs, fio's verification and fsck; then the first bytes are the mark's, whose checksum is returned."""
    shell.run(f"mkfs.ext4 -q -F {device} && mkdir -p /mnt && mount {device} /mnt")
    fio = (
        "fio --name=v --filename=/mnt/f --size=2M --rw=randwrite --bs=16k --ioengine=psync --end_fsync=1 "
        "--verify=crc32c --do_verify=1 --verify_fatal=1"
    )
    assert "err= 0" in shell.run(fio, timeout=200)
    shell.run("umount /mnt")
    assert "clean" in shell.run(f"e2fsck -f -n {device} >/dev/null && e2fsck -n {device}")
    shell.run(f"yes '{MARK.decode().strip()}' | head -c 262144 >/tmp/m; dd if=/tmp/m of={device} bs=64k conv=fsync")
    return shell.run("md5sum /tmp/m").split()[0]


def looks_like(shell: Shell, device: str, content: bytes) -> None:
    """All of the device is that content."""
    wanted = hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert shell.run(f"dd if={device} bs=1M iflag=direct 2>/dev/null | md5sum").split()[0] == wanted


def decrypted(store: Path, key: Path) -> bytes:
    """What QEMU's tools on the host find in an encrypted store, given the key."""
    source = f"driver=luks,key-secret=k,file.driver=file,file.filename={store}"
    clear = store.with_suffix(".clear")
    secret = ("--object", f"secret,id=k,file={key}")
    command = ["qemu-img", "convert", *secret, "--image-opts", "-O", "raw", source, str(clear)]
    subprocess.run(command, check=True)
    return clear.read_bytes()


def info(store: Path) -> str:
    """What qemu-img says of an image that may be in use."""
    return subprocess.run(["qemu-img", "info", "-U", str(store)], check=True, capture_output=True, text=True).stdout


def seconds(stage: Stage, shell: Shell, command: str) -> float:
    """How long a command of the client's takes by the device VM's clock, by which limits and delays are kept: under
    TCG, on a host that was busy when the guest started, it may be another than the host's."""
    (control,) = [path for path in stage.sockets() if path.name.endswith("-control.sock")]
    with Control(str(control), timeout=60) as guest:
        before = guest.status().uptime
        shell.run(command)
        return guest.status().uptime - before


def nobody_says_the_key(stage: Stage, path: Path) -> None:
    """It is in no definition, plan, log or file that devicevm or libvirt has left."""
    plan = stage.devicevm("plan", path, "-o", "json").stdout
    texts = [plan, *(stage.virsh("dumpxml", "--security-info", name) for name in ("vault", "vault-dvm"))]
    kept = [file for file in stage.folder.rglob("*") if file.is_file() and file.name != "vault.key"]
    assert kept
    for text in (*map(str.encode, texts), *(file.read_bytes() for file in kept)):
        assert KEY.encode() not in text
    assert not [name for name in stage.runtime_files() if name.endswith(".secret")]


def test_formats_limits_and_faults(stage: Stage) -> None:
    content = golden(stage)
    path = manifest(stage)
    stage.devicevm("apply", *PATIENCE, path)
    shell = Shell(stage.folder / "vault.shell")
    found = disks(shell)
    assert shell.run("cat /sys/block/nvme0n1/device/serial").strip() == "system"

    written = use_sealed(shell, found["sealed"])
    looks_like(shell, found["media"], content)
    looks_like(shell, found["system"], content)
    shell.run(f"yes other | head -c 65536 | dd of={found['system']} bs=64k seek=2 conv=fsync")
    # 2 MiB at once, and 1 MiB in a second from then on: 2 s for 4 MiB, however fast the machine.
    assert seconds(stage, shell, f"dd if=/dev/zero of={found['slow']} bs=256k count=16 oflag=direct") > 1.5

    refused = shell.run(f"dd if=/dev/zero of={found['worn']} bs=4k count=1 oflag=direct 2>&1 || echo refused")
    assert "refused" in refused
    read = "dd if={} of=/dev/null bs=4k count=4 iflag=direct"
    assert seconds(stage, shell, read.format(found["worn"])) > 0.4
    boot = shell.run("cat /proc/sys/kernel/random/boot_id")
    plan = stage.json("plan", manifest(stage, readErrors=0))
    assert [(step["id"], step["effect"]) for step in plan["steps"]] == [
        ("create/store/vault/worn", "none"),
        ("update/device-vm/vault-dvm", "reconnect"),
    ], plan["steps"]
    stage.devicevm("apply", *PATIENCE, path)
    # The first request finds the connection broken, and a disk that reports errors says so.
    shell.run(f"{read.format(found['worn'])} || true")
    shell.run(f"yes fine | dd of={found['worn']} bs=64k count=16 iflag=fullblock oflag=direct")
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == boot
    assert (stage.folder / "worn.img").read_bytes().startswith(b"fine\nfine\n")

    nobody_says_the_key(stage, path)
    assert stage.devicevm("apply", path).stdout == "No changes.\n"
    stage.devicevm("destroy", "--yes", path)
    sealed, system = stage.folder / "sealed.img", stage.folder / "system.qcow2"
    assert MARK not in sealed.read_bytes()
    assert "file format: luks" in info(sealed)
    clear = decrypted(sealed, stage.folder / "vault.key")[:262144]
    assert hashlib.md5(clear, usedforsecurity=False).hexdigest() == written
    assert "file format: qcow2" in info(system)
    subprocess.run(
        ["qemu-img", "compare", str(stage.folder / "golden.raw"), str(stage.folder / "golden.qcow2")], check=True
    )
    # Only what was changed is in the copy's store.
    assert system.stat().st_blocks * 512 < 2 << 20


@pytest.mark.long
def test_a_device_vm_that_dies_opens_what_it_had_again(stage: Stage) -> None:
    golden(stage)
    key, path = stage.folder / "vault.key", manifest(stage, readErrors=0)
    key.rename(stage.folder / "aside")
    result = stage.devicevm("apply", path, ok=False)
    assert (result.returncode, stage.domains()) == (1, [])
    assert re.search(r"vault/sealed: the key file .*vault.key cannot be read: No such file", result.stderr)
    (stage.folder / "aside").rename(key)
    stage.devicevm("apply", *PATIENCE, path)
    shell = Shell(stage.folder / "vault.shell")
    written = use_sealed(shell, "/dev/vda")
    shell.run("mkfs.ext4 -q -F /dev/nvme0n1 && mkdir -p /copy && mount /dev/nvme0n1 /copy && cp /tmp/m /copy && sync")
    for domain in ("vault-dvm", "vault"):
        os.kill(stage.process(domain), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while stage.virsh("list", "--name").split():
        assert time.monotonic() < deadline, "libvirt has not seen its guests die"
        time.sleep(0.2)
    stage.devicevm("apply", *PATIENCE, path)
    shell = Shell(stage.folder / "vault.shell")
    assert shell.run("head -c 262144 /dev/vda | md5sum").split()[0] == written
    shell.run("e2fsck -p /dev/nvme0n1 || [ $? = 1 ]; mkdir -p /copy; mount /dev/nvme0n1 /copy")
    assert shell.run("md5sum </copy/m").split()[0] == written
    stage.devicevm("destroy", "--yes", path)

    # With another key nothing opens, and nothing is formatted anew.
    before = (stage.folder / "sealed.img").read_bytes()
    key.write_text(f"{KEY}!")
    result = stage.devicevm("apply", *PATIENCE, path, ok=False)
    assert result.returncode == 1
    assert "is the key another one" in result.stderr
    assert (stage.folder / "sealed.img").read_bytes() == before
