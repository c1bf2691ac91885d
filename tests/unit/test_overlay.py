"""Copy-on-write disks: a client's stays, and a device VM's is made anew."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.vmm.overlay import base_of, ensure_overlay, make_overlay

pytestmark = pytest.mark.skipif(not shutil.which("qemu-io"), reason="qemu-io is not installed")


def io(disk: Path, command: str) -> str:
    done = subprocess.run(["qemu-io", "-c", command, disk], check=True, capture_output=True, text=True)
    return done.stdout


def test_what_was_written_stays_with_one_and_is_gone_with_the_other(tmp_path: Path) -> None:
    image, overlay = tmp_path / "image", tmp_path / "overlays" / "vm.qcow2"
    image.write_bytes(bytes(1 << 20))
    ensure_overlay(overlay, str(image))
    io(overlay, "write -P 7 0 512")
    ensure_overlay(overlay, str(image))
    assert "Pattern verification failed" not in io(overlay, "read -P 7 0 512")
    make_overlay(overlay, str(image))
    assert "Pattern verification failed" not in io(overlay, "read -P 0 0 512")
    assert image.read_bytes() == bytes(1 << 20)


def test_an_image_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DevicevmError, match="does not exist"):
        make_overlay(tmp_path / "vm.qcow2", str(tmp_path / "image"))


def test_what_an_overlay_rests_on_is_read_as_qemu_wrote_it(tmp_path: Path) -> None:
    first, second, name = tmp_path / "first", tmp_path / "second", tmp_path / "current"
    for image in (first, second):
        image.write_bytes(bytes(1 << 20))
    name.symlink_to(first)
    make_overlay(tmp_path / "vm.qcow2", str(name))
    # The name stands for a newer image, and the disk rests on what it was made on.
    name.unlink()
    name.symlink_to(second)
    assert base_of(tmp_path / "vm.qcow2") == str(first)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "alone", "1M"], check=True)
    assert (base_of(tmp_path / "alone"), base_of(first)) == ("", "")
