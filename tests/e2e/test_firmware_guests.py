"""Device VMs without operating system: a thermometer as microcontroller ELF, UEFI application and ROM, built from
examples/firmware, at an ordinary serial port of a client."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.apply.outcome import Outcome
from devicevm.apply.progress import Progress
from devicevm.apply.workflow import Options, carry_out
from devicevm.domain import Attachment, Channel, DomainSpec, Emulator, Firmware, FirmwareKind, Role
from devicevm.health import check_health
from devicevm.manifest.topology import Boot
from devicevm.planner import naming
from devicevm.planner.plan import Action, Effect, Phase, Plan, Step, Subject
from devicevm.vmm.driver import Driver
from devicevm.vmm.firmware import firmware_digest
from devicevm.vmm.registry import open_driver
from stage import Shell, Stage, shell_port
from stage_collection import REPO

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MIB = 2**20
OWNER = "lab"
CLIENT, DEVICE_VM = "a", "a-firmware"
MACHINES = {
    "elf": ("armv7l", "lm3s6965evb", 16 * MIB, "lm3s6965", "qemu-system-arm"),
    "uefi": ("x86_64", "pc", 64 * MIB, "uefi", "qemu-system-x86_64"),
    "rom": ("x86_64", "pc", 2 * MIB, "rom", "qemu-system-x86_64"),
}
"""Kind -> architecture, machine, bytes of memory, what the instrument calls itself, and the program that runs it."""
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


@pytest.fixture
def driver(stage: Stage) -> Iterator[Driver]:
    """On the stage's VMM; the test's own domains are removed after it."""
    with open_driver(stage.uri, accelerator="tcg") as opened:
        yield opened
        for seen in opened.observe():
            opened.stop(seen.name)
            opened.undefine(seen.name)


def device_vm(driver: Driver, kind: str, image: Path, expect: str) -> DomainSpec:
    """A device VM that is a thermometer."""
    arch, machine, memory, _, qemu = MACHINES[kind]
    if not shutil.which(qemu):
        pytest.skip(f"{qemu} is not installed")
    runtime = driver.host().vmm.runtime_dir
    channel = Channel("stream", naming.channel_address(runtime, OWNER, DEVICE_VM, f"{CLIENT}.temp"), f"{CLIENT}.temp")
    return DomainSpec(
        name=DEVICE_VM,
        uuid=naming.domain_uuid(OWNER, DEVICE_VM),
        role=Role.DEVICE_VM,
        owner=OWNER,
        host=driver.host().name,
        vcpus=1,
        memory=memory,
        accelerator="tcg",
        arch=arch,
        machine=machine,
        boot=Boot(),
        emulators=(Emulator(CLIENT, "temp", "thermometer", channel, (), ask="*IDN?\n", expect=expect),),
        firmware=Firmware(FirmwareKind(kind), str(image), firmware_digest(str(image))),
    )


def client(driver: Driver, of: DomainSpec, stage: Stage) -> DomainSpec:
    """A client with the thermometer at its second serial port."""
    host = driver.host()
    image = next(image for image in host.images if image.name == "client")
    channel = of.emulators[0].channel
    return DomainSpec(
        name=CLIENT,
        uuid=naming.domain_uuid(OWNER, CLIENT),
        role=Role.CLIENT,
        owner=OWNER,
        host=host.name,
        vcpus=1,
        memory=256 * MIB,
        accelerator="tcg",
        arch="x86_64",
        machine="q35",
        boot=Boot(kernel=image.kernel, initrd=image.initramfs, command_line=image.command_line),
        attachments=(Attachment("temp", "thermometer", "isa-serial", channel, DEVICE_VM, 0),),
        console=naming.console_log(host.vmm.runtime_dir, CLIENT),
        domain_xml=shell_port(stage.folder / "a.shell"),
    )


def start(driver: Driver, *specs: DomainSpec, timeout: float = 60) -> Outcome:
    """Define and start these, one after the other, as a plan does."""
    steps: list[Step] = []
    for spec in specs:
        subject = Subject.DEVICE_VM if spec.role is Role.DEVICE_VM else Subject.CLIENT
        for action in (Action.DEFINE, Action.START):
            after = (steps[-1].id,) if steps else ()
            key = f"{action.value}/{subject.value}/{spec.name}"
            steps.append(Step(key, action, subject, spec.name, Phase.REQUEST, Effect.NONE, "", after))
    plan = Plan(OWNER, "0", tuple(steps), domains=specs)
    return carry_out(plan, driver, driver.host(), Options(timeout=timeout), Progress())


@pytest.mark.parametrize("kind", MACHINES)
def test_a_client_measures_with_an_instrument_that_is_firmware(kind: str, stage: Stage, driver: Driver) -> None:
    model, qemu = MACHINES[kind][3:]
    served = device_vm(driver, kind, build(kind, stage.folder), f"devicevm,thermometer,{model},1\n")
    outcome = start(driver, served, client(driver, served, stage))
    assert not outcome.errors, outcome.errors

    shell = Shell(stage.folder / "a.shell")
    assert shell.run(ASK.format("*IDN?")).strip() == f"devicevm,thermometer,{model},1"
    measured = [shell.run(ASK.format("meas:temp?")).strip() for _ in range(3)]
    assert measured == ["21.5", "21.6", "21.7"]
    shell.run("echo nonsense >/dev/ttyS1")
    assert shell.run(ASK.format("SYST:ERR?")).strip() == '-113,"Undefined header"'
    assert shell.run(ASK.format("SYST:ERR?")).strip() == '0,"No error"'

    # What libvirt and the kernel say: that program runs the image, and nothing else.
    (pid,) = [pid for pid in stage.processes() if DEVICE_VM in Path(f"/proc/{pid}/cmdline").read_text()]
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    assert Path(command[0]).name == qemu
    assert served.firmware is not None
    assert any(served.firmware.path in word for word in command)
    assert not {"-initrd", "-append"} & set(command)
    assert not any("virtio" in word or "fw_cfg" in word for word in command)

    for seen in driver.observe():
        assert (seen.drift, seen.live_drift, seen.broken, seen.ready) == ((), (), "", True), seen.name
    assert [device.state for device in check_health(driver, driver.host().vmm.supports).devices] == ["connected"]
    shell.close()


def test_a_client_outlives_a_restart_of_its_instrument(stage: Stage, driver: Driver) -> None:
    served = device_vm(driver, "rom", build("rom", stage.folder), "thermometer")
    assert not start(driver, served, client(driver, served, stage)).errors
    shell = Shell(stage.folder / "a.shell")
    assert shell.run(ASK.format("MEAS:TEMP?")).strip() == "21.5"
    stage.virsh("destroy", DEVICE_VM)
    assert [device.state for device in check_health(driver, driver.host().vmm.supports).devices] == ["stopped"]
    # Its client comes back by itself, perhaps before the probe: both are right.
    assert not start(driver, served).errors
    shell.run("sleep 2")
    assert shell.run(ASK.format("*IDN?")).strip() == "devicevm,thermometer,rom,1"
    assert shell.run(ASK.format("MEAS:TEMP?")).strip() == "21.5", "it was started anew"
    shell.close()


def test_firmware_that_does_not_answer_is_undone_with_the_reason(stage: Stage, driver: Driver) -> None:
    served = device_vm(driver, "rom", build("rom", stage.folder), "oscilloscope")
    outcome = start(driver, served, timeout=4)
    (error,) = outcome.errors.values()
    assert "a.temp" in error.message
    assert "thermometer,rom" in error.message, "what came instead"
    assert stage.domains() == []


def test_firmware_that_has_changed_since_the_plan_does_not_start(stage: Stage, driver: Driver) -> None:
    image = build("rom", stage.folder)
    served = device_vm(driver, "rom", image, "thermometer")
    image.write_bytes(image.read_bytes()[::-1])
    (error,) = start(driver, served).errors.values()
    assert "is not what the plan was made with" in error.message
    assert stage.domains() == []


def test_the_command_line_knows_that_firmware_has_nobody_to_ask(stage: Stage, driver: Driver) -> None:
    served = device_vm(driver, "rom", build("rom", stage.folder), "thermometer")
    assert not start(driver, served).errors
    (device,) = stage.json("status")["devices"]
    assert device["state"] == "running"
    logs = stage.devicevm("logs", DEVICE_VM, "-o", "json")
    assert json.loads(logs.stdout) == {"name": DEVICE_VM, "console": [], "agent": []}
    assert "no console and no agent" in logs.stderr
    console = stage.devicevm("console", DEVICE_VM, ok=False)
    assert console.returncode == 1
    assert "its serial ports are its devices" in console.stderr

    # A device more cannot be given to a machine that runs.
    other = replace(served.emulators[0], name="more")
    more = replace(served, emulators=(*served.emulators, other))
    step = Step("update", Action.UPDATE, Subject.DEVICE_VM, DEVICE_VM, Phase.CONFIGURE, Effect.LIVE, "")
    plan = Plan(OWNER, "0", (step,), domains=(more,), previous=(served,))
    outcome = carry_out(plan, driver, driver.host(), Options(), Progress())
    assert "cannot change while it runs" in outcome.errors["update"].message
    (seen,) = driver.observe()
    assert seen.spec == served
