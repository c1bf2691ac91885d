"""Shared memory: what the planner makes of class samples, and how its members find one file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from devicevm.channel.region import REGION, file_of, guest_path, member_arguments, place_of, region_file
from devicevm.domain import Channel, DomainSpec
from devicevm.errors import DevicevmError
from devicevm.inventory.host import Vmm
from devicevm.manifest.read import read_topology
from devicevm.manifest.topology import Topology
from devicevm.part import lock
from devicevm.part.keeper import Parts
from devicevm.part.part import Part
from devicevm.planner.plan import Effect, Plan
from devicevm.planner.planner import Intent
from devicevm.vmm.libvirt import files
from devicevm.vmm.libvirt.domain_xml import domain_xml
from devicevm.vmm.libvirt.element import parse, to_text
from devicevm.vmm.places import places_of
from devicevm.vmm.regions import ensure_region, remove_region
from world import ME, MIB, ModelVmm, host

REPO = Path(__file__).resolve().parents[2]
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
GONE = Intent("default", prune=True)
LAB = """\
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: lab}
spec:
  serves: {classes: [samples]}
  share: {scope: %s}
  parameters: {samples: {size: %s}}
"""
CLIENT = """\
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: %s}
spec:
  vm: {memory: 64MiB, boot: {guestImage: client}}
  trustDomain: %s
  devices: [{name: sound, class: samples, parameters: {readOnly: %s}}]
"""
HOST = """\
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: here}
spec:
  host: {}
  devices: [{name: sound, class: samples, path: /srv/sound}]
