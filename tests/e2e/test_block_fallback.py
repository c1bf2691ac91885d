"""A class that asks for a card first, and for its simulation where there is none: examples/resource-block.yaml."""

from __future__ import annotations

import binascii
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from manifests import with_shell, write
from stage import Shell, Stage
from stage_collection import REPO

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

EXAMPLE = REPO / "examples" / "resource-block.yaml"
SOURCES = REPO / "examples" / "fpga"


@pytest.fixture(scope="module", autouse=True)
def simulator() -> None:
    """The image with the simulator, built or found."""
    command = [sys.executable, "-m", "devicevm.cli", "image", "build", "simulator"]
    subprocess.run(command, check=True, timeout=900)


def design(stage: Stage, *, taps: str = "B400") -> Path:
    """The example's design, with other taps for its generator if so asked."""
    text = (SOURCES / "instrument.v").read_text().replace("16'hB400", f"16'h{taps}")
    data = (text + (SOURCES / "serial_shell.v").read_text()).encode()
    path = stage.folder / "instrument.design"
    path.write_bytes(data + bytes(-len(data) % 512))
    return path


def manifest(stage: Stage) -> Path:
    """The example, with its design in the stage's folder and a shell in its client."""
    class_, client = yaml.safe_load_all(EXAMPLE.read_text())
    (simulated,) = [one["block"] for one in class_["spec"]["resources"] if one["block"].get("provider") == "simulated"]
    simulated["design"] = "instrument.design"
    return write(stage.folder, class_, with_shell(client, stage))


def test_where_there_is_no_card_its_simulation_answers_a_client(stage: Stage) -> None:
    path, circuit = manifest(stage), design(stage)
    (allocation,) = stage.json("plan", path)["allocations"]
    assert "no PCI function of vendor 0x1172, device 0x0004 is there" in allocation["reasons"][0]
    digest = hashlib.sha256(circuit.read_bytes()).hexdigest()
    assert f"simulates {circuit} (SHA-256 {digest[:12]})" in allocation["reasons"][1]
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "block-user.shell")
    assert shell.ask(b"I", 4) == b"DVM1"
    for data in (b"123456789", bytes(range(64))):
        wanted = binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "big")
        assert shell.ask(b"C" + bytes([len(data)]) + data, 2) == wanted
    assert "No changes" in stage.devicevm("apply", path).stdout

    # Another circuit in the same file is seen, told, and in force without a restart of anything.
    boot = shell.run("cat /proc/sys/kernel/random/boot_id")
    first = shell.ask(b"S\x12\x34R\x04", 5)
    design(stage, taps="A6A6")
    steps = stage.json("plan", path)["steps"]
    assert [(step["id"], step["effect"]) for step in steps] == [("update/device-vm/block-user-dvm", "reconnect")]
    simulator = stage.process("block-user-dvm")
    stage.devicevm("apply", path)
    assert stage.process("block-user-dvm") == simulator
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == boot
    other = shell.ask(b"S\x12\x34R\x04", 5)
    assert (first[:1], other[:1]) == (b"K", b"K")
    assert first != other
    shell.close()
    stage.devicevm("destroy", "--yes", "--delete-data", path)
    assert circuit.exists()


def test_a_design_that_is_not_there_or_not_whole_is_a_reason(stage: Stage) -> None:
    path = manifest(stage)
    told = stage.devicevm("plan", path, ok=False)
    assert "instrument.design: cannot be read: No such file or directory" in told.stdout
    (stage.folder / "instrument.design").write_bytes(b"module m; endmodule\n")
    told = stage.devicevm("plan", path, ok=False)
    assert "has 20 bytes, which are no whole sectors of 512" in told.stdout
