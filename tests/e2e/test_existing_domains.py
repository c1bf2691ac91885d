"""Domains that others have made, by virsh alone: they are given devices, use them, and lose nothing but these again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from foreign import define
from private_libvirtd import why_not
from stage import Shell, Stage
from stage import stage as make_stage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

IMAGE = "test-client"
LEDGER = """\
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: shared}
spec: {serves: {classes: [disk, rng, serial, port]}}
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: ledger}
spec:
  existing: {domain: ledger-db}
  devices:
    - {name: log, class: disk, parameters: {size: 8MiB}}
    - {name: entropy, class: rng}
    - {name: gps, class: serial, frontend: pci-serial, parameters: {program: nmea}}
"""
MORE = """\
    - {name: stick, class: usb, parameters: {massStorage: {size: 10MiB}}}
    - {name: tree, class: filesystem, parameters: {size: 4MiB}}
    - {name: mirror, class: port, parameters: {command: [/usr/lib/devicevm/echo]}}
---
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: sticks}
spec: {serves: {classes: [usb]}}
---
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: trees}
spec: {serves: {classes: [filesystem]}}
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: archive}
spec:
  existing: {domain: archive}
  devices:
    - {name: log, class: disk, frontend: sata, parameters: {size: 8MiB}}
    - {name: entropy, class: rng}
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: lab}
spec:
  vmm: {}
  devices:
    - {name: data, class: disk, parameters: {size: 9MiB}}
    - {name: noise, class: rng}
    - {name: gps, class: serial, parameters: {program: nmea}}
    - {name: stick, class: usb, parameters: {massStorage: {size: 11MiB}}}
    - {name: tree, class: filesystem, parameters: {size: 4MiB}}
    - {name: mirror, class: port, parameters: {command: [/usr/lib/devicevm/echo]}}
"""


@pytest.fixture(scope="module")
def stage(images: None) -> Iterator[Stage]:
    """One VMM for all tests here, and at the end nothing of devicevm's on it."""
    if reason := why_not():
        pytest.skip(reason)
    subprocess.run([sys.executable, "-m", "devicevm.cli", "image", "build", "usb", "files"], check=True, timeout=900)
    with make_stage() as made:
        yield made
        assert made.sockets() == []


def written(stage: Stage, text: str) -> Path:
    path = stage.folder / "manifest.yaml"
    path.write_text(text)
    return path


def disk_of_size(shell: Shell, mebibytes: int) -> str:
    """The guest's disk of that size, which may be looked for in its own time."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for line in shell.run("cat /proc/partitions").splitlines()[2:]:
            fields = line.split()
            if len(fields) == 4 and fields[2] == str(mebibytes * 1024):
                return f"/dev/{fields[3]}"
        time.sleep(0.2)
    raise AssertionError(shell.run("cat /proc/partitions; dmesg | tail -n 20"))


def use_disk(shell: Shell, device: str) -> None:
    shell.run(f"mkfs.ext4 -q -F {device} && mkdir -p /mnt && mount {device} /mnt")
    shell.run("dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null; cp /tmp/a /mnt/a; sync")
    shell.run("umount /mnt; echo 3 >/proc/sys/vm/drop_caches")
    shell.run(f"e2fsck -f -n {device} && mount {device} /mnt && cmp /tmp/a /mnt/a && umount /mnt")


def definition(stage: Stage, name: str) -> str:
    return stage.virsh("dumpxml", "--inactive", name)


def ours(stage: Stage, name: str) -> list[str]:
    """The aliases of devicevm's devices in a running domain, as virsh shows them."""
    tree = ElementTree.fromstring(stage.virsh("dumpxml", name))
    aliases = (item.get("name", "") for item in tree.iterfind("devices/*/alias"))
    return [alias for alias in aliases if alias.startswith("ua-devicevm-")]


def use_devices(shell: Shell, disk: int, stick: int, port: str) -> None:
    """A device of each class that there is, judged by the guest's own tools. Disks are told apart by their MiB."""
    # There was no USB when it booted, perhaps, and 9p is on no bus.
    load = "cat /etc/devicevm/modules.usb /etc/devicevm/modules.tree | while read -r module; do insmod $module; done"
    shell.run(f"{load} 2>/dev/null || true")
    use_disk(shell, disk_of_size(shell, disk))
    use_disk(shell, disk_of_size(shell, stick))
    assert "1d6b:0104" in shell.run("lsusb")
    assert "virtio_rng" in shell.run("cat /sys/class/misc/hw_random/rng_available")
    shell.run("dd if=/dev/hwrng of=/tmp/r bs=16 count=1 2>/dev/null; test $(wc -c </tmp/r) -eq 16")
    assert shell.run(f"stty -F {port} raw -echo; timeout 20 head -n 2 <{port} | tail -n 1").startswith("$GP")
    find = "for name in /sys/class/virtio-ports/*/name; do grep -qx mirror $name && basename ${name%/name}; done; true"
    (mirror,) = shell.run(find).split()
    shell.run(f"exec 4<>/dev/{mirror}; cat /tmp/a >&4 & head -c 1048576 <&4 | cmp - /tmp/a; exec 4>&-")
    shell.run(
        "mkdir -p /srv; mount.devicevm tree /srv; cp /tmp/a /srv/a; umount /srv; echo 3 >/proc/sys/vm/drop_caches"
    )
    shell.run("mount.devicevm tree /srv; cmp /tmp/a /srv/a; umount /srv")