"""
MEMORY = LAB % ("trustDomain", "16MiB")
A, B = CLIENT % ("a", "default", "true"), CLIENT % ("b", "default", "false")


class Regions:
    """Manifests in a folder, and a model of a VMM."""

    def __init__(self, folder: Path) -> None:
        self.vmm = ModelVmm(host())
        self.path = folder / "lab.yaml"

    def declared(self, *documents: str) -> Topology:
        self.path.write_text("".join(documents))
        return read_topology([self.path], schemas=REPO / "schemas", classes=REPO / "classes")

    def apply(self, *documents: str, intent: Intent = ME) -> Plan:
        return self.vmm.apply(self.declared(*documents), intent)

    def spec(self, name: str) -> DomainSpec:
        spec = self.vmm.domains[name].spec
        assert spec is not None
        return spec

    def mapped(self, name: str) -> list[tuple[str, bool]]:
        """The files that a domain maps as regions, and whether it may only read them."""
        words = [
            item.get("value", "") for item in domain_xml(self.spec(name), "/s").iterfind(f"{QEMU}commandline/{QEMU}arg")
        ]
        return [(path, "readonly=on" in word) for word in words if (path := file_of(word))]


@pytest.fixture
def regions(tmp_path: Path) -> Regions:
    return Regions(tmp_path)


def test_all_members_map_one_file_and_who_may_only_read_says_so(regions: Regions) -> None:
    plan = regions.apply(MEMORY, A, B, HOST)
    ((file, writes),) = regions.mapped("lab")
    assert not writes
    assert (regions.mapped("a"), regions.mapped("b")) == ([(file, True)], [(file, False)])
    (part,) = [step.part for step in plan.steps if step.part]
    assert (part.kind, part.channel, part.address, part.options) == ("region", file, "/srv/sound", {"readOnly": "yes"})
    (start,) = [step for step in plan.steps if step.id == "start/device-vm/lab"]
    assert "a/sound (samples, reads 16MiB of shared memory)" in start.reason
    assert "b/sound (samples, reads and writes 16MiB of shared memory)" in start.reason
    assert not plan.warnings


def test_programs_find_the_region_where_their_command_says(regions: Regions) -> None:
    regions.apply(MEMORY, A)
    spec = regions.spec("lab")
    path = "/sys/bus/pci/devices/0000:00:17.0/resource2"
    assert guest_path(0) == path and place_of("pci.0", 0x17, 0).startswith("bus=pci.0,addr=0x17.0,")
    assert path in spec.emulators[0].command and path in spec.services[0].command


def test_regions_are_apart_by_device_vm_owner_and_vmm(regions: Regions, tmp_path: Path) -> None:
    regions.apply(A, B)
    found = {regions.mapped(name)[0][0] for name in ("a-dvm", "b-dvm")}
    other = Regions(tmp_path)
    other.apply(A, intent=Intent("somebody"))
    found.add(other.mapped("a-dvm")[0][0])
    there = Regions(tmp_path)
    there.vmm = ModelVmm(replace(host(), vmm=Vmm("qemu:///system", "QEMU", runtime_dir="/run/devicevm/1")))
    there.apply(A)
    found.add(there.mapped("a-dvm")[0][0])
    assert len(found) == 4


def test_a_region_counts_once_in_the_memory_of_its_device_vm(regions: Regions) -> None:
    regions.apply(LAB % ("trustDomain", "1MiB"), A, B)
    small = regions.spec("lab").memory
    regions.apply(LAB % ("trustDomain", "1GiB"), A, B)
    assert 1024 * MIB - 32 * MIB <= regions.spec("lab").memory - small <= 1024 * MIB
    refused = ModelVmm(host()).plan(regions.declared(LAB % ("trustDomain", "64GiB"), A, B))
    assert {one.client for one in refused.unplaced} == {"a", "b"}
    assert "memory" in str(refused.unplaced[0].reasons)


def test_members_come_and_go_while_it_runs(regions: Regions) -> None:
    regions.apply(MEMORY, A)
    plan = regions.apply(MEMORY, A, B, HOST)
    (step,) = [step for step in plan.steps if "device-vm" in step.id]
    assert (step.id, step.effect) == ("update/device-vm/lab", Effect.LIVE)
    assert not [step for step in plan.steps if step.name == "a"]
    plan = regions.apply(MEMORY, B, intent=GONE)
    (step,) = [step for step in plan.steps if "device-vm" in step.id]
    assert (step.id, step.effect) == ("update/device-vm/lab", Effect.LIVE)
    assert not regions.apply(MEMORY, B).steps


def test_what_the_service_is_told_changes_while_it_runs(regions: Regions) -> None:
    regions.apply(MEMORY, A)
    plan = regions.apply(MEMORY.replace("size:", "rate: 8000, size:"), A)
    assert [(step.id, step.effect) for step in plan.steps] == [("update/device-vm/lab", Effect.LIVE)]


def test_another_size_restarts_all_who_have_it(regions: Regions) -> None:
    regions.apply(MEMORY, A, B)
    plan = regions.apply(LAB % ("trustDomain", "32MiB"), A, B)
    assert {step.id for step in plan.steps if step.id.startswith("stop")} == {
        "stop/client/a",
        "stop/client/b",
        "stop/device-vm/lab",
    }
    assert {channel.size for channel in regions.spec("lab").regions} == {32 * MIB}
    assert regions.spec("a").attachments[0].channel.size == 32 * MIB


def test_who_is_not_declared_keeps_the_memory_that_it_has(regions: Regions) -> None:
    regions.apply(MEMORY, A, B)
    plan = regions.apply(LAB % ("trustDomain", "32MiB"), A)
    assert not [step for step in plan.steps if step.id.startswith(("stop", "start"))]
    assert {channel.size for channel in regions.spec("lab").regions} == {16 * MIB}
    assert regions.spec("a").attachments[0].channel.size == 16 * MIB


def test_a_device_vm_that_died_is_back_with_the_memory_and_nobody_is_restarted(regions: Regions) -> None:
    regions.apply(MEMORY, A, B)
    domain = regions.vmm.domains["lab"]
    regions.vmm.domains["lab"] = replace(domain, active=False, active_spec=None)
    plan = regions.apply(MEMORY, A, B)
    assert [(step.id, step.effect) for step in plan.steps] == [("start/device-vm/lab", Effect.RECONNECT)]


def test_a_device_vm_without_a_region_is_not_restarted_for_one(regions: Regions) -> None:
    lab = LAB.replace("classes: [samples]", "classes: [samples, rng]") % ("trustDomain", "1MiB")
    rng = A.replace("class: samples, parameters: {readOnly: true}", "class: rng")
    regions.apply(lab, rng)
    plan = regions.apply(lab, rng, B)
    assert [step.id for step in plan.steps if step.kind == "device-vm"] == [
        "define/device-vm/lab-2",
        "start/device-vm/lab-2",
    ]


def test_trust_domains_share_memory_only_where_that_is_declared_and_it_is_told(regions: Regions) -> None:
    red = CLIENT % ("r", "red", "true")
    plan = regions.apply(MEMORY, B, red)
    assert len({regions.mapped(name)[0][0] for name in "br"}) == 2 and not plan.warnings
    regions.vmm = ModelVmm(host())
    plan = regions.apply(LAB % ("host", "16MiB"), B, red)
    assert len({regions.mapped(name)[0][0] for name in "br"}) == 1
    assert plan.warnings == (
        "trust domains default, red share the memory of samples in lab, as its share.scope says: "
        "b reads and writes, r reads",
    )


def test_a_machine_has_room_for_eight() -> None:
    assert place_of("pci.0", 0x17, 7).startswith("bus=pci.0,addr=0x17.7")
    with pytest.raises(DevicevmError, match="room for 8"):
        place_of("pci.0", 0x17, 8)


def test_only_the_file_of_a_region_is_found_in_an_argument() -> None:
    file = region_file("0123456789abcdef")
    assert [file_of(word) for word in member_arguments("r", file, 4096, "addr=1", read_only=True)] == ["", file, "", ""]
    for path in ("/dev/shm/other", f"{file}/../x", "/etc/passwd"):
        assert not file_of(f"memory-backend-file,id=r,mem-path={path},size=1")


# The file


@pytest.fixture
def region() -> Iterator[Channel]:
    made = Channel(REGION, region_file(uuid4().hex[:16]), "samples", 8192)
    yield made
    Path(made.address).unlink(missing_ok=True)


def test_the_file_is_private_and_goes_on_as_long_as_its_size_does(region: Channel) -> None:
    ensure_region(region, None)
    path = Path(region.address)
    found = path.stat()
    assert (found.st_size, found.st_blocks * 512, stat.S_IMODE(found.st_mode)) == (8192, 8192, 0o600)
    path.write_bytes(b"x" * 8192)
    ensure_region(region, None)
    assert path.stat().st_ino == found.st_ino and path.read_bytes() == b"x" * 8192
    ensure_region(replace(region, size=4096), None)
    assert path.read_bytes() == bytes(4096)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_vmms_user_has_the_file_and_anybody_elses_is_refused(region: Channel) -> None:
    ensure_region(region, (12345, 23456))
    path = Path(region.address)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)
    ensure_region(region, (12345, 23456))
    os.chown(path, 54321, 0)
    with pytest.raises(DevicevmError, match="not devicevm's"):
        ensure_region(region, (12345, 23456))
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(DevicevmError, match="not devicevm's"):
        ensure_region(region, None)


def test_more_than_there_is_leaves_nothing(region: Channel) -> None:
    with pytest.raises(DevicevmError, match="no room"):
        ensure_region(replace(region, size=2**50), None)
    assert not os.path.lexists(region.address)


def test_with_the_device_vm_goes_its_region_and_with_a_client_nothing(regions: Regions, tmp_path: Path) -> None:
    regions.apply(MEMORY, A)
    ((address, _reads),) = regions.mapped("a")
    places = places_of("test:///default", tmp_path)
    ensure_region(Channel(REGION, address, "samples", 4096), None)
    try:
        for name, left in (("a", True), ("lab", False)):
            files.remove(parse(to_text(domain_xml(regions.spec(name), "/s")), name), name, places)
            assert os.path.exists(address) is left
    finally:
        remove_region(address)


# On the host


@pytest.mark.parametrize("options", [{}, {"readOnly": "yes"}])
def test_the_host_has_it_at_a_path_until_the_part_ends(
    region: Channel, tmp_path: Path, options: dict[str, str]
) -> None:
    if options and os.getuid() != 0:
        pytest.skip("only root mounts")
    ensure_region(region, None)
    path = tmp_path / "sound"
    part = Part("region", "lab-sound", region.address, str(path), options)
    parts = Parts(tmp_path / "parts")
    parts.start(part)
    try:
        Path(region.address).write_bytes(b"y" * 8192)
        assert path.read_bytes() == b"y" * 8192
        if options:
            with pytest.raises(OSError, match="Read-only"):
                path.open("r+b")
        else:
            path.write_bytes(b"z" * 8192)
            assert Path(region.address).read_bytes() == b"z" * 8192
        # One that is killed leaves it; the next step takes it away.
        held = lock.holder(tmp_path / "parts" / "lab-sound.lock")
        assert held
        os.kill(held.pid, 9)
    finally:
        parts.stop(part)
    assert not os.path.lexists(path) and Path(region.address).exists()


def test_what_is_there_already_is_left_alone(region: Channel, tmp_path: Path) -> None:
    ensure_region(region, None)
    path = tmp_path / "mine"
    path.write_text("mine")
    parts = Parts(tmp_path / "parts")
    for options in ({}, {"readOnly": "yes"}):
        with pytest.raises(DevicevmError):
            parts.start(Part("region", "lab-sound", region.address, str(path), options))
    assert path.read_text() == "mine"
