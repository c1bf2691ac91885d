"""What is declared, on which hosts, and the plan that comes of it, case by case.

Each manifest of tests/cases/plans is planned on each host (or fleet) below; the plan in short is NAME/HOST.txt beside
it. DEVICEVM_REGENERATE=1 writes them anew, for review by diff.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.inventory.cpuset import format_cpuset
from devicevm.inventory.host import DomainSupport, Holding, Host, NodeDevice
from devicevm.manifest.read import read_topology
from devicevm.planner.plan import Plan
from devicevm.planner.planner import make_plan
from devicevm.quantity import format_bytes
from devicevm.record import canonical_json, from_data
from world import GIB, ME, MIB, host

REPO = Path(__file__).resolve().parents[2]
CASES = REPO / "tests/cases/plans"
RECORDED = REPO / "tests/goldens/inventory/capabilities"
ODD = RECORDED.with_name("odd")
MANIFESTS = sorted(path.stem for path in CASES.glob("*.yaml"))


def recorded(path: Path) -> Host:
    """A host whose capabilities were recorded, called `vm` whatever it is."""
    name = path.stem
    found = from_data(Host, json.loads(path.read_text()))
    accelerator = "kvm" if "kvm" in name else "xen" if "xen" in name else "tcg"
    if name.startswith("vircaps"):
        # libvirt made these up for its tests: the huge pages come to a thousand times the memory.
        found = replace(found, nodes=tuple(replace(node, huge_pages={}) for node in found.nodes))
    # One that was made up says nothing of its memory.
    found = replace(found, memory=found.memory or 8 * GIB)
    return replace(found, name="vm", vmm=replace(found.vmm, runtime_dir="/run/d"), accelerator=accelerator)


def wide() -> Host:
    """Two processors of eight cores with two threads; one NUMA node each, with huge pages."""
    one = host("wide", cores=8, threads=2, sockets=2, memory=64 * GIB)
    nodes = tuple(replace(node, huge_pages={str(2 * MIB): 1024}) for node in one.nodes)
    support = DomainSupport(arch="x86_64", accelerator="tcg", host_features=("aes", "avx2"))
    return replace(one, nodes=nodes, microcode=0x2B, support=(support,))


def busy() -> Host:
    """Four cores, of which others hold two."""
    holdings = (
        Holding("db", "u1", True, 2, GIB, (0, 4), False, owner="them", dedicated=True),
        Holding("web0", "u2", True, 4, 2 * GIB),
        Holding("batch", "u3", False, 1, GIB, (1,), False),
    )
    return host("busy", cores=4, threads=2, memory=8 * GIB, holdings=holdings)


def cards() -> Host:
    """Two FPGA cards, one of which somebody holds, and a mediated device of a third."""
    held = Holding("lab1", "u4", True, 1, GIB, node_devices=("0000:03:00.0",))
    one = host("cards", cores=2, threads=2, sockets=2, memory=8 * GIB, holdings=(held,))
    card = NodeDevice("", "pci", vendor="0x1172", product="0x0004", class_code="0x120000", node=0)
    slot = "d069d019-36ea-4111-8f0a-8c9a70e21366"
    devices = (
        replace(card, name="pci_3", address="0000:03:00.0", iommu_group=9),
        replace(card, name="pci_4", address="0000:04:00.0", iommu_group=10),
        replace(card, name="pci_4_1", address="0000:04:00.1", iommu_group=10, product="0x0005", class_code="0x058000"),
        replace(card, name="pci_5", address="0000:05:00.0", iommu_group=11, vendor="0x10ee", node=1),
        NodeDevice("mdev_1", "mdev", parent="pci_5", product="fpga-slot", address=slot, iommu_group=40),
    )
    return replace(one, node_devices=devices)


HOSTS: dict[str, tuple[Host, ...]] = {
    "wide": (wide(),),
    "busy": (busy(),),
    "fleet": tuple(host(f"f{number}", cores=2, threads=2, memory=4 * GIB) for number in (1, 2, 3)),
    "mixed": (busy(), wide()),
    "cards": (cards(),),
    **{path.stem: (recorded(path),) for path in sorted(RECORDED.glob("*.json"))},
    # Two dies a socket, with a NUMA node each; and a host that says nothing of where its processors are.
    **{name: (recorded(ODD / f"{name}.json"),) for name in ("sub-numa", "no-topology")},
}


@functools.cache
def planned(manifest: str, hosts: str) -> Plan:
    topology = read_topology([CASES / f"{manifest}.yaml"], schemas=REPO / "schemas", classes=REPO / "classes")
    return make_plan(topology, HOSTS[hosts], (), ME)


def in_short(plan: Plan) -> str:
    """Where everything goes and why, what cannot be had and why, and the steps."""
    lines = []
    places = {spec.name: spec for spec in plan.domains}
    for allocation in plan.allocations:
        placement = places[allocation.device_vm].placement
        alone = "dedicated " if allocation.dedicated else ""
        idle = f", CPU {format_cpuset(placement.idle)} empty" if placement.idle else ""
        nodes = f", NUMA node {format_cpuset(allocation.nodes)}" if allocation.nodes else ""
        lines.append(
            f"{allocation.device_vm} on {allocation.host}: {alone}{allocation.unit}, "
            f"CPU {format_cpuset(allocation.cpus)}{idle}{nodes}, {format_bytes(allocation.memory)}, "
            f"serves {', '.join(allocation.serves)}"
        )
        if allocation.firmware:
            lines.append(f"  runs {Path(allocation.firmware).name}")
        if allocation.blocks:
            lines.append(f"  has {', '.join(allocation.blocks)}")
        lines += [f"  endpoint of {one.device}: {one.address}" for one in allocation.endpoints]
        lines += [f"  why: {reason}" for reason in allocation.reasons]
    for spec in plan.domains:
        if spec.attachments:
            lines.append(f"{spec.name} on {spec.host}: {', '.join(sorted({a.device_vm for a in spec.attachments}))}")
        if spec.attachments and spec.placement.vcpus:
            alone = "alone " if spec.placement.dedicated else ""
            lines.append(f"  {alone}on CPU {' '.join(map(format_cpuset, spec.placement.vcpus))}")
    for item in plan.unplaced:
        lines.append(f"not placed: {item.client}/{item.device}")
        lines += [f"  why: {reason}" for reason in item.reasons]
    lines += [f"warning: {warning}" for warning in plan.warnings]
    lines += [f"{step.id} [{step.effect.value}]" for step in plan.steps]
    return "\n".join(lines) + "\n"


def test_there_are_enough_cases() -> None:
    assert len(MANIFESTS) * len(HOSTS) >= 150


@pytest.mark.parametrize("hosts", HOSTS)
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_case(manifest: str, hosts: str) -> None:
    golden = CASES / manifest / f"{hosts}.txt"
    text = in_short(planned(manifest, hosts))
    if os.environ.get("DEVICEVM_REGENERATE"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text, "DEVICEVM_REGENERATE=1 writes the plans anew"


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_order_of_documents_does_not_matter(manifest: str, tmp_path: Path) -> None:
    documents = (CASES / f"{manifest}.yaml").read_text().split("\n---\n")
    turned = tmp_path / "turned.yaml"
    turned.write_text("\n---\n".join(reversed(documents)))
    topology = read_topology([turned], schemas=REPO / "schemas", classes=REPO / "classes")
    again = make_plan(topology, HOSTS["mixed"], (), ME)
    assert canonical_json(again) == canonical_json(planned(manifest, "mixed"))


def test_no_golden_is_without_its_case() -> None:
    wanted = {CASES / manifest / f"{hosts}.txt" for manifest in MANIFESTS for hosts in HOSTS}
    assert set(CASES.glob("*/*.txt")) == wanted
