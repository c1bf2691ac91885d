"""A TPM in a device VM, judged by tpm2-tools in a stock guest."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from pathlib import Path

import pytest
import yaml
from foreign import define
from stage import Shell, Stage, shell_port

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tpm.yaml"
DEVICE = "export TPM2TOOLS_TCTI=device:/dev/tpm0; cd /tmp"
SECRET = "kept by the TPM"
ZERO = "0" * 64
EVENT = "80020000001f0000013c000000100000000940000009000000000000026869"
"""TPM2_PCR_Event of PCR 16. Linux waits two minutes for it, and but one second for TPM2_PCR_Extend."""


def shell_of(stage: Stage) -> Shell:
    """The client's shell, set up for tpm2-tools."""
    shell = Shell(stage.folder / "shell")
    shell.run(DEVICE)
    return shell


def register(shell: Shell) -> str:
    """What is in PCR 16."""
    found = re.search("16: 0x([0-9A-F]{64})", shell.run("tpm2 pcrread sha256:16"))
    assert found
    return found[1]


def extend(shell: Shell) -> str:
    """PCR 16 after one more measurement."""
    shell.run(f"tpm2 pcrextend 16:sha256={1:064x}")
    return register(shell)


def state_of(stage: Stage) -> str:
    """The device as `status` has it."""
    (device,) = stage.json("status")["devices"]
    return str(device["state"])


def write(stage: Stage, frontend: str) -> Path:
    """The example with that front end, a shell for the test, and a state of its own."""
    text = EXAMPLE.read_text()
    for old, new in (
        ("/var/lib/devicevm/web.tpm", "web.tpm"),
        ("class: tpm", f"class: tpm, frontend: {frontend}"),
        (
            "{guestImage: tpm-client}",
            f'{{guestImage: tpm-client}}\n    domainXML: "{shell_port(stage.folder / "shell")}"',
        ),
    ):
        assert old in text
        text = text.replace(old, new)
    path = stage.folder / "web.yaml"
    path.write_text(text)
    return path


def restart(stage: Stage, name: str) -> None:
    """Start a domain once libvirt has noticed that it is gone."""
    deadline = time.monotonic() + 20
    while stage.virsh("domstate", name).strip() != "shut off":
        assert time.monotonic() < deadline, f"libvirt still has {name}"
        time.sleep(0.1)
    stage.virsh("start", name)


def command(what: str) -> str:
    """Shell words that have the TPM do a command, given in hex, and print its response in hex."""
    text = "".join(f"\\{byte:03o}" for byte in bytes.fromhex(what))
    return f"(exec 3<>/dev/tpm0; printf '{text}' >&3; dd bs=4096 count=1 <&3 2>/dev/null | hexdump -ve '1/1 \"%02x\"')"


def killed_meanwhile(stage: Stage, shell: Shell, kills: int) -> int:
    """The device VM is killed again and again while commands come: each has its answer when the device VM is back. How
    many there were."""
    shell.run(
        f"(while [ ! -e enough ]; do {command(EVENT)} >late; cut -c 13-20 late >>answers; done; "
        "mv late last) 2>/dev/null &"
    )
    shell.run("until [ -s answers ]; do sleep 0.1; done")
    for _number in range(kills):
        answered = f"[ $(wc -l <answers) -gt $(({shell.run('wc -l <answers').strip()} + 1)) ]"
        shell.run(f"for i in $(seq 300); do {answered} && break; sleep 0.1; done; {answered}")
        os.kill(stage.process("web-dvm"), signal.SIGKILL)
        begun = time.monotonic()
        assert shell.run("echo alive", timeout=20).strip() == "alive"
        assert time.monotonic() - begun < 10
        restart(stage, "web-dvm")
    shell.run("touch enough; for i in $(seq 300); do [ -e last ] && break; sleep 0.1; done; [ -e last ]")
    assert state_of(stage) == "connected"
    answers = shell.run("cat answers").split()
    assert set(answers) == {"00000000"}
    return len(answers)


def kill_part(stage: Stage, path: Path) -> None:
    """Without its host part the client has no TPM. Who applied again would have both started anew."""
    (pid,) = stage.parts()
    os.kill(pid, signal.SIGKILL)
    assert state_of(stage) == "part stopped"
    steps = [step["id"] for step in stage.json("plan", path)["steps"]]
    assert [key for key in steps if "client" in key or "part" in key] == [
        "stop/client/web",
        "start/part/web/tpm",
        "start/client/web",
    ]


