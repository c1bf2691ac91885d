"""A reconfigurable device in simulation: a Verilog design answers a real client's serial port from a device VM."""

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

pytestmark = pytest.mark.e2e

EXAMPLE = REPO / "examples" / "fpga"
RECIPE = REPO / "images" / "simulator.yaml"
TAPS = 0xB400


@pytest.fixture(scope="module", autouse=True)
def simulator() -> None:
    """The image with the simulator, built or found."""
    command = [sys.executable, "-m", "devicevm.cli", "image", "build", "simulator"]
    subprocess.run(command, check=True, timeout=900)


def source(*, taps: int = TAPS) -> str:
    """The example's Verilog, with other taps for its generator if so asked."""
    text = (EXAMPLE / "instrument.v").read_text()
    assert text.count("16'hB400") == 1
    return text.replace("16'hB400", f"16'h{taps:04X}") + (EXAMPLE / "serial_shell.v").read_text()


def manifest(stage: Stage, verilog: str) -> Path:
    """The example's manifest for a design of this source, which is written beside it under its checksum's name."""
    data = verilog.encode()
    data += bytes(-len(data) % 512)
    digest = hashlib.sha256(data).hexdigest()
    design = stage.folder / f"{digest[:12]}.design"
    design.write_bytes(data)
    device_class, client = yaml.safe_load_all((EXAMPLE / "instrument.yaml").read_text())
    (device,) = client["spec"]["devices"]
    device["parameters"] = {"store": {"file": str(design)}, "size": len(data), "sha256": digest}
    return write(stage.folder, device_class, with_shell(client, stage))


def generator(seed: int, count: int, taps: int = TAPS) -> bytes:
    """The Galois LFSR by its definition: eight shifts a byte."""
    made = bytearray()
    for _ in range(count):
        for _ in range(8):
            seed = seed >> 1 ^ (taps if seed & 1 else 0)
        made.append(seed & 0xFF)
    return bytes(made)


def test_a_design_answers_a_client_and_is_reconfigured(stage: Stage) -> None:
    stage.devicevm("apply", RECIPE, path := manifest(stage, source()))
    shell = Shell(stage.folder / "lab.shell")
    assert shell.ask(b"I", 4) == b"DVM1"
    # Python's CRC is another's work. Bytes of every kind, those that a terminal would change among them.
    for data in (b"", b"123456789", bytes(range(128)), hashlib.sha512(b"7").digest() * 3):
        wanted = binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "big")
        assert shell.ask(b"C" + bytes([len(data)]) + data, 2) == wanted
    assert shell.ask(b"S\x12\x34R\xff", 256) == b"K" + generator(0x1234, 255)
    # The design goes on where it was: its registers outlive a query.
    assert shell.ask(b"R\x05", 5) == generator(0x1234, 260)[255:]
    assert "No changes" in stage.devicevm("apply", RECIPE, path).stdout

    # Another design: the plan shows it, and the client that runs on gets its answers.
    boot = shell.run("cat /proc/sys/kernel/random/boot_id")
    path = manifest(stage, source(taps=0xA6A6))
    steps = stage.json("plan", RECIPE, path)["steps"]
    assert [(step["id"], step["effect"]) for step in steps] == [("update/device-vm/lab-dvm", "reconnect")]
    stage.devicevm("apply", RECIPE, path)
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == boot
    assert shell.ask(b"S\x12\x34R\x20", 33) == b"K" + generator(0x1234, 32, 0xA6A6)
    stage.devicevm("destroy", "--yes", "--delete-data", path, RECIPE)
    assert len(list(stage.folder.glob("*.design"))) == 2


def test_a_design_that_cannot_run_fails_the_apply(stage: Stage) -> None:
    """With the simulator's words; other designs that it refuses are in tests/unit/test_simulate.py."""
    path = manifest(stage, "module broken; initial begin endmodule\n")
    result = stage.devicevm("apply", "--yes", "--timeout", "60", RECIPE, path, ok=False)
    assert result.returncode == 1
    assert "syntax error" in result.stdout + result.stderr
    stage.devicevm("destroy", "--yes", path, RECIPE)
