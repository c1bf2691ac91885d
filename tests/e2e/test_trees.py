"""A directory tree from a device VM: what a client has synced is there after the device VM was killed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from manifests import with_shell, write
from stage import Shell, Stage
from stage_collection import REPO

pytestmark = pytest.mark.e2e

EXAMPLE = REPO / "examples" / "filesystem.yaml"
COMMIT = "git -c user.name=a -c user.email=a@b commit -q"


@pytest.fixture(scope="module", autouse=True)
def trees() -> None:
    """The images that serve trees and that use them, built or found."""
    command = [sys.executable, "-m", "devicevm.cli", "image", "build", "files", str(EXAMPLE)]
    subprocess.run(command, check=True, timeout=900)


def manifest(stage: Stage, store: Path) -> Path:
    """The example, with a shell and the store elsewhere."""
    image, client = yaml.safe_load_all(EXAMPLE.read_text())
    (device,) = client["spec"]["devices"]
    device["parameters"]["store"]["file"] = str(store)
    return write(stage.folder, image, with_shell(client, stage))


def test_what_is_synced_is_there_after_the_device_vm_was_killed(stage: Stage) -> None:
    store = stage.folder / "tree.ext4"
    path = manifest(stage, store)
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "forge.shell")
    shell.run("mkdir -p /srv; mount.devicevm tree /srv")
    shell.run(f"git init -q /srv/repository; cd /srv/repository; cp /bin/busybox box; git add box; {COMMIT} -m one")
    shell.run("git gc -q; git fsck --full --strict; sync; cd /")
    print(shell.run("mount; ls -la /srv /srv/repository"))
    # Each file is told only when it is synced.
    shell.run(
        "(for i in $(seq 1000); do dd if=/dev/urandom of=/srv/$i bs=4k count=1 conv=fsync 2>/dev/null || break; "
        "sha256sum /srv/$i; done >/tmp/told) & sleep 2"
    )
    os.kill(stage.process("forge-dvm"), signal.SIGKILL)
    shell.run("wait")
    told = dict(reversed(line.split()) for line in shell.run("cat /tmp/told").splitlines())
    print(len(told))
    assert len(told) > 5
    steps = {step["id"]: step["effect"] for step in stage.json("plan", path)["steps"]}
    print(steps)
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "forge.shell")
    shell.run("mkdir -p /srv; mount.devicevm tree /srv")
    found = shell.run(f"sha256sum {' '.join(told)}").splitlines()
    assert dict(reversed(line.split()) for line in found) == told
    shell.run("cd /srv/repository && git fsck --full --strict && git checkout -q -f && cmp box /bin/busybox; cd /; umount /srv")
    stage.devicevm("destroy", "--yes", path)
    done = subprocess.run(["e2fsck", "-fn", store], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0
