"""A directory tree from a device VM: what a client has written is there after the device VM was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from manifests import with_shell, write
from stage import Shell, Stage
from stage_collection import REPO

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EXAMPLE = REPO / "examples" / "filesystem.yaml"
GIT = "git -c user.name=a -c user.email=a@b -c gc.auto=0"
MOUNT = "mkdir -p /srv; mount.devicevm tree /srv"


@pytest.fixture(scope="module", autouse=True)
def trees() -> None:
    """The images that serve trees and that use them, built or found."""
    command = [sys.executable, "-m", "devicevm.cli", "image", "build", "files", str(EXAMPLE)]
    subprocess.run(command, check=True, timeout=900)


def book(stage: Stage) -> Path:
    """A file system that somebody else has made, with a file in it."""
    pages, path = stage.folder / "pages", stage.folder / "book.ext4"
    pages.mkdir()
    (pages / "one").write_text("once upon a time\n")
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", pages, path, "4M"], check=True, timeout=60)
    return path


def manifest(stage: Stage, store: Path) -> Path:
    """The example, with a shell and the store elsewhere, and two more trees: in memory, and one that is only read."""
    image, client = yaml.safe_load_all(EXAMPLE.read_text())
    (device,) = client["spec"]["devices"]
    device["parameters"]["store"]["file"] = str(store)
    written = {"size": "4MiB", "readOnly": True, "store": {"file": str(book(stage))}}
    client["spec"]["devices"] += [
        {"name": "scratch", "class": "filesystem", "parameters": {"size": "16MiB"}},
        {"name": "book", "class": "filesystem", "parameters": written},
    ]
    return write(stage.folder, image, with_shell(client, stage))


def mounted(stage: Stage) -> Shell:
    """The client's shell, its tree mounted."""
    shell = Shell(stage.folder / "forge.shell")
    shell.run(MOUNT)
    return shell


def sums(text: str) -> dict[str, str]:
    """What sha256sum prints: file -> sum."""
    return {name: value for value, name in (line.split() for line in text.splitlines())}


def use(shell: Shell) -> None:
    """The trees as programs use them: git, users, what is full and what is only read."""
    shell.run(
        f"git init -q /srv/repo; cd /srv/repo; head -c 65536 /bin/busybox >box; git add box; {GIT} commit -qm one; cd /"
    )
    # Unmounted and mounted again, while the device VM runs on; a user owns what it makes.
    shell.run(f"umount /srv; {MOUNT}; mkdir -m 777 /srv/all; echo u:x:1000:1000::/:/bin/sh >>/etc/passwd")
    shell.run("su u -c 'echo mine >/srv/all/u'; test $(stat -c %u:%g /srv/all/u) = 1000:1000")
    shell.run("mkdir /scratch /book; mount.devicevm scratch /scratch; mount.devicevm book /book -o ro,nofail")
    assert shell.run("cat /book/one; ! touch /book/two 2>/dev/null") == "once upon a time\n"
    full = "dd if=/dev/zero of=/scratch/all bs=64k 2>&1 | grep -o 'No space'; stat -c %s /scratch/all"
    words, size = shell.run(full).split("\n")[:2]
    assert words == "No space" and 14 << 20 < int(size) < 16 << 20


def killed_while_written(stage: Stage, shell: Shell, folder: str) -> dict[str, str]:
    """The sums of the files there that the client was told are written when the device VM was killed."""
    # Each file is told when it is written: no more is needed.
    shell.run(
        f"mkdir {folder}; (for i in $(seq 10000); do dd if=/dev/urandom of={folder}/$i bs=4k count=1 2>/dev/null || "
        f"break; sha256sum {folder}/$i; done >/tmp/told) & until [ $(wc -l </tmp/told) -ge 20 ]; do sleep 0.1; done"
    )
    stage.kill("forge-dvm")
    # It is over at once for who writes: nothing hangs.
    shell.run("wait", timeout=60)
    told = sums(shell.run("cat /tmp/told"))
    assert len(told) >= 20
    return told


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_what_was_written_is_there_after_the_device_vm_was_killed(stage: Stage, kills: int) -> None:
    store = stage.folder / "tree.ext4"
    path = manifest(stage, store)
    stage.devicevm("apply", path)
    shell = mounted(stage)
    use(shell)
    told: dict[str, str] = {}
    for number in range(kills):
        folder = f"/srv/{number}"
        told |= (last := killed_while_written(stage, shell, folder))
        shell.close()
        steps = {step["id"]: step["effect"] for step in stage.json("plan", path)["steps"]}
        assert steps["stop/client/forge"] == "restart"
        stage.devicevm("apply", "--timeout", "200", path)
        shell = mounted(stage)
        assert sums(shell.run(f"sha256sum {folder}/*")).items() >= last.items()
    assert sums(shell.run("sha256sum /srv/[0-9]*/*")).items() >= told.items()
    shell.run("cd /srv/repo; git fsck --full --strict && git checkout -qf && cmp -n 65536 box /bin/busybox")
    shell.run("cd /; umount /srv")
    shell.close()
    stage.devicevm("destroy", "--yes", path)
    # Another's tools read it without devicevm.
    subprocess.run(["/sbin/e2fsck", "-fn", store], capture_output=True, check=True, timeout=60)
    done = subprocess.run(
        ["/sbin/debugfs", "-R", "cat /all/u", store], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "mine\n"
