"""Device VMs get another build of their image: one by one, under clients that go on, and back when it does not work."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from devicevm.guest.store import ImageStore, default_store
from manifests import Document, client, write
from stage import Shell, Stage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

REPO = Path(__file__).parents[2]
IMAGE = "cellar"
NAMES = ("a", "b")
# Written, read back and verified, again and again.
FIO = (
    "while [ ! -e /tmp/stop ]; do fio --name=v --filename=/dev/vda --size=1M --rw=randwrite --bs=4k --ioengine=psync "
    "--verify=crc32c --do_verify=1 --verify_fatal=1 >/tmp/fio 2>&1 || cp /tmp/fio /tmp/failed; echo >>/tmp/rounds; "
    "sleep 1; done; touch /tmp/done"
)


def build_of(version: str, *arguments: str) -> Document:
    """A build of an image of its own that is like base: its digest differs with the version."""
    made: Document = yaml.safe_load((REPO / "images" / "base.yaml").read_text())
    made["metadata"]["name"] = IMAGE
    made["spec"]["files"] = [*made["spec"].get("files", []), {"target": "/etc/version", "content": version}]
    made["spec"]["commandLine"] = [*made["spec"].get("commandLine", []), *arguments]
    return made


def disks() -> Document:
    """The class disk, in that image."""
    made: Document = yaml.safe_load((REPO / "classes" / "disk.yaml").read_text())
    made["metadata"]["name"] = "cask"
    made["spec"]["image"] = IMAGE
    return made


@pytest.fixture
def cellar(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    """A store of the test's own, where nobody else builds anything meanwhile, with the clients' image."""
    known, store = ImageStore(default_store()), ImageStore(stage.folder / "images")
    image = known.current("test-client")
    shutil.copytree(known.folder(image), store.folder(image))
    store.make_current(image)
    monkeypatch.setenv("DEVICEVM_IMAGES", str(store.root))
    return store


def declare(stage: Stage, image: Document) -> Path:
    """Two clients, each with a disk on a store, and so with a device VM of its own; the image is built."""
    devices = {
        name: {"name": "data", "class": "cask", "parameters": {"size": "8MiB", "store": {"file": f"{name}.img"}}}
        for name in NAMES
    }
    clients = [client(name, devices[name], stage=stage, image="test-client", memory="512MiB") for name in NAMES]
    path = write(stage.folder, image, disks(), *clients)
    stage.devicevm("image", "build", path)
    return path


def running(stage: Stage) -> dict[str, int]:
    """The processes of the device VMs that run now."""
    found = {}
    for name in NAMES:
        with contextlib.suppress(OSError, ValueError):
            pid = stage.process(f"{name}-dvm")
            if Path(f"/proc/{pid}").exists():
                found[name] = pid
    return found


def boots(stage: Stage, build: str) -> list[str]:
    """Whose device VM boots that build, as virsh has it."""
    return [name for name in NAMES if f"/{build}/" in stage.virsh("dumpxml", f"{name}-dvm")]


def upgrade(stage: Stage, path: Path) -> tuple[int, str]:
    """Carry out an upgrade; at no moment may both device VMs be away."""
    command: subprocess.Popen[str] = stage.start("apply", "--yes", "--upgrade", path)
    while command.poll() is None:
        assert running(stage), "both device VMs are away"
        time.sleep(0.02)
    return command.returncode, command.stderr.read() if command.stderr else ""


def test_builds_are_replaced_one_by_one_and_one_that_fails_stops_there(stage: Stage, cellar: ImageStore) -> None:
    path = declare(stage, build_of("1"))
    first = cellar.current(IMAGE).folder
    stage.devicevm("apply", path)
    shells = {name: Shell(stage.folder / f"{name}.shell") for name in NAMES}
    ids = {name: shell.run("cat /proc/sys/kernel/random/boot_id") for name, shell in shells.items()}
    for shell in shells.values():
        shell.run(f"({FIO}) &")

    # A build that does not come up: the first has its old one again, and nobody else was touched.
    before = running(stage)
    declare(stage, build_of("2", "rdinit=/none"))
    assert "newer build of image cellar" in stage.devicevm("plan", path).stderr
    status, said = upgrade(stage, path)
    assert status == 1, said
    assert "start device VM a-dvm" in said
    assert boots(stage, first) == ["a", "b"]
    after = running(stage)
    assert (after["a"] != before["a"], after["b"]) == (True, before["b"])

    # One that does: a first, then b.
    declare(stage, build_of("3"))
    last = cellar.current(IMAGE).folder
    steps = {step["id"]: step for step in stage.json("plan", "--upgrade", path)["steps"]}
    assert {step["effect"] for step in steps.values()} == {"none", "reconnect"}
    assert steps["stop/device-vm/b-dvm"]["behind"] == ["start/device-vm/a-dvm"]
    status, said = upgrade(stage, path)
    assert status == 0, said
    assert boots(stage, last) == ["a", "b"]
    assert stage.json("plan", "--upgrade", path).get("steps", []) == []

    # Each block that was written meanwhile was read back; nobody has booted.
    for name, shell in shells.items():
        shell.run("touch /tmp/stop; for i in $(seq 600); do [ -e /tmp/done ] && break; sleep 0.1; done")
        assert shell.run("cat /tmp/failed 2>/dev/null; ls /tmp/done").strip() == "/tmp/done"
        assert int(shell.run("wc -l </tmp/rounds")) >= 2
        assert shell.run("cat /proc/sys/kernel/random/boot_id") == ids[name]
    # Nobody boots the first build any more, or it would be refused.
    assert f"{first} removed" in stage.devicevm("image", "remove", first).stdout
    stage.devicevm("destroy", "--yes", path)
