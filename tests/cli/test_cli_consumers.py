"""Clients that are no VM of devicevm's, on the command line: endpoints, existing domains."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

LAB = """
apiVersion: devicevm/v1
kind: Client
metadata: {name: lab}
spec:
  vmm: {}
  devices:
    - {name: data, class: disk, parameters: {size: 64MiB}}
    - {name: gps, class: serial, frontend: pci-serial, parameters: {program: nmea}}
"""
LEDGER = """
apiVersion: devicevm/v1
kind: Client
metadata: {name: ledger}
spec:
  existing: {domain: ledger-db}
  devices: [{name: log, class: disk, parameters: {size: 64MiB}}]
"""
THEIRS = (
    "<domain type='test'><name>ledger-db</name><memory>32768</memory><os><type>hvm</type></os>"
    "<devices><disk type='file'><source file='/x'/><target dev='vda'/></disk></devices></domain>"
)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(LAB)
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.yaml"
    path.write_text(LEDGER)
    return path


def test_an_endpoint_is_the_xml_that_a_domain_needs(cli: Any, lab: Path, vmm: Any) -> None:
    said = cli("endpoint", lab, "lab/data", "--number", "1")
    tree = ElementTree.fromstring(said.out)
    assert (said.status, tree.tag) == (0, "disk")
    assert [one.get("dev") for one in tree.iterfind("target")] == ["vdb"]
    document = cli("endpoint", lab, "lab/gps", "-o", "json").json
    assert document["device"] == "lab/gps"
    (source,) = ElementTree.fromstring(document["xml"][0]).iterfind("source")
    assert source.get("path") == document["address"]


def test_the_address_of_an_endpoint_is_told_before_and_after(cli: Any, lab: Path, vmm: Any) -> None:
    address = cli("endpoint", lab, "lab/data", "-o", "json").json["address"]
    assert f"endpoint of lab/data: {address}" in cli("plan", lab).out
    assert f"endpoint: {address}" in cli("explain", lab, "lab/data").out
    assert cli("apply", lab).status == 0
    devices = {one["device"]: one for one in cli("status", "-o", "json").json["devices"]}
    assert (devices["data"]["address"], devices["data"]["consumer"]) == (address, "vmm")
    assert cli("endpoint", lab, "lab/data", "-o", "json").json["address"] == address
    assert "lab-dvm" in cli("render", lab).out
    assert cli("plan", lab).out.splitlines()[-1] == "No changes."
    assert cli("destroy", "--yes", lab).status == 0
    assert not vmm.listAllDomains()


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("lab/dta",), 1, "no device lab/dta is declared"),
        ((), 2, "give the manifests first and then one device"),
        (("web/data",), 1, "web/data is for its client alone, which is vm"),
    ],
)
def test_what_is_no_endpoint(
    cli: Any, lab: Path, web: Path, vmm: Any, arguments: tuple[str, ...], status: int, why: str
) -> None:
    said = cli("endpoint", lab, web, *arguments)
    assert said.status == status
    assert why in said.err


def test_an_endpoint_that_cannot_be_had(cli: Any, lab: Path, vmm: Any) -> None:
    lab.write_text(LAB.replace("64MiB", "64TiB"))
    said = cli("endpoint", lab, "lab/data")
    assert said.status == 1
    assert "lab/data cannot be placed" in said.err


def test_an_existing_domain_is_shown_as_one(cli: Any, ledger: Path, vmm: Any) -> None:
    theirs = vmm.defineXML(THEIRS)
    before = theirs.XMLDesc(2)
    theirs.create()
    planned = cli("plan", ledger)
    assert "+ attach client ledger: domain ledger-db gets log" in planned.out
    assert "until it is shut down and started again" in planned.err
    rendered = ElementTree.fromstring(cli("render", ledger, "--domain", "ledger").out)
    assert [item.tag for item in rendered] == ["disk"]
    assert cli("apply", "--yes", ledger).status == 0
    status = cli("status").out
    assert "ledger (domain ledger-db)" in status
    assert "its own" in status
    (shown,) = (one for one in cli("status", "-o", "json").json["domains"] if one["role"] == "client")
    assert (shown["name"], shown["domain"], shown["state"]) == ("ledger", "ledger-db", "running")
    assert cli("plan", ledger).out.splitlines()[-1] == "No changes."
    assert "not one of devicevm's" in cli("logs", "ledger-db").err
    assert cli("destroy", "--yes", "--owner", "default").status == 0
    assert [one.name() for one in vmm.listAllDomains()] == ["ledger-db"]
    assert theirs.isActive()
    assert theirs.XMLDesc(2) == before
