"""The program that runs designs in device VMs, and the example's design, on the host and without a VM."""

from __future__ import annotations

import binascii
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from devicevm.manifest.read import check
from stage_collection import REPO

EXAMPLE = REPO / "examples" / "fpga"
SIMULATE = REPO / "plugin" / "guest" / "simulate"
MIB = 2**20

needs_iverilog = pytest.mark.skipif(not shutil.which("iverilog"), reason="iverilog is not installed: make deps")


def example() -> bytes:
    """The design file as the example's first lines say that it is made."""
    text = b"".join((EXAMPLE / name).read_bytes() for name in ("instrument.v", "serial_shell.v"))
    return text + bytes(-len(text) % 512)


def simulate(
    folder: Path, design: bytes, query: bytes = b"", *, sha256: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run the guest's program on a design; its cache is in `folder`."""
    path = folder / "design"
    path.write_bytes(design)
    return subprocess.run(
        [SIMULATE, path, sha256 or hashlib.sha256(design).hexdigest()],
        input=query,
        capture_output=True,
        env={**os.environ, "DESIGNS": str(folder / "designs")},
        timeout=60,
        check=False,
    )


def generator(seed: int, count: int) -> bytes:
    made = bytearray()
    for _ in range(count):
        for _ in range(8):
            seed = seed >> 1 ^ (0xB400 if seed & 1 else 0)
        made.append(seed & 0xFF)
    return bytes(made)


@needs_iverilog
def test_the_example_answers_every_query(tmp_path: Path) -> None:
    data = bytes(range(255))
    crc = binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "big")
    query = b"IC\xff" + data + b"C\0S\x12\x34R\xff?S\0\0R\x03R\0I"
    wanted = b"DVM1" + crc + b"\xff\xffK" + generator(0x1234, 255) + b"?K" + generator(1, 3) + b"DVM1"
    done = simulate(tmp_path, example(), query)
    assert (done.stdout, done.stderr, done.returncode) == (wanted, b"", 0)
    # Now from the cache: a design is compiled once.
    (compiled,) = (tmp_path / "designs").iterdir()
    before = compiled.stat().st_mtime_ns
    assert simulate(tmp_path, example(), b"I").stdout == b"DVM1"
    assert compiled.stat().st_mtime_ns == before


@needs_iverilog
def test_answers_come_before_the_peer_leaves(tmp_path: Path) -> None:
    """A serial line is a conversation: nothing may wait in a buffer."""
    simulate(tmp_path, example())
    command = [SIMULATE, tmp_path / "design", hashlib.sha256(example()).hexdigest()]
    environment = {**os.environ, "DESIGNS": str(tmp_path / "designs")}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
    ) as process:
        assert process.stdin
        assert process.stdout
        for count in range(3):
            process.stdin.write(b"C\x01" + bytes([count]))
            answer = process.stdout.read(1) + process.stdout.read(1)
            assert answer == binascii.crc_hqx(bytes([count]), 0xFFFF).to_bytes(2, "big")
        process.stdin.close()
        assert process.wait(20) == 0


@needs_iverilog
def test_the_example_gives_no_warning(tmp_path: Path) -> None:
    command = ["iverilog", "-g2012", "-Wall", "-Wno-timescale", "-o", tmp_path / "x"]
    done = subprocess.run([*command, *EXAMPLE.glob("*.v")], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""


@needs_iverilog
@pytest.mark.parametrize(
    ("design", "sha256", "says"),
    [
        (b"module a; endmodule\n", "0" * 64, "the design's SHA-256 is"),
        (b" " * MIB + b"\n", "", f"the design is larger than {MIB} bytes"),
        (b"module a; initial begin endmodule\n", "", "the design cannot be compiled"),
    ],
    ids=["another", "large", "wrong"],
)
def test_a_design_that_is_not_run_says_why_and_leaves_nothing(
    tmp_path: Path, design: bytes, sha256: str, says: str
) -> None:
    done = simulate(tmp_path, design, sha256=sha256)
    assert done.returncode == 1
    assert says in done.stderr.decode()
    # Nothing that is no answer ever goes to the peer.
    assert done.stdout == b""
    assert list((tmp_path / "designs").iterdir()) == []


def test_the_example_names_its_design() -> None:
    path = EXAMPLE / "instrument.yaml"
    folders = {"schemas": REPO / "schemas", "classes": REPO / "classes"}
    assert not check([REPO / "images" / "simulator.yaml", path], **folders)
    (_, client) = yaml.safe_load_all(path.read_text())
    parameters = client["spec"]["devices"][0]["parameters"]
    assert parameters["size"] == len(example())
    assert parameters["sha256"] == hashlib.sha256(example()).hexdigest()
