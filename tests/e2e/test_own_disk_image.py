"""A distribution's own disk image as device VM: Debian, with its own boot loader and init, and the agent or none."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import yaml
from debian_disk import debian_disk, why_not
from devicevm.guest.store import ImageStore, default_store
from manifests import Document, client, with_shell, write
from stage import Shell, Stage

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-image.yaml"
SUM = 'while read -r line; do echo -n "$line" | md5sum; done'


def with_agent(disk: Path) -> list[Document]:
    """The same disk as an image whose agent runs what the class says."""
    head = {"apiVersion": "devicevm/v1"}
    image = {
        "kind": "Image",
        "metadata": {"name": "debian-agent"},
        "spec": {"disk": {"file": str(disk), "agent": True}},
    }
    program = {"command": ["/bin/sh", "-c", SUM], "ask": "a\n", "expect": "0cc175b9c0f1b6a831c399e269772661"}
    spec = {"protocol": "bytes", "frontends": ["isa-serial"], "image": "debian-agent", "program": program}
    class_ = {"kind": "DeviceClass", "metadata": {"name": "summer"}, "spec": {**spec, "memory": {"base": "224MiB"}}}
    return [head | image, head | class_]


def forget_older(store: ImageStore) -> None:
    """Each is a quarter of a gigabyte."""
    for image in store.list():
        if image.name in ("debian-meter", "debian-agent") and image != store.current(image.name):
            store.remove(image)


def test_a_disk_image_of_debian_s_is_a_device_vm(stage: Stage) -> None:
    if reason := why_not():
        pytest.skip(reason)
    disk = debian_disk()
    example: list[Document] = list(yaml.safe_load_all(EXAMPLE.read_text()))
    example[0]["spec"]["disk"] |= {"file": str(disk), "sha256": hashlib.sha256(disk.read_bytes()).hexdigest()}
    with_shell(example[2], stage)
    lab = client("lab", {"name": "sum", "class": "summer"}, stage=stage)
    documents = [*example, *with_agent(disk), lab]
    topology = write(stage.folder, *documents)
    stage.devicevm("image", "build", topology)
    stage.devicevm("apply", "--yes", "--timeout", "150", topology)
    store = ImageStore(default_store())
    kept = store.folder(store.current("debian-meter")) / "disk"
    try:
        # Its own init speaks on the console: nothing of devicevm's has started it.
        assert "INIT: version" in stage.devicevm("logs", "bench-dvm", "--lines", "1000").stdout
        assert f"<source file='{kept}'" in stage.virsh("dumpxml", "bench-dvm").replace("backingStore", "")
        bench, summer = Shell(stage.folder / "bench.shell"), Shell(stage.folder / "lab.shell")
        said = bench.ask(b"read\nboots\n", 10).decode()
        assert re.fullmatch(r"42\d\d uV\n1\n", said), said
        assert summer.ask(b"hello\n", 32).decode() == hashlib.md5(b"hello").hexdigest()  # noqa: S324 - no secret
        states = {f"{one['client']}/{one['device']}": one["state"] for one in stage.json("status")["devices"]}
        assert states == {"bench/meter": "connected", "lab/sum": "connected"}
        # The agent is told of another device while it runs; where there is none, a device VM more is needed.
        lab["spec"]["devices"].append({"name": "more", "class": "summer"})
        write(stage.folder, *documents)
        steps = {step["id"]: step for step in stage.json("plan", topology)["steps"]}
        assert steps["update/device-vm/lab-dvm"]["effect"] == "live"
        example[2]["spec"]["devices"].append({"name": "second", "class": "meter", "frontend": "virtio-port"})
        write(stage.folder, *documents)
        steps = {step["id"]: step for step in stage.json("plan", topology)["steps"]}
        assert "define/device-vm/bench-dvm-2" in steps
        assert not [key for key in steps if key.endswith("/device-vm/bench-dvm")]
    finally:
        stage.devicevm("destroy", "--yes", topology)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == example[0]["spec"]["disk"]["sha256"]
    forget_older(store)
