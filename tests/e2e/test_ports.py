"""Ports between programs: bytes go through unchanged, and go on after the device VM was killed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from manifests import Document, with_shell, write
from stage import Shell, Stage
from stage_collection import REPO

pytestmark = pytest.mark.e2e

EXAMPLE = REPO / "examples" / "port.yaml"
FIND = (
    "port() { for name in /sys/class/virtio-ports/*/name; do grep -qx $1 $name && basename ${name%/name}; done; true; }"
)


def documented(stage: Stage) -> list[Document]:
    """The program of one's own in docs/classes.md: image, class and client; the image is built."""
    text = (REPO / "docs" / "classes.md").read_text().partition("## A program of your own")[2]
    documents = list(yaml.safe_load_all(text.partition("```yaml\n")[2].partition("```")[0]))
    path = write(stage.folder, *documents)
    subprocess.run([sys.executable, "-m", "devicevm.cli", "image", "build", path], check=True, timeout=900)
    return documents


def mirror() -> Document:
    """A port that sends back what it gets."""
    return {"name": "mirror", "class": "port", "parameters": {"command": ["/usr/lib/devicevm/echo"]}}


def through_and_killed(stage: Stage, shell: Shell) -> None:
    """The device VM is killed while bytes go through: what came back until then is what was sent, in its order."""
    again = "$(yes /tmp/a | head -n 99)"
    shell.run(
        f"rm -f /tmp/b; exec 4<>/dev/$(port mirror); cat <&4 >/tmp/b 2>/dev/null & reader=$!; cat {again} >&4 & "
        "writer=$!; until [ -s /tmp/b ]; do sleep 0.1; done"
    )
    stage.kill("lab-dvm")
    # Reading ends, for nobody is there; who writes waits.
    shell.run("wait $reader; kill $writer; wait $writer; exec 4>&-", timeout=60)
    shell.run(f"cat {again} | head -c $(stat -c %s /tmp/b) | cmp - /tmp/b")


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.long)])
def test_bytes_go_through_a_port_and_go_on_after_its_device_vm_was_killed(stage: Stage, kills: int) -> None:
    lab = with_shell(yaml.safe_load(EXAMPLE.read_text()), stage)
    image, own_class, writer = documented(stage)
    lab["spec"]["devices"] += [mirror(), *writer["spec"]["devices"]]
    path = write(stage.folder, image, own_class, lab)
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "lab.shell")
    shell.run(FIND)
    boot = shell.run("cat /proc/sys/kernel/random/boot_id")
    through = "dd if=/dev/urandom of=/tmp/a bs=64k count=32 2>/dev/null; exec 4<>/dev/$(port mirror); cat /tmp/a >&4 & "
    through += "head -c 2097152 <&4 >/tmp/b; exec 4>&-; cmp /tmp/a /tmp/b && echo same"
    assert shell.run(through).strip() == "same"
    # Opened once and kept, as a program does.
    shell.run("exec 3<>/dev/$(port counter)")
    ask = "echo {0} >&3; timeout 60 head -n 1 <&3"
    own = "exec 5<>/dev/$(port words); echo big >&5; timeout 60 head -n 1 <&5; exec 5>&-"
    assert shell.run(own).strip() == "large"

    for number in range(kills):
        # The program is as old as its device VM: it has answered once since the last kill.
        before = 1 if number else 0
        assert [shell.run(ask.format(word)).strip() for word in ("a", "b")] == [f"{before + 1} a", f"{before + 2} b"]
        through_and_killed(stage, shell)
        # Nobody is there: the client is told so at once.
        assert shell.run("head -c 1 <&3 | wc -c").strip() == "0"
        steps = {step["id"]: step["effect"] for step in stage.json("plan", path)["steps"]}
        assert steps == {"start/device-vm/lab-dvm": "reconnect"}
        stage.devicevm("apply", path)
        assert shell.run(ask.format("three")).strip() == "1 three"
        assert shell.run(through).strip() == "same"
    assert shell.run("cat /proc/sys/kernel/random/boot_id") == boot
    stage.devicevm("destroy", "--yes", path)
