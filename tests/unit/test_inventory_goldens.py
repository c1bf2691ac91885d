"""Recorded documents of real hosts and written ones of odd hosts, read whole.

What comes out is kept under tests/goldens/inventory; DEVICEVM_REGENERATE=1 writes it anew, for review by diff.
The recorded documents are not part of the project: they are looked for in ../shared/data of the checkout.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from devicevm.inventory.domcapabilities import parse_domain_capabilities
from devicevm.inventory.host import DomainSupport, Host, NodeDevice
from devicevm.inventory.nodedevices import parse_node_device
from devicevm.inventory.offline import host_from_documents
from devicevm.record import from_data, to_data

TESTS = Path(__file__).resolve().parent.parent
OWN = TESTS / "data" / "inventory"
RECORDED = TESTS.parent.parent / "shared" / "data"
GOLDENS = TESTS / "goldens" / "inventory"


def recorded(kind: str) -> list[object]:
    files = sorted((RECORDED / kind).glob("*.xml"))
    if files:
        return [pytest.param(file, id=file.name) for file in files]
    reason = f"recorded documents are not there: {RECORDED / kind}"
    return [pytest.param(Path(), id="none", marks=pytest.mark.skip(reason=reason))]


def check(name: str, value: object) -> None:
    golden = GOLDENS / f"{name}.json"
    text = json.dumps(to_data(value), indent=1, sort_keys=True) + "\n"
    if os.environ.get("DEVICEVM_REGENERATE"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text, "DEVICEVM_REGENERATE=1 writes the goldens anew"


@pytest.mark.parametrize("file", recorded("capabilities"))
def test_recorded_capabilities(file: Path) -> None:
    host = host_from_documents(file.read_text(), name=file.stem)
    assert from_data(Host, json.loads(json.dumps(to_data(host)))) == host
    check(f"capabilities/{file.stem}", host)


@pytest.mark.parametrize("file", sorted(OWN.glob("*.xml")), ids=lambda file: file.name)
def test_odd_capabilities(file: Path) -> None:
    check(f"odd/{file.stem}", host_from_documents(file.read_text(), name=file.stem))


@pytest.mark.parametrize("file", recorded("domcapabilities"))
def test_recorded_domain_capabilities(file: Path) -> None:
    support = parse_domain_capabilities(file.read_text())
    assert from_data(DomainSupport, to_data(support)) == support
    check(f"domcapabilities/{file.stem}", support)


@pytest.mark.parametrize("file", recorded("node-devices"))
def test_recorded_node_devices(file: Path) -> None:
    device = parse_node_device(file.read_text())
    assert from_data(NodeDevice, to_data(device)) == device
    check(f"node-devices/{file.stem}", device)


def test_all_recorded_documents_make_one_host() -> None:
    """Whatever is in the folders, in whatever order, is one inventory."""
    capabilities = RECORDED / "capabilities" / "kvm-x86_64.xml"
    if not capabilities.exists():
        pytest.skip(f"recorded documents are not there: {RECORDED}")
    support = [file.read_text() for file in sorted((RECORDED / "domcapabilities").glob("*.xml"))]
    devices = [file.read_text() for file in sorted((RECORDED / "node-devices").glob("*.xml"))]
    host = host_from_documents(capabilities.read_text(), name="a", domain_capabilities=support, node_devices=devices)
    turned = host_from_documents(
        capabilities.read_text(), name="a", domain_capabilities=support[::-1], node_devices=devices
    )
    assert host == turned
    assert len(host.support) == len(support)
    assert {device.kind for device in host.node_devices} >= {"pci", "usb_device", "mdev", "ap_matrix"}