def measured(register: str, times: int) -> str:
    """What is in a register after so many EVENTs, by the TPM's specification."""
    value = bytes.fromhex(register)
    for _time in range(times):
        value = hashlib.sha256(value + hashlib.sha256(b"hi").digest()).digest()
    return value.hex().upper()


def give(shell: Shell) -> str:
    """Have the TPM keep a key and a secret; the key's public part."""
    shell.run("tpm2 createprimary -Q -G ecc -c key.ctx && tpm2 evictcontrol -Q -c key.ctx 0x81000001")
    shell.run(f"tpm2 nvdefine -Q -s {len(SECRET)} 0x1500016 && echo -n '{SECRET}' | tpm2 nvwrite -Q -i- 0x1500016")
    return key_of(shell)


def key_of(shell: Shell) -> str:
    """The public part of the key that was given."""
    return shell.run("tpm2 readpublic -c 0x81000001 -o key.pub >/dev/null; md5sum <key.pub")


def secret_of(shell: Shell) -> str:
    """The secret that was given."""
    return shell.run(f"tpm2 nvread -s {len(SECRET)} 0x1500016").strip()


def applied(stage: Stage, frontend: str) -> tuple[Path, Shell]:
    """The manifest, applied, and the client's shell; its kernel has found the TPM by that front end."""
    path = write(stage, frontend)
    stage.devicevm("image", "build", "tpm", path, timeout=600)
    stage.devicevm("apply", path)
    shell = shell_of(stage)
    assert frontend.replace("-", "_") in shell.run("dmesg")
    assert register(shell) == ZERO
    return path, shell


def given(stage: Stage, path: Path, frontend: str) -> Shell:
    """The shell of a domain that was defined with the TPM's endpoint."""
    device = {"name": "tpm", "class": "tpm", "frontend": frontend, "parameters": {"store": {"file": "web.tpm"}}}
    _client, image = yaml.safe_load_all(path.read_text())
    spec = {"vmm": {}, "devices": [device]}
    anybody = {"apiVersion": "devicevm/v1", "kind": "Client", "metadata": {"name": "web"}, "spec": spec}
    path.write_text(yaml.safe_dump_all([anybody, image]))
    stage.devicevm("apply", path)
    define(stage, "lab", "tpm-client", more=stage.devicevm("endpoint", path, "web/tpm").stdout)
    stage.virsh("start", "lab")
    shell = Shell(stage.folder / "lab.shell")
    shell.run(DEVICE)
    assert frontend.replace("-", "_") in shell.run("dmesg")
    return shell


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.long)])
def test_a_tpm_keeps_what_it_was_given(stage: Stage, kills: int) -> None:
    """Over the death of its device VM and of the host part, and destroy and apply."""
    path, shell = applied(stage, "tpm-crb")
    once, key = extend(shell), give(shell)
    # What was in flight was done, and done once.
    events = killed_meanwhile(stage, shell, kills)
    assert events > kills
    assert register(shell) == measured(once, events)
    assert (key_of(shell), secret_of(shell)) == (key, SECRET)
    shell.close()
    kill_part(stage, path)
    stage.devicevm("destroy", "--yes", path)

    # Then it is another domain's, which devicevm has not made.
    shell = given(stage, path, "tpm-tis")
    assert register(shell) == ZERO
    assert (key_of(shell), secret_of(shell)) == (key, SECRET)
    assert extend(shell) == once
    shell.close()
    stage.virsh("destroy", "lab")
    stage.virsh("undefine", "lab")
    stage.devicevm("destroy", "--yes", "--delete-data", path)
    assert not (stage.folder / "web.tpm").exists()


@pytest.mark.long
def test_a_client_that_restarts_has_its_tpm_again(stage: Stage) -> None:
    """Reset by its user, and restarted by apply, since its host part had died."""
    path, shell = applied(stage, "tpm-crb")
    extend(shell)
    key = give(shell)
    shell.close()
    stage.virsh("reset", "web")
    shell = shell_of(stage)
    assert (register(shell), key_of(shell), secret_of(shell)) == (ZERO, key, SECRET)
    shell.close()
    kill_part(stage, path)
    stage.devicevm("apply", path)
    shell = shell_of(stage)
    assert (register(shell), key_of(shell), secret_of(shell)) == (ZERO, key, SECRET)
    shell.close()
    stage.devicevm("destroy", "--yes", "--delete-data", path)
