"""Domain specifications and the domain XML that they become, case by case.

A case is NAME.json (a DomainSpec) and NAME.xml (what it renders to) under tests/goldens/domains.
DEVICEVM_REGENERATE=1 writes the XML anew, for review by diff.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from devicevm.channel.registry import MAX_ADDRESS
from devicevm.domain import DomainSpec
from devicevm.errors import DevicevmError
from devicevm.frontend.frontend import MAX_SERIAL, serial_number
from devicevm.frontend.registry import FRONTENDS
from devicevm.guest.boot_config import device_config
from devicevm.manifest.topology import Boot
from devicevm.record import from_data
from devicevm.vmm.libvirt.domain_xml import domain_xml
from devicevm.vmm.libvirt.drift import drift
from devicevm.vmm.libvirt.element import to_text
from devicevm.vmm.libvirt.observation import declared

GOLDENS = Path(__file__).parents[1] / "goldens" / "domains"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
STATE = "/var/lib/devicevm/vmm/1a2b3c4d"
CASES = sorted(path.stem for path in GOLDENS.glob("*.json"))


def spec(name: str) -> DomainSpec:
    return from_data(DomainSpec, json.loads((GOLDENS / f"{name}.json").read_text()))


@pytest.mark.parametrize("case", CASES)
def test_a_specification_renders_as_its_golden(case: str) -> None:
    golden = GOLDENS / f"{case}.xml"
    text = to_text(domain_xml(spec(case), STATE), pretty=True)
    if os.environ.get("DEVICEVM_REGENERATE"):
        golden.write_text(text)
    assert golden.read_text() == text, "DEVICEVM_REGENERATE=1 writes the goldens anew"


@pytest.mark.skipif(
    not (shutil.which("xmllint") and SCHEMA.exists()), reason="xmllint or libvirt's schemas are missing"
)
@pytest.mark.parametrize("case", CASES)
def test_a_rendered_domain_validates_against_libvirts_schema(case: str, tmp_path: Path) -> None:
    document = tmp_path / "domain.xml"
    document.write_text(to_text(domain_xml(spec(case), STATE)))
    done = subprocess.run(
        ["xmllint", "--noout", "--relaxng", SCHEMA, document], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", CASES)
def test_what_is_asked_for_is_no_drift(case: str) -> None:
    tree = domain_xml(spec(case), STATE)
    assert drift(declared(spec(case), STATE), tree) == ()
    assert drift(declared(spec(case), STATE), tree, live=True) == ()


def test_every_front_end_is_in_a_golden() -> None:
    used = {attachment.frontend for case in CASES for attachment in spec(case).attachments}
    assert used == set(FRONTENDS)


def test_the_boot_configuration_names_only_what_the_guest_needs() -> None:
    stored = spec("device-vm-stores")
    assert device_config(stored.emulators[0]) == {
        "name": "a.f",
        "port": "a.f",
        "command": ["nbdkit", "file", "${backing}"],
        "onExit": "restart",
        "backing": "0123456789abcdef",
    }
    assert "backing" not in device_config(spec("device-vm").emulators[0])
    entry = domain_xml(stored, "/state").findtext("sysinfo/entry") or ""
    assert json.loads(base64.b64decode(entry)) == {"devices": [device_config(item) for item in stored.emulators]}


def test_long_disk_names_stay_distinct_within_a_serial_number() -> None:
    names = ["x" * 63, "x" * 62 + "y", "short"]
    serials = [serial_number(name) for name in names]
    assert len(set(serials)) == len(names)
    assert max(map(len, serials)) == MAX_SERIAL
    assert serials[2] == "short"


def test_a_socket_path_that_the_kernel_would_refuse_is_refused_here() -> None:
    device_vm = replace(spec("device-vm"), control="/" + "x" * MAX_ADDRESS)
    with pytest.raises(DevicevmError, match=f"{MAX_ADDRESS + 1} bytes long, {MAX_ADDRESS} are allowed"):
        domain_xml(device_vm, STATE)


@pytest.mark.parametrize(
    ("fragment", "says"),
    [
        ("<domain>\n<devices>\n</domain>", "line 3"),
        ("<network/>", "<domain> expected, <network> found"),
        ("<domain><name>x</name></domain>", "<name> cannot be set"),
        ("<domain><uuid>x</uuid></domain>", "<uuid> cannot be set"),
        ("<domain><metadata/></domain>", "<metadata> cannot be set"),
        ("<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>", "document type"),
        ("", "line 1"),
    ],
)
def test_a_fragment_that_cannot_be_used_is_refused(fragment: str, says: str) -> None:
    with pytest.raises(DevicevmError, match=f"domainXML of web.*{says}"):
        domain_xml(replace(spec("client"), domain_xml=fragment or " "), STATE)


def test_a_fragment_replaces_merges_and_adds() -> None:
    fragment = (
        "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
        "<vcpu current='1'>4</vcpu><features><pae/></features><cputune><shares>5</shares></cputune>"
        "<devices><controller type='usb' model='qemu-xhci'/><tpm model='tpm-crb'/></devices>"
        "<qemu:commandline><qemu:arg value='-S'/></qemu:commandline></domain>"
    )
    tree = domain_xml(replace(spec("client"), domain_xml=fragment), STATE)
    vcpu = tree.find("vcpu")
    assert vcpu is not None
    assert (vcpu.text, vcpu.attrib) == ("4", {"placement": "static", "current": "1"})
    assert [item.tag for item in tree.findall("features/*")] == ["acpi", "apic", "pae"]
    assert [item.get("model") for item in tree.iterfind("devices/controller[@type='usb']")] == ["qemu-xhci"]
    assert len(tree.findall("devices/tpm")) == 1
    assert "http://libvirt.org/schemas/domain/qemu/1.0" in ElementTree.tostring(tree, encoding="unicode")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"boot": Boot(device="gps")}, "boots from 'gps', which is no disk of its"),
        ({"accelerator": "xen"}, "accelerator 'xen' is unknown"),
    ],
)
def test_what_cannot_be_rendered_says_why(change: dict[str, object], says: str) -> None:
    with pytest.raises(DevicevmError, match=says):
        domain_xml(replace(spec("client"), **change), STATE)  # type: ignore[arg-type]


def test_a_machine_has_three_isa_ports_beside_its_console() -> None:
    client = spec("client")
    gps = client.attachments[-1]
    four = tuple(replace(gps, name=f"s{number}") for number in range(4))
    with pytest.raises(DevicevmError, match="s3 is isa-serial number 4, a machine has room for 3"):
        domain_xml(replace(client, attachments=four), STATE)


CHANGES = [
    ("memory", lambda tree: tree.find("memory").__setattr__("text", "524288"), "memory is 512MiB, declared 128MiB"),
    ("vcpu", lambda tree: tree.find("vcpu").set("current", "1"), "vcpus are 1, declared 2"),
    ("pin", lambda tree: tree.find("cputune/vcpupin").set("cpuset", "0-3"), "vcpu 0 is pinned to 0-3, declared 2"),
    ("pins", lambda tree: tree.remove(tree.find("cputune")), "emulator is pinned to nothing, declared 0-1,5"),
    ("nodes", lambda tree: tree.remove(tree.find("numatune")), "memory is on NUMA nodes any, declared 0"),
    ("machine", lambda tree: tree.find("os/type").set("machine", "pc-q35-7.2"), "machine is pc-q35-7.2, declared pc"),
    (
        "channel",
        lambda tree: tree.find("devices").remove(tree.find("devices/channel[2]")),
        "channel db.log is missing",
    ),
    (
        "address",
        lambda tree: tree.find("devices/channel/source").set("path", "/x"),
        "channel org.devicevm.control source: path is /x, declared /run/devicevm/1a2b3c4d/0a1b2c3d-control.sock",
    ),
    ("reboot", lambda tree: tree.find("on_reboot").__setattr__("text", "restart"), "on_reboot is 'restart'"),
    ("kernel", lambda tree: tree.find("os/kernel").__setattr__("text", "/k"), "os kernel is '/k'"),
    ("devices", lambda tree: tree.remove(tree.find("devices")), "memballoon is missing"),
]


@pytest.mark.parametrize(("name", "change", "says"), CHANGES, ids=[change[0] for change in CHANGES])
def test_drift_says_what_changed(name: str, change: object, says: str) -> None:
    wanted = domain_xml(spec("device-vm-pinned"), STATE)
    actual = domain_xml(spec("device-vm-pinned"), STATE)
    assert callable(change)
    change(actual)
    assert any(says in text for text in drift(wanted, actual)), drift(wanted, actual)


def test_what_libvirt_writes_for_an_alias_is_no_drift() -> None:
    wanted = domain_xml(spec("device-vm-pinned"), STATE)
    actual = domain_xml(spec("device-vm-pinned"), STATE)
    machine = actual.find("os/type")
    assert machine is not None
    machine.set("machine", "pc-i440fx-7.2")
    assert drift(wanted, actual) == ()
