"""A USB device of several functions, used by a stock guest: lsusb, mkfs and e2fsck, evtest, bytes at its port."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stage import Shell, Stage, shell_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

TYPED = "Hi, 5!\\n"
KEYS = "LEFTSHIFT H I COMMA SPACE 5 LEFTSHIFT 1 ENTER"
# The boot mouse's descriptor (USB HID 1.11, appendix B.2); its report: five to the right, two down.
MOUSE = "05010902a1010901a100050919012903150025019503750181029501750581010501093009311581257f750895028106c0c0"
MANIFEST = """\
apiVersion: devicevm/v1
kind: Client
metadata: {{name: bench}}
spec:
  vm:
    memory: 384MiB
    boot: {{guestImage: test-client}}
    domainXML: "{port}"
  devices:
    - name: combo
      class: usb
      parameters:
        vendor: "0x1209"
        product: "0x0001"
        manufacturer: Bench & Sons
        model: Combo
        massStorage: {{size: 4MiB, store: {{file: stick.img}}}}
        serial: {{program: echo}}
        keyboard: {{text: "{typed}", interval: 1000}}
        hid: {{descriptor: "{mouse}", reportLength: 3, reports: ["000502"], interval: 500}}
"""
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


ASK = "stty -F /dev/ttyACM0 raw -echo; exec 3<>/dev/ttyACM0; echo {0} >&3; timeout 20 head -n 1 <&3; exec 3>&-"
HASH = "sha256sum </run/stick/file"


def use(shell: Shell) -> str:
    """All that is in the device is used; the checksum of a file on the stick, which stays mounted."""
    says = shell.run(f"lsusb -v -d {ID} 2>/dev/null")
    for word in ("iManufacturer .* Bench & Sons", "iProduct .* Combo", "iSerial .* combo"):
        assert re.search(word, says), says
    assert drivers(shell) == ["cdc_acm", "cdc_acm", "usb-storage", "usbhid", "usbhid"]
    keys = re.findall(r"\(KEY_(\w+)\), value 1", events(shell, "^0$"))
    assert KEYS in " ".join(keys)
    moves = set(re.findall(r"\(REL_.\), value -?\d+", events(shell, "[1-9]")))
    assert moves == {"(REL_X), value 5", "(REL_Y), value 2"}
    assert shell.run(ASK.format("hello-acm")).strip() == "hello-acm"
    shell.run("mkfs.ext4 -q -F -O ^has_journal -N 16 /dev/sda; mkdir -p /run/stick; mount /dev/sda /run/stick")
    shell.run("dd if=/dev/urandom of=/run/stick/file bs=64k count=16 conv=fsync 2>/dev/null; sync")
    return shell.run(HASH)


def lose_device_vm(stage: Stage, shell: Shell, path: Path) -> None:
    """The device VM is killed: for the client the device is pulled out, and plugged in again."""
    booted = shell.run("cat /proc/sys/kernel/random/boot_id")
    os.kill(stage.process("bench-dvm"), signal.SIGKILL)
    wait_for(shell, f"! lsusb -d {ID} >/dev/null")
    steps = {step["id"]: step["effect"] for step in stage.json("plan", path)["steps"] if step["kind"] != "store"}
    assert steps == {"start/device-vm/bench-dvm": "reconnect"}
    shell.run("echo 3 >/proc/sys/vm/drop_caches; if cat /run/stick/file >/dev/null 2>&1; then false; fi")
    shell.run("umount /run/stick")
    stage.devicevm("apply", path)
    plugged_in(shell)
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == booted
    assert shell.run(ASK.format("hello-again")).strip() == "hello-again"
    shell.run("e2fsck -p /dev/sda >/dev/null || test $? = 1; mount /dev/sda /run/stick")


def plug_out_and_in(stage: Stage, shell: Shell) -> None:
    """By virsh, while the client runs."""
    device = stage.folder / "device.xml"
    (part,) = re.findall(r"<redirdev.*?</redirdev>", stage.virsh("dumpxml", "bench"), re.DOTALL)
    device.write_text(re.sub(r"<address[^>]*/>", "", part))
    stage.virsh("detach-device", "bench", str(device), "--live")
    wait_for(shell, f"! lsusb -d {ID} >/dev/null")
    stage.virsh("attach-device", "bench", str(device), "--live")
    plugged_in(shell)


def survive(stage: Stage, kills: int) -> None:
    path, stick = stage.folder / "bench.yaml", stage.folder / "stick.img"
    path.write_text(MANIFEST.format(port=shell_port(stage.folder / "bench.shell"), typed=TYPED, mouse=MOUSE))
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "bench.shell")
    plugged_in(shell)
    wanted = use(shell)
    for _number in range(kills):
        lose_device_vm(stage, shell, path)
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


def test_a_client_uses_a_composite_device_and_finds_it_again(stage: Stage) -> None:
    survive(stage, 1)


@pytest.mark.long
def test_a_client_finds_a_composite_device_again_twenty_times(stage: Stage) -> None:
    survive(stage, 20)
