"""Device VMs without operating system: a thermometer as microcontroller ELF, UEFI application and ROM, built from
examples/firmware and declared as in examples/resource-firmware.yaml, at an ordinary serial port of a client."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from devicevm.apply.progress import Progress
from devicevm.apply.workflow import Options, carry_out
from devicevm.planner.plan import Action, Effect, Phase, Plan, Step, Subject
from devicevm.vmm.driver import Driver
from devicevm.vmm.firmware import firmware_digest
from devicevm.vmm.registry import open_driver
from manifests import with_shell, write
from stage import Shell, Stage
from stage_collection import REPO

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = REPO / "examples" / "resource-firmware.yaml"
CLIENT, DEVICE_VM = "firmware-user", "firmware-user-dvm"
KINDS = {
    "elf": ("lm3s6965", "qemu-system-arm"),
    "uefi": ("uefi", "qemu-system-x86_64"),
    "rom": ("rom", "qemu-system-x86_64"),
}
"""Kind -> what the instrument calls itself, and the program that runs it."""
SUFFIXES = {"elf": "elf", "uefi": "efi", "rom": "rom"}
ASK = "stty -F /dev/ttyS1 raw -echo; exec 3<>/dev/ttyS1; echo '{}' >&3; timeout 30 head -n 1 <&3; exec 3>&-"


def program(*names: str) -> str | None:
    """The first of these programs that there is."""
    return next((name for name in names if shutil.which(name)), None)


def build(kind: str, folder: Path) -> Path:
    """The thermometer, from source."""
    clang, lld = program("clang", "clang-14"), program("ld.lld", "ld.lld-14")
    if kind == "elf" and not (clang and lld):
        pytest.skip("clang and lld are not installed: they build for the microcontroller, and need 170 MB")
    target = folder / f"thermometer.{SUFFIXES[kind]}"
    sources = REPO / "examples" / "firmware"
    command = ["make", "-C", sources, f"O={folder}", f"CLANG={clang}", f"LLD={lld}", target]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    """The example's class and client."""
    class_, client = yaml.safe_load_all(EXAMPLE.read_text())
    return class_, client


def manifest(stage: Stage, kind: str, *, expect: str = "") -> Path:
    """The example with this kind of firmware alone; `expect` is another answer than the right one."""
    if not shutil.which(KINDS[kind][1]):
        pytest.skip(f"{KINDS[kind][1]} is not installed")
    class_, client = documents()
    (firmware,) = [one["firmware"] for one in class_["spec"]["resources"] if one["firmware"]["kind"] == kind]
    firmware["file"] = build(kind, stage.folder).name
    class_["spec"]["resources"] = [{"firmware": firmware}]
    if expect:
        class_["spec"]["program"]["expect"] = expect
    return write(stage.folder, class_, with_shell(client, stage))


