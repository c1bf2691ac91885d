"""More disks with backing storage than a SCSI target has room for, in one device VM, and one more while it runs."""

from __future__ import annotations

import pytest
from manifests import Document, client, device_vm, disk, write
from stage import Shell, Stage

pytestmark = pytest.mark.e2e


def keeper(stage: Stage, name: str, *sizes: int) -> Document:
    """A client with one disk of each size in MiB, each kept in a file of its own."""
    disks = [disk(f"d{size}", f"{size}MiB", store={"file": str(stage.folder / f"{name}{size}.img")}) for size in sizes]
    return client(name, *disks, stage=stage)


def write_to_each(stage: Stage, name: str, *sizes: int) -> None:
    """Every disk has the size that was declared, and what is written to it is in its file and in no other."""
    shell = Shell(stage.folder / f"{name}.shell")
    # The first words of the client's shell on a busy host come late; devices were there before it.
    found = dict(
        line.split()
        for line in shell.run("for d in /sys/block/vd*; do echo $(cat $d/size) ${d##*/}; done").splitlines()
    )
    assert sorted(found) == sorted(str(size * 2048) for size in sizes)
    for size in sizes:
        shell.run(f"echo {name} {size} | dd of=/dev/{found[str(size * 2048)]} bs=512 conv=sync,fsync 2>/dev/null")
    shell.close()
    for size in sizes:
        with open(stage.folder / f"{name}{size}.img", "rb") as file:
            assert file.read(64).startswith(f"{name} {size}\n".encode())


def test_ten_disks_with_stores_and_one_more_while_they_run(stage: Stage) -> None:
    sizes = tuple(range(2, 12))
    storage, first = device_vm("storage", "disk"), keeper(stage, "a", *sizes)
    path = write(stage.folder, storage, first)
    stage.devicevm("apply", path)
    write_to_each(stage, "a", *sizes)
    before = stage.virsh("domid", "storage").strip()
    write(stage.folder, storage, first, keeper(stage, "b", 12))
    stage.devicevm("apply", path)
    write_to_each(stage, "b", 12)
    assert stage.virsh("domid", "storage").strip() == before
    write_to_each(stage, "a", *sizes)
    assert stage.devicevm("apply", path).stdout == "No changes.\n"
    stage.devicevm("destroy", "--yes", "--delete-data", path)
