"""The example playbook with real guests, on an embedded VMM of the test's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from devicevm.vmm.places import places_of
from playing import TOPOLOGY, Player, one_task
from stage_collection import REPO
from test_provision_role import variables

pytestmark = [pytest.mark.e2e, pytest.mark.libvirt, pytest.mark.slow, pytest.mark.timeout(1500)]

BOOK = REPO / "examples/ansible/provision.yml"
INVENTORY = ("-i", str(REPO / "examples/ansible/inventory.ini"))


BROKEN = """\
apiVersion: devicevm/v1
kind: Client
metadata: {name: web}
spec:
  vm: {memory: 192MiB, boot: {guestImage: client}}
  devices:
    - {name: meter, class: serial, parameters: {command: [/bin/sh, -c, "echo cannot find the meter >&2; exit 3"]}}
---
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: meters}
spec:
  memory: 128MiB
  serves: {classes: [serial]}
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """The folder of an embedded VMM. Its guests are ended with the test, whatever became of it."""
    folder = Path(tempfile.mkdtemp(prefix="dvm-", dir="/tmp"))
    # QEMU runs as another user when the test runs as root.
    folder.chmod(0o711)
    try:
        yield folder / "vmm"
    finally:
        for pid in guests(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        places = places_of(f"qemu:///embed?root={folder}/vmm")
        for left in (places.runtime, places.private):
            shutil.rmtree(left, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def guests(root: Path) -> dict[int, str]:
    """The QEMU processes below a folder: pid and command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command.startswith("/") and "qemu-system" in command.split()[0] and f"{root}/" in command:
                    found[int(entry.name)] = command
    return found


def names(root: Path) -> set[str]:
    """The names of the guests that run, as QEMU's own command line has them."""
    return {command.partition("guest=")[2].partition(",")[0] for command in guests(root).values()}


def test_example_with_guests(player: Player, root: Path, images: Path) -> None:
    uri = f"qemu:///embed?root={root}"
    here = variables(connect=uri, image_store=str(images), timeout=180)
    told = player.play(BOOK, *INVENTORY, *here, "--check", "--diff", timeout=300)
    assert names(root) == set()

    first = player.play(BOOK, *INVENTORY, *here, timeout=600)
    assert told.steps == first.steps
    assert told.topology["diff"]["after"].count("state: running") == 3
    assert names(root) == {"gadgets", "shop", "tracker"}
    running = guests(root)
    assert {step["result"] for step in first.topology["steps"]} == {"done"}

    assert player.play(BOOK, *INVENTORY, *here, timeout=300).changed == 0
    assert player.play(BOOK, *INVENTORY, *here, "--check", timeout=300).changed == 0
    assert guests(root) == running, "a run without changes restarted a guest"

    gone = variables(connect=uri, image_store=str(images), state="absent")
    told = player.play(BOOK, *INVENTORY, *gone, "--check", timeout=300)
    assert guests(root) == running
    removed = player.play(BOOK, *INVENTORY, *gone, timeout=300)
    assert told.steps == removed.steps
    end = time.monotonic() + 10
    while guests(root) and time.monotonic() < end:
        time.sleep(0.1)
    assert names(root) == set()


def test_device_vm_that_does_not_come_up(player: Player, root: Path, images: Path, tmp_path: Path) -> None:
    """The failure shows the device VM's last words, and nothing of it stays."""
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    uri = f"qemu:///embed?root={root}"
    book = one_task(TOPOLOGY, src=str(path), connect=uri, images=str(images), timeout=60)
    failed = player.play(book, timeout=300, ok=False)
    assert failed.status == 2
    result = failed.topology
    assert result["failed_steps"] == ["start/device-vm/meters"]
    assert "cannot find the meter" in result["msg"], result["msg"]
    assert "start/client/web" in result["skipped_steps"]
    assert not result["changed"]
    assert guests(root) == {}
