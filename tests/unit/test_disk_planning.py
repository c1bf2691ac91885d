"""Disks with formats, limits and faults: in which image they are, what programs are told, and who feels a change."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devicevm.domain import DomainSpec
from devicevm.inventory.host import ImageFacts
from devicevm.manifest.read import topology_from_documents
from devicevm.planner.plan import Effect, Plan
from devicevm.planner.requests import wants_of
from devicevm.quantity import parse_bytes
from world import ModelVmm, host

REPO = Path(__file__).resolve().parents[2]
OWN: dict[str, Any] = {"schemas": REPO / "schemas", "classes": REPO / "classes"}
STORE = {"file": "/data/a.img"}
KEY = {"key": {"file": "/keys/a"}}


def document(name: str, *devices: dict[str, Any], frontend: str = "virtio-blk") -> dict[str, Any]:
    """A client with one disk for each of these parameters."""
    listed = [
        {"name": f"d{index}", "class": "disk", "frontend": frontend, "parameters": parameters}
        for index, parameters in enumerate(devices)
    ]
    vm = {"memory": "64MiB", "boot": {"kernel": "/k"}}
    return {
        "apiVersion": "devicevm/v1",
        "kind": "Client",
        "metadata": {"name": name},
        "spec": {"vm": vm, "devices": listed},
    }


def vmm() -> ModelVmm:
    """A host that has the image `disk`."""
    there = host()
    image = ImageFacts("disk", "0" * 12, "/i/disk/kernel", "/i/disk/initramfs", "quiet")
    return ModelVmm(replace(there, images=(*there.images, image)))


def steps(plan: Plan) -> dict[str, Effect]:
    return {step.id: step.effect for step in plan.steps if step.kind.value != "store"}


def device_vms(plan: Plan) -> list[DomainSpec]:
    return [spec for spec in plan.domains if spec.emulators]


def test_what_has_a_format_is_in_a_device_vm_of_another_image() -> None:
    plain, sealed = {"size": "8MiB"}, {"size": "8MiB", "store": STORE, "encryption": KEY}
    plan = vmm().plan(topology_from_documents([document("m", plain, sealed)], **OWN))
    found = {spec.image.rpartition("-")[0]: [one.name for one in spec.emulators] for spec in device_vms(plan)}
    assert found == {"base": ["d0"], "disk": ["d1"]}


@pytest.mark.parametrize("name", ["format", "encryption", "rateLimit"])
def test_memory_for_the_storage_daemon_is_counted(name: str) -> None:
    value = {"format": "qcow2", "encryption": KEY, "rateLimit": {"reads": 5}}[name]
    plain = {"size": "8MiB", "store": STORE}
    (less,), (more,) = (
        wants_of(topology_from_documents([document("m", parameters)], **OWN))
        for parameters in (plain, {**plain, name: value})
    )
    assert (less.image, more.image) == ("base", "disk")
    assert more.memory - less.memory == parse_bytes("24MiB")


def command(parameters: dict[str, Any]) -> list[str]:
    """The disk's program, paths by what they are."""
    (spec,) = device_vms(vmm().plan(topology_from_documents([document("m", parameters)], **OWN)))
    (emulator,) = spec.emulators
    names = {f"/dev/backing/{emulator.serial}.base": "BASE", f"/dev/backing/{emulator.serial}": "DISK"}
    names |= {f"/run/secrets/{secret.name}": "KEY" for secret in emulator.secrets}
    pattern = re.compile("|".join(map(re.escape, names)))
    return [pattern.sub(lambda match: names[match[0]], word) for word in emulator.command]


NBDKIT = ["nbdkit", "--single", "--foreground"]
KEPT = ["--filter=fua", "file", "DISK.disk", "fuamode=force"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"store": STORE, "encryption": KEY},
            ["/usr/lib/devicevm/layers", "DISK", "key=KEY", "--", *NBDKIT, *KEPT],
        ),
        (
            {"store": STORE, "format": "qcow2", "readOnly": True},
            ["/usr/lib/devicevm/layers", "DISK", "format=qcow2", "read-only", "--", *NBDKIT, "--readonly", *KEPT],
        ),
        (
            {"format": "qcow2", "base": {"file": "/golden"}},
            [
                *("/usr/lib/devicevm/layers", "DISK", "format=qcow2", "base=BASE", "base-format=raw", "--"),
                *(*NBDKIT, "--threads=1", "file", "DISK.disk"),
            ],
        ),
        (
            {"rateLimit": {"read": "1MiB", "writes": 10, "burst": 3}},
            [
                *("/usr/lib/devicevm/layers", "DISK", "bps-read=1048576", "iops-write=10", "burst=3", "--"),
                *(*NBDKIT, "file", "DISK.disk"),
            ],
        ),
        ({"faults": {}}, [*NBDKIT, "file", "DISK"]),
        (
            {"faults": {"readErrors": 0.5, "writeDelay": 20}},
            [
                *(*NBDKIT, "--filter=delay", "--filter=error", "file", "DISK"),
                *("delay-write=20ms", "error=EIO", "error-pread-rate=0.5"),
            ],
        ),
        (
            {"faults": {"writeErrors": 1, "error": "ENOSPC"}},
            [
                *(*NBDKIT, "--filter=error", "file", "DISK", "error=ENOSPC"),
                *("error-pwrite-rate=1", "error-trim-rate=1", "error-zero-rate=1"),
            ],
        ),
    ],
)
def test_what_the_programs_are_told(parameters: dict[str, Any], words: list[str]) -> None:
    assert command({"size": "8MiB", **parameters}) == words


def changed(before: dict[str, Any], after: dict[str, Any], frontend: str = "virtio-blk") -> Plan:
    """The plan when a running client's disk, which has a store, is to be otherwise."""
    there = vmm()
    kept = {"size": "8MiB", "store": STORE}
    first, second = ([document("m", {**kept, **more}, frontend=frontend)] for more in (before, after))
    there.apply(topology_from_documents(first, **OWN))
    return there.plan(topology_from_documents(second, **OWN))


def test_faults_change_while_the_client_runs() -> None:
    assert steps(changed({"faults": {}}, {"faults": {"readErrors": 1}})) == {"update/device-vm/m-dvm": Effect.RECONNECT}


@pytest.mark.parametrize(
    ("before", "after", "frontend"),
    [
        # Its VMM keeps what failed, and would keep what is to fail.
        ({}, {"faults": {"readErrors": 1}}, "virtio-blk"),
        ({"faults": {}}, {"faults": {"readErrors": 1}}, "nvme"),
        (
            {"format": "qcow2", "base": {"file": "/a"}},
            {"format": "qcow2", "base": {"file": "/b"}},
            "virtio-blk",
        ),
        ({"encryption": KEY}, {"encryption": {"key": {"file": "/keys/b"}}}, "virtio-blk"),
        ({"format": "qcow2"}, {}, "virtio-blk"),
    ],
)
def test_what_a_running_client_would_not_bear_restarts_it(
    before: dict[str, Any], after: dict[str, Any], frontend: str
) -> None:
    assert "stop/client/m" in steps(changed(before, after, frontend))


def test_a_copy_in_memory_is_content_in_memory() -> None:
    (want,) = wants_of(
        topology_from_documents([document("m", {"size": "8MiB", "format": "qcow2", "base": {"file": "/a"}})], **OWN)
    )
    assert want.device.memory == parse_bytes("8MiB")
    assert want.memory == parse_bytes("40MiB")
