"""A USB device of several functions, used by a stock guest: lsusb, mkfs and e2fsck, evtest, bytes at its port."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from stage import Shell, Stage, shell_port
from stage_collection import REPO

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

EXAMPLE = REPO / "examples" / "usb.yaml"
KEYS = "LEFTSHIFT H I COMMA SPACE 5 LEFTSHIFT 1 ENTER"
ID = "1209:0001"


@pytest.fixture(scope="module", autouse=True)
def usb() -> None:
    """The image with gadgets, built or found."""
    subprocess.run([sys.executable, "-m", "devicevm.cli", "image", "build", "usb"], check=True, timeout=900)


def wait_for(shell: Shell, condition: str) -> None:
    """Until a condition of the guest's shell holds."""
    shell.run(
        f"for i in $(seq 150); do {condition} && break; sleep 0.2; done; {condition} || {{ dmesg | tail; false; }}"
    )


def plugged_in(shell: Shell) -> None:
    """Until the guest's drivers have all that is in the device."""
    wait_for(shell, f"lsusb -d {ID} >/dev/null && test -b /dev/sda -a -c /dev/ttyACM0 -a -e /sys/class/input/mouse0")


def drivers(shell: Shell) -> list[str]:
    """What lsusb says drives each interface of the device."""
    return sorted(re.findall(r"Driver=(cdc_acm|usbhid|usb-storage)", shell.run("lsusb -t")))


def events(shell: Shell, kind: str) -> str:
    """What evtest has seen for three seconds of the device's keyboard (kind=rel 0) or mouse."""
    find = (
        f'for e in /sys/class/input/event*; do read -r name <$e/device/name; test "$name" = "Bench & Sons Combo" && '
        f"grep -q '{kind}' $e/device/capabilities/rel && echo /dev/input/${{e##*/}}; done; true"
    )
    (device,) = shell.run(find).split()
    return shell.run(f"timeout 3 evtest {device} || true")


LISTEN = "stty -F /dev/ttyACM0 raw -echo; timeout 20 grep -a -m 1 GPGGA /dev/ttyACM0"
HASH = "sha256sum </run/stick/file"


def use(shell: Shell) -> str:
    """All that is in the device is used; the checksum of a file on the stick, which stays mounted."""
    says = shell.run(f"lsusb -v -d {ID} 2>/dev/null")
    for word in ("iManufacturer .* Bench & Sons", "iProduct .* Combo", "iSerial .* 0042"):
        assert re.search(word, says), says
    assert drivers(shell) == ["cdc_acm", "cdc_acm", "usb-storage", "usbhid", "usbhid"]
    keys = re.findall(r"\(KEY_(\w+)\), value 1", events(shell, "^0$"))
    assert KEYS in " ".join(keys)
    moves = set(re.findall(r"\(REL_.\), value -?\d+", events(shell, "[1-9]")))
    assert moves == {"(REL_X), value 5", "(REL_Y), value 2"}
    assert ",4851.5022,N,00217.6688,E," in shell.run(LISTEN)
    shell.run("mkfs.ext4 -q -F -O ^has_journal -N 16 /dev/sda; mkdir -p /run/stick; mount /dev/sda /run/stick")
    shell.run("dd if=/dev/urandom of=/run/stick/file bs=64k count=16 conv=fsync 2>/dev/null")
    shell.run("dd if=/dev/zero of=/run/stick/log bs=64k count=16 conv=fsync 2>/dev/null; sync")
    return shell.run(HASH)


def lose_device_vm(stage: Stage, shell: Shell, path: Path, number: int) -> None:
    """The device VM is killed while the stick is written: for the client the device is pulled out, and plugged in
    again. What was flushed is there."""
    booted = shell.run("cat /proc/sys/kernel/random/boot_id")
    block = f"printf '%04096d' $(({number} * 1000 + i))"
    shell.run(
        "rm -f /tmp/told; (i=0; while [ $i -lt 256 ]; do "
        f"{block} | dd of=/run/stick/log bs=4k seek=$i conv=notrunc,fsync || break; echo $i >>/tmp/told; i=$((i + 1)); "
        "done) 2>/dev/null & "
        "until [ -s /tmp/told ] && [ $(wc -l </tmp/told) -ge 8 ]; do sleep 0.1; done"
    )
    stage.kill("usb-bench-dvm")
    wait_for(shell, f"! lsusb -d {ID} >/dev/null")
    steps = {step["id"]: step["effect"] for step in stage.json("plan", path)["steps"] if step["kind"] != "store"}
    assert steps == {"start/device-vm/usb-bench-dvm": "reconnect"}
    shell.run("wait; echo 3 >/proc/sys/vm/drop_caches; if cat /run/stick/file >/dev/null 2>&1; then false; fi")
    shell.run("umount /run/stick")
    stage.devicevm("apply", path)
    plugged_in(shell)
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == booted
    assert ",4851.5022,N,00217.6688,E," in shell.run(LISTEN)
    shell.run("e2fsck -p /dev/sda >/dev/null || test $? = 1; mount /dev/sda /run/stick")
    shell.run(
        f"for i in $(cat /tmp/told); do {block} >/tmp/block; dd if=/run/stick/log bs=4k skip=$i count=1 2>/dev/null | "
        'cmp - /tmp/block || break; i=; done; test -z "$i"'
    )


def plug_out_and_in(stage: Stage, shell: Shell) -> None:
    """By virsh, while the client runs."""
    device = stage.folder / "device.xml"
    (part,) = re.findall(r"<redirdev.*?</redirdev>", stage.virsh("dumpxml", "usb-bench"), re.DOTALL)
    device.write_text(re.sub(r"<address[^>]*/>", "", part))
    stage.virsh("detach-device", "usb-bench", str(device), "--live")
    wait_for(shell, f"! lsusb -d {ID} >/dev/null")
    stage.virsh("attach-device", "usb-bench", str(device), "--live")
    plugged_in(shell)


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_a_client_uses_a_composite_device_and_finds_it_again(stage: Stage, kills: int) -> None:
    path, stick = stage.folder / "bench.yaml", stage.folder / "stick.img"
    document = yaml.safe_load(EXAMPLE.read_text())
    document["spec"]["vm"] |= {"boot": {"guestImage": "test-client"}, "domainXML": shell_port(stage.folder / "shell")}
    path.write_text(yaml.safe_dump(document))
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "shell")
    plugged_in(shell)
    wanted = use(shell)
    for number in range(kills):
        lose_device_vm(stage, shell, path, number)
        assert shell.run(HASH) == wanted
    shell.run("umount /run/stick")
    plug_out_and_in(stage, shell)
    assert "No changes" in stage.devicevm("apply", path).stdout
    shell.close()
    stage.devicevm("destroy", "--yes", path)

    # What the host finds in the file, by its own tools.
    subprocess.run(["e2fsck", "-fn", stick], check=True, capture_output=True)
    found = subprocess.run(["debugfs", "-R", "cat /file", stick], check=True, capture_output=True).stdout
    assert hashlib.sha256(found).hexdigest() == wanted.split()[0]