def give_endpoints(stage: Stage, manifest: Path) -> None:
    """Nothing of devicevm's takes part in the domain: what it prints is in an XML that virsh defines and starts."""
    devices = {one["device"]: one for one in stage.json("status")["devices"] if one["client"] == "lab"}
    assert {(one["consumer"], one["state"]) for one in devices.values()} == {("vmm", "ready")}
    xml = ""
    for name, device in devices.items():
        number = ("--number", "1") if name == "data" else ()
        given = stage.devicevm("endpoint", manifest, f"lab/{name}", *number).stdout
        assert device["address"] in given
        xml += given
    define(stage, "bench", IMAGE, more=xml)
    stage.virsh("start", "bench")
    shell = Shell(stage.folder / "bench.shell")
    use_devices(shell, 9, 11, "/dev/ttyS1")
    states = {one["state"] for one in stage.json("status")["devices"] if one["client"] == "lab"}
    assert states == {"connected"}
    shell.close()
    stage.virsh("destroy", "bench")
    stage.virsh("undefine", "bench")


def test_domains_of_others_are_given_devices_and_lose_them(stage: Stage) -> None:
    """One that runs, one that is stopped, and one that is defined with what `endpoint` prints."""
    manifest = written(stage, LEDGER + MORE)
    define(stage, "ledger-db", IMAGE)
    define(stage, "archive", IMAGE, "pc")
    stage.virsh("start", "ledger-db")
    shell = Shell(stage.folder / "ledger-db.shell")
    shell.run("true")  # it is up: what its guest has done to its XML is done
    process = stage.process("ledger-db")
    before = {name: definition(stage, name) for name in ("ledger-db", "archive")}
    live = stage.virsh("dumpxml", "ledger-db")

    steps = {step["id"]: step for step in stage.json("plan", manifest)["steps"]}
    assert steps["attach/client/ledger"]["effect"] == "live"
    assert steps["attach/client/archive"]["effect"] == "none"
    stage.devicevm("apply", manifest)
    irq = "for t in /sys/class/tty/ttyS*; do [ -e $t/device/vendor ] && echo /dev/${t##*/}; done; true"
    (port,) = shell.run(irq).split()
    use_devices(shell, 8, 10, port)
    assert "No changes" in stage.devicevm("apply", manifest).stdout
    give_endpoints(stage, manifest)

    # Somebody takes one of them out: it is seen, and put right.
    (alias,) = (alias for alias in ours(stage, "ledger-db") if alias.endswith("-entropy"))
    stage.virsh("detach-device-alias", "ledger-db", alias, "--live")
    end = time.monotonic() + 20
    while alias in ours(stage, "ledger-db") and time.monotonic() < end:
        time.sleep(0.2)
    assert [step["id"] for step in stage.json("plan", manifest)["steps"]] == ["attach/client/ledger"]
    stage.devicevm("apply", manifest)
    assert alias in ours(stage, "ledger-db")

    stage.devicevm("destroy", "--yes", manifest)
    assert {name: definition(stage, name) for name in before} == before
    assert stage.virsh("dumpxml", "ledger-db") == live
    assert (stage.process("ledger-db"), stage.domains()) == (process, ["archive", "ledger-db"])
    assert (stage.folder / "ledger-db.img").read_bytes() == b"ledger-db" * 4096
    shell.close()
    stage.virsh("destroy", "ledger-db")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_apply_and_a_destroy_that_are_killed_anywhere_are_finished(stage: Stage) -> None:
    """SIGKILL at twelve moments: the domain goes on all the time, and is in the end as it was."""
    manifest = written(stage, LEDGER)
    define(stage, "ledger-db", IMAGE)
    stage.virsh("start", "ledger-db")
    shell = Shell(stage.folder / "ledger-db.shell")
    shell.run("true")
    process = stage.process("ledger-db")
    before, live = definition(stage, "ledger-db"), stage.virsh("dumpxml", "ledger-db")
    for number in range(6):
        for command in (["apply", manifest], ["destroy", "--yes", manifest]):
            killed = stage.start(*command)
            # What is done takes about six seconds on an idle machine: something else is in the midst each time.
            time.sleep(1.0 + number)
            killed.send_signal(signal.SIGKILL)
            killed.communicate(timeout=60)
        # libvirt may still be about what the killed command has asked it for: then the first one fails.
        stage.devicevm("apply", manifest, ok=False)
        stage.devicevm("apply", manifest)
        assert "No changes" in stage.devicevm("apply", manifest).stdout
        use_disk(shell, disk_of_size(shell, 8))
        stage.devicevm("destroy", "--yes", manifest)
        assert (definition(stage, "ledger-db"), stage.virsh("dumpxml", "ledger-db")) == (before, live)
    assert stage.process("ledger-db") == process
    shell.close()
