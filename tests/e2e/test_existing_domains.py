"""Domains that others have made, by virsh alone: they are given devices, use them, and lose nothing but these again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from private_libvirtd import why_not
from stage import Shell, Stage
from stage import stage as make_stage

pytestmark = pytest.mark.e2e

THEIRS = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initramfs}</initrd><cmdline>{command_line}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    {ports}
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
    <serial type='null'/>
    <channel type='unix'>
      <source mode='bind' path='{shell}'/><target type='virtio' name='org.devicevm.shell'/>
    </channel>
    {more}
    <video><model type='none'/></video>
  </devices>
</domain>
"""
# As people keep them for hot-plug.
SPARE = "<controller type='pci' index='0' model='pcie-root'/>" + "".join(
    f"<controller type='pci' index='{n}' model='pcie-root-port'/>" for n in range(1, 12)
)

MANIFEST = """\
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: shared}
spec: {serves: {classes: [disk, rng, serial]}}
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
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: archive}
spec:
  existing: {domain: archive}
  devices:
    - {name: log, class: disk, frontend: sata, parameters: {size: 8MiB}}
    - {name: entropy, class: rng}
"""
ENDPOINT = """\
apiVersion: devicevm/v1
kind: Client
metadata: {name: lab}
spec:
  vmm: {}
  devices: [{name: data, class: disk, parameters: {size: 9MiB}}]
"""


@pytest.fixture(scope="module")
def stage(images: None) -> Iterator[Stage]:
    """One VMM for all tests here, and at the end nothing of devicevm's on it."""
    if reason := why_not():
        pytest.skip(reason)
    with make_stage() as made:
        yield made
        assert made.sockets() == []


def written(stage: Stage, text: str) -> Path:
    path = stage.folder / "manifest.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def image(stage: Stage) -> dict[str, str]:
    """What the domains boot: kernel, initial RAM disk and command line."""
    (found,) = (one for one in stage.json("inventory")["images"] if one["name"] == "client")
    return found  # type: ignore[no-any-return]


def define(stage: Stage, image: dict[str, str], name: str, machine: str, more: str = "") -> None:
    """A domain as somebody else would make it, with a disk of its own."""
    disk = stage.folder / f"{name}.img"
    disk.write_bytes(name.encode() * 4096)
    disk.chmod(0o666)
    path = stage.folder / f"{name}.xml"
    path.write_text(
        THEIRS.format(
            name=name,
            machine=machine,
            kernel=image["kernel"],
            initramfs=image["initramfs"],
            command_line=image["commandLine"],
            ports=SPARE if machine == "q35" else "",
            disk=disk,
            shell=stage.folder / f"{name}.shell",
            more=more,
        )
    )
    stage.virsh("define", str(path))


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


def test_a_running_and_a_stopped_domain_are_given_devices_and_lose_them(stage: Stage, image: dict[str, str]) -> None:
    manifest = written(stage, MANIFEST)
    define(stage, image, "ledger-db", "q35")
    define(stage, image, "archive", "pc")
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
    use_disk(shell, disk_of_size(shell, 8))
    assert "virtio_rng" in shell.run("cat /sys/class/misc/hw_random/rng_available")
    shell.run("dd if=/dev/hwrng of=/tmp/r bs=16 count=1 2>/dev/null; test $(wc -c </tmp/r) -eq 16")
    irq = "for t in /sys/class/tty/ttyS*; do [ -e $t/device/vendor ] && echo /dev/${t##*/}; done; true"
    (port,) = shell.run(irq).split()
    assert shell.run(f"stty -F {port} raw -echo; timeout 20 head -n 2 <{port} | tail -n 1").startswith("$GP")
    assert "No changes" in stage.devicevm("apply", manifest).stdout

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


def test_any_domain_can_be_given_an_endpoint(stage: Stage, image: dict[str, str]) -> None:
    """Nothing of devicevm's takes part in the domain: what it prints is in an XML that virsh defines and starts."""
    manifest = written(stage, ENDPOINT)
    stage.devicevm("apply", manifest)
    (device,) = stage.json("status")["devices"]
    assert (device["client"], device["consumer"], device["state"]) == ("lab", "vmm", "ready")
    xml = stage.devicevm("endpoint", manifest, "lab/data", "--number", "1").stdout
    assert device["address"] in xml
    define(stage, image, "bench", "q35", xml)
    stage.virsh("start", "bench")
    shell = Shell(stage.folder / "bench.shell")
    use_disk(shell, disk_of_size(shell, 9))
    assert [one["state"] for one in stage.json("status")["devices"]] == ["connected"]
    shell.close()
    stage.virsh("destroy", "bench")
    stage.devicevm("destroy", "--yes", manifest)
    assert not [name for name in stage.domains() if "dvm" in name]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_apply_and_a_destroy_that_are_killed_anywhere_are_finished(stage: Stage, image: dict[str, str]) -> None:
    """SIGKILL at twelve moments: the domain goes on all the time, and is in the end as it was."""
    manifest = written(stage, MANIFEST.rpartition("---\n")[0])
    define(stage, image, "ledger-db", "q35")
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