@pytest.fixture
def driver(stage: Stage) -> Iterator[Driver]:
    """On the stage's VMM; the test's own domains are removed after it."""
    with open_driver(stage.uri, accelerator="tcg") as opened:
        yield opened
        for seen in opened.observe():
            opened.stop(seen.name)
            opened.undefine(seen.name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_measures_with_an_instrument_that_is_firmware(kind: str, stage: Stage, driver: Driver) -> None:
    model, qemu = KINDS[kind]
    path = manifest(stage, kind)
    image = stage.folder / f"thermometer.{SUFFIXES[kind]}"
    (allocation,) = stage.json("plan", path)["allocations"]
    assert allocation["firmware"] == str(image)
    assert any(firmware_digest(str(image))[:12] in reason for reason in allocation["reasons"])
    stage.devicevm("apply", path)
    assert stage.devicevm("apply", path).stdout == "No changes.\n"

    shell = Shell(stage.folder / f"{CLIENT}.shell")
    assert shell.run(ASK.format("*IDN?")).strip() == f"devicevm,thermometer,{model},1"
    measured = [shell.run(ASK.format("meas:temp?")).strip() for _ in range(3)]
    assert measured == ["21.5", "21.6", "21.7"]
    shell.run("echo nonsense >/dev/ttyS1")
    assert shell.run(ASK.format("SYST:ERR?")).strip() == '-113,"Undefined header"'
    assert shell.run(ASK.format("SYST:ERR?")).strip() == '0,"No error"'

    # What libvirt and the kernel say: that program runs the image, and nothing else.
    command = Path(f"/proc/{stage.process(DEVICE_VM)}/cmdline").read_text().split("\0")
    assert Path(command[0]).name == qemu
    assert any(str(image) in word for word in command)
    assert not {"-initrd", "-append"} & set(command)
    assert not any("virtio" in word or "fw_cfg" in word for word in command)

    for seen in driver.observe():
        assert (seen.drift, seen.live_drift, seen.broken, seen.ready) == ((), (), "", True), seen.name
    assert [device["state"] for device in stage.json("status")["devices"]] == ["connected"]
    shell.close()
    stage.devicevm("destroy", "--yes", path)
    assert stage.domains() == []


def test_a_client_outlives_a_restart_of_its_instrument(stage: Stage, driver: Driver) -> None:
    path = manifest(stage, "rom")
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / f"{CLIENT}.shell")
    boot = shell.run("cat /proc/sys/kernel/random/boot_id")
    assert shell.run(ASK.format("MEAS:TEMP?")).strip() == "21.5"
    stage.virsh("destroy", DEVICE_VM)
    assert [device["state"] for device in stage.json("status")["devices"]] == ["stopped"]
    # Its client comes back by itself, perhaps before the probe: both are right.
    stage.devicevm("apply", path)
    shell.run("sleep 2")
    assert shell.run(ASK.format("*IDN?")).strip() == "devicevm,thermometer,rom,1"
    assert shell.run(ASK.format("MEAS:TEMP?")).strip() == "21.5", "it was started anew"

    # Another image: the plan says so, and the instrument is started anew with it.
    image = stage.folder / "thermometer.rom"
    image.write_bytes(image.read_bytes().replace(b"thermometer,", b"calorimeter,"))
    changed = path.read_text().replace("devicevm,thermometer", "devicevm,calorimeter")
    path.write_text(changed)
    steps = {step["id"]: step["effect"] for step in stage.json("plan", path)["steps"]}
    assert steps[f"stop/device-vm/{DEVICE_VM}"] == "reconnect"
    assert f"stop/client/{CLIENT}" not in steps
    stage.devicevm("apply", path)
    shell.run("sleep 2")
    assert shell.run(ASK.format("*IDN?")).strip() == "devicevm,calorimeter,rom,1"
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == boot
    shell.close()


def test_firmware_that_does_not_answer_is_undone_with_the_reason(stage: Stage) -> None:
    result = stage.devicevm("apply", "--timeout", "4", manifest(stage, "rom", expect="oscilloscope"), ok=False)
    assert result.returncode == 1
    said = result.stdout + result.stderr
    assert f"{CLIENT}.temp" in said
    assert "thermometer,rom" in said, "what came instead"
    assert stage.domains() == []


def test_firmware_that_has_changed_since_the_plan_does_not_start(stage: Stage) -> None:
    path, image = manifest(stage, "rom"), stage.folder / "thermometer.rom"
    stage.devicevm("plan", path, "--out", stage.folder / "plan.json")
    image.write_bytes(image.read_bytes()[::-1])
    result = stage.devicevm("apply", stage.folder / "plan.json", ok=False)
    assert result.returncode == 1
    assert "is not what the plan was made with" in result.stdout + result.stderr
    assert stage.domains() == []

    # One that is not there at all is a result of the plan.
    image.unlink()
    (item,) = json.loads(stage.devicevm("plan", path, "-o", "json", ok=False).stdout)["unplaced"]
    assert f"{image}: cannot be read: No such file or directory" in item["reasons"][0]


def test_the_command_line_knows_that_firmware_has_nobody_to_ask(stage: Stage, driver: Driver) -> None:
    path = manifest(stage, "rom")
    stage.devicevm("apply", path)
    stage.virsh("destroy", CLIENT)
    (device,) = stage.json("status")["devices"]
    assert device["state"] == "running"
    logs = stage.devicevm("logs", DEVICE_VM, "-o", "json")
    assert json.loads(logs.stdout) == {"name": DEVICE_VM, "console": [], "agent": [], "parts": {}}
    assert "no console and no agent" in logs.stderr
    console = stage.devicevm("console", DEVICE_VM, ok=False)
    assert console.returncode == 1
    assert "its serial ports are its devices" in console.stderr

    # A device more cannot be given to a machine that runs.
    (served,) = [seen.spec for seen in driver.observe() if seen.name == DEVICE_VM]
    assert served is not None
    more = replace(served, emulators=(*served.emulators, replace(served.emulators[0], name="more")))
    step = Step("update", Action.UPDATE, Subject.DEVICE_VM, DEVICE_VM, Phase.CONFIGURE, Effect.LIVE, "")
    plan = Plan(served.owner, "0", (step,), domains=(more,), previous=(served,))
    outcome = carry_out(plan, driver, driver.host(), Options(), Progress())
    assert "cannot change while it runs" in outcome.errors["update"].message
    assert served in [seen.spec for seen in driver.observe()]
