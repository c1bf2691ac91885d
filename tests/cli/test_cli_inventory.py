"""inventory: the live host, and recorded ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from devicevm.inventory.host import Host
from devicevm.record import from_data

CAPABILITIES = Path(__file__).parent / "capabilities.xml"
BLOCKS = Path(__file__).resolve().parents[1] / "data" / "blocks-host.xml"

DOMAIN_CAPABILITIES = """
<domainCapabilities>
  <path>/usr/bin/qemu-system-x86_64</path>
  <domain>kvm</domain>
  <machine>pc-q35-7.2</machine>
  <arch>x86_64</arch>
  <vcpu max='288'/>
</domainCapabilities>
"""

NODE_DEVICE = """
<device>
  <name>pci_0000_42_00_0</name>
  <parent>computer</parent>
  <driver><name>vfio-pci</name></driver>
  <capability type='pci'>
    <class>0x120000</class>
    <domain>0</domain><bus>66</bus><slot>0</slot><function>0</function>
    <product id='0x09c4'/><vendor id='0x8086'/>
    <iommuGroup number='12'/>
  </capability>
</device>
"""


def test_the_live_host(cli: Any, vmm: Any, web: Path) -> None:
    assert cli("apply", web, "--owner", "lab").status == 0
    said = cli("inventory")
    assert said.status == 0
    for word in ("test:///default", "Accelerator: test", "Cores", "NUMA nodes", "web-dvm", "lab", "nobody"):
        assert word in said.out
    host = from_data(Host, cli("inventory", "-o", "json").json)
    assert {holding.domain for holding in host.holdings} == {"web", "web-dvm"}


def test_a_recorded_host(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "domain.xml").write_text(DOMAIN_CAPABILITIES)
    devices = tmp_path / "devices"
    devices.mkdir()
    (devices / "fpga.xml").write_text(NODE_DEVICE)
    options = ("--domain-capabilities", tmp_path / "domain.xml", "--node-devices", devices, "--name", "lab2")
    said = cli("inventory", "--from-capabilities", CAPABILITIES, *options)
    assert said.status == 0
    for word in (
        "lab2 (x86_64)",
        "8; vacant: 8 CPUs, 4 whole cores, 1 whole sockets",
        "16GiB",
        "0000:42:00.0",
        "0x8086:0x09c4",
        "vfio-pci",
    ):
        assert word in said.out
    host = from_data(Host, cli("inventory", "--from-capabilities", CAPABILITIES, *options, "-o", "json").json)
    assert host.support[0].max_vcpus == 288
    assert host.node_devices[0].iommu_group == 12


def test_its_name_is_the_files_without_another(cli: Any) -> None:
    assert cli("inventory", "--from-capabilities", CAPABILITIES, "-o", "json").json["name"] == "capabilities"


def test_plans_are_made_on_it(cli: Any, web: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab.json"
    path.write_text(cli("inventory", "--from-capabilities", CAPABILITIES, "-o", "json").out)
    assert "on capabilities: thread" in cli("plan", web, "--inventory", path).out


def test_what_plans_do_not_see_of_their_own_owner(cli: Any, vmm: Any, web: Path, tmp_path: Path) -> None:
    """A host that was recorded while it ran what is declared: it is planned as if that were not there."""
    assert cli("apply", web).status == 0
    path = tmp_path / "lab.json"
    path.write_text(cli("inventory", "-o", "json").out)
    assert cli("plan", web, "--inventory", path).out.splitlines()[-1] == "2 to add, 0 to change, 0 to remove."
    assert "lab" not in json.loads(path.read_text())["name"]


def test_wrong_use(cli: Any, tmp_path: Path) -> None:
    assert cli("inventory", "--node-devices", tmp_path).status == 2
    said = cli("inventory", "--from-capabilities", tmp_path / "nothing.xml")
    assert said.status == 1
    assert "cannot be read" in said.err
    (tmp_path / "no.xml").write_text("<html/>")
    said = cli("inventory", "--from-capabilities", tmp_path / "no.xml")
    assert said.status == 1
    assert "<capabilities> is expected" in said.err


def test_blocks_and_who_has_them(cli: Any) -> None:
    said = cli("inventory", "--connect", f"test://{BLOCKS}")
    assert said.status == 0
    blocks = said.out.partition("Blocks")[2].partition("Devices")[0]
    rows = {line.split()[0].rstrip(","): line for line in blocks.splitlines() if line.startswith(("0000:", "d069"))}
    assert rows["0000:03:00.0"].rstrip().endswith("lab1")
    assert "0000:04:00.0, 0000:04:00.1" in rows["0000:04:00.0"]
    assert rows["0000:04:00.0"].rstrip().endswith("nobody")
    assert "its parent 0000:03:00.0 is held by lab1" in rows["d069d019-36ea-4111-8f0a-8c9a70e21366"]
