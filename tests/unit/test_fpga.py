"""Programming through the kernel's FPGA manager: a made-up sysfs, and a thread that plays the kernel in it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.vmm.fpga import FpgaManager, check_bitstream, manager, manager_of, managers, program

Steps = list[tuple[float, str, str]]
"""Seconds to wait, then `state` and `status`."""

WORKS: Steps = [(0.0, "firmware request", ""), (0.05, "write init", ""), (0.05, "write", ""), (0.05, "operating", "")]


class Kernel:
    """A tree like sysfs with one manager, and a thread that reacts to what is written to `firmware`."""

    def __init__(self, root: Path, steps: Steps, *, name: str = "Xilinx Zynq FPGA Manager", state: str = "power up"):
        self.sysfs, self.lib = root / "sys", root / "firmware"
        self.folder = self.sysfs / "class" / "fpga_manager" / "fpga0"
        self.folder.mkdir(parents=True)
        device = self.sysfs / "devices" / "pci0000:00" / "0000:03:00.0" / "pcap"
        device.mkdir(parents=True)
        (self.folder / "device").symlink_to(device)
        for file, text in {"name": name, "state": state, "status": "", "firmware": "", "flags": "0"}.items():
            (self.folder / file).write_text(f"{text}\n" if text else "")
        self.lib.mkdir()
        for bitstream in ("design.bit", "blank.bit"):
            (self.lib / bitstream).write_bytes(b"\xff" * 64)
        self.steps = steps
        self.loaded: list[str] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.over.wait(0.005):
            name = (self.folder / "firmware").read_text() if (self.folder / "firmware").exists() else ""
            if name:
                (self.folder / "firmware").write_text("")
                self.load(name)

    def load(self, name: str) -> None:
        for seconds, state, status in self.steps:
            if self.over.wait(seconds):
                return
            if (seconds, state, status) == self.steps[-1]:
                self.loaded.append(name)  # before anybody can see that it is over
            # By a rename: sysfs never shows half a word.
            for file, text in (("status", status), ("state", state)):
                (self.folder / "new").write_text(f"{text}\n" if text else "")
                os.replace(self.folder / "new", self.folder / file)

    def write_through(self, path: Path, text: str) -> None:
        """As the real kernel: the write returns when the device is programmed, or with an error."""
        assert path == self.folder / "firmware"
        self.load(text)
        if self.steps[-1][1].endswith("error"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


Make = Callable[..., Kernel]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Make]:
    made: list[Kernel] = []

    def make(steps: Steps = WORKS, **options: str) -> Kernel:
        made.append(Kernel(tmp_path, steps, **options))
        made[-1].thread.start()
        return made[-1]

    yield make
    for each in made:
        each.over.set()
        each.thread.join(5)


def run(kernel: Kernel, bitstream: str = "design.bit", **options: object) -> FpgaManager:
    return program("fpga0", bitstream, sysfs=kernel.sysfs, firmware=kernel.lib, **options)  # type: ignore[arg-type]


def test_managers_are_read(kernel: Make) -> None:
    there = kernel()
    other = there.folder.with_name("fpga10")
    other.mkdir()
    (other / "name").write_text("Altera\n")
    (other / "state").write_text("operating\n")
    first, second = managers(there.sysfs)
    assert first == FpgaManager("fpga0", "Xilinx Zynq FPGA Manager", "power up", "", "pcap")
    assert second == FpgaManager("fpga10", "Altera", "operating")
    assert manager_of("0000:03:00.0", there.sysfs) == first
    with pytest.raises(
        DevicevmError, match=r"0000:04:00\.0 has no FPGA manager\nhint: the device's driver must be loaded"
    ):
        manager_of("0000:04:00.0", there.sysfs)
    with pytest.raises(DevicevmError, match="there is no FPGA manager fpga1\nhint: there are: fpga0, fpga10"):
        manager("fpga1", there.sysfs)
    with pytest.raises(DevicevmError, match="there is no FPGA manager"):
        manager("../fpga0", there.sysfs)
    assert managers(there.sysfs / "nothing") == ()


def test_a_slow_kernel_is_waited_for(kernel: Make) -> None:
    there = kernel([*WORKS[:-1], (0.5, "operating", "")])
    before = time.monotonic()
    assert run(there).state == "operating"
    assert time.monotonic() - before > 0.6
    assert there.loaded == ["design.bit"]


def test_what_operates_is_programmed_anew(kernel: Make) -> None:
    there = kernel(state="operating")
    run(there, write=there.write_through)
    assert run(there, "blank.bit", write=there.write_through).state == "operating"
    assert there.loaded == ["design.bit", "blank.bit"]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (
            [*WORKS[:3], (0.05, "write error", "reconfig CRC error\nreconfig fifo overflow error")],
            "design.bit was not loaded; its state is write error, its status reconfig CRC error, reconfig fifo",
        ),
        ([(0.0, "firmware request error", "")], "its state is firmware request error"),
        ([*WORKS[:3], (0.0, "operating", "reconfig IP protocol error")], "its status reconfig IP protocol error"),
    ],
)
def test_errors_are_told_in_the_kernels_words(kernel: Make, steps: Steps, says: str) -> None:
    with pytest.raises(DevicevmError, match=says):
        run(kernel(steps))


def test_an_error_of_the_write_itself_is_told_with_state_and_status(kernel: Make) -> None:
    there = kernel([(0.0, "write complete error", "reconfig incompatible image")], state="operating")
    says = "Input/output error; its state is write complete error, its status reconfig incompatible image"
    with pytest.raises(DevicevmError, match=says):
        run(there, write=there.write_through)


def test_a_kernel_that_never_ends_is_left(kernel: Make) -> None:
    there = kernel([(0.0, "write", ""), (60.0, "operating", "")])
    before = time.monotonic()
    with pytest.raises(DevicevmError, match=r"not loaded within 1 s; its state is write"):
        run(there, timeout=1)
    with pytest.raises(DevicevmError, match="the kernel is still at it; its state is write"):
        run(there, timeout=1, write=there.write_through)
    assert time.monotonic() - before < 30


def test_regions_are_refused(kernel: Make) -> None:
    there = kernel(name="DFL FME FPGA Manager")
    with pytest.raises(
        DevicevmError, match=r"programs regions of a device.*partial reconfiguration needs the vendor's tools"
    ):
        run(there)
    assert there.loaded == []


@pytest.mark.parametrize(
    ("flags", "says"), [("1", "is set to partial"), ("0x21", "is set to partial"), ("x", "no num")]
)
def test_flags_that_forbid_it(kernel: Make, flags: str, says: str) -> None:
    there = kernel()
    (there.folder / "flags").write_text(f"{flags}\n")
    with pytest.raises(DevicevmError, match=says):
        run(there)
    assert there.loaded == []


def test_other_flags_stay_as_they_are(kernel: Make) -> None:
    there = kernel()
    (there.folder / "flags").write_text("4\n")
    run(there)
    assert (there.folder / "flags").read_text() == "4\n"


def test_a_mainline_kernel_has_nothing_to_program_by(kernel: Make) -> None:
    there = kernel()
    (there.folder / "firmware").unlink()
    with pytest.raises(DevicevmError, match="has no file `firmware`"):
        run(there)
    assert not (there.folder / "firmware").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.bit", "there is no bitstream"),
        ("", "no name of a bitstream"),
        ("/etc/passwd", "no name of a bitstream"),
        ("../x", "no name of a bitstream"),
        ("a/../design.bit", "no name of a bitstream"),
        ("design.bit\n", "no name of a bitstream"),
        (" design.bit", "no name of a bitstream"),
        ("x" * 255, "has 255 bytes, the kernel takes 254"),
        ("empty.bit", "is empty"),
        ("folder", "there is no bitstream"),
    ],
)
def test_names_that_are_no_bitstreams(kernel: Make, name: str, says: str) -> None:
    there = kernel()
    (there.lib / "empty.bit").touch()
    (there.lib / "folder").mkdir()
    with pytest.raises(DevicevmError, match=says):
        run(there, name)
    assert there.loaded == []


def test_a_bitstream_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "a.rbf").write_bytes(b"x")
    check_bitstream("vendor/a.rbf", tmp_path)
