"""USB devices in plans: a real one is at a controller that its device VM has alone; content on a store comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devicevm.domain import HostDevice
from devicevm.inventory.host import Host, ImageFacts, NodeDevice
from devicevm.manifest.read import read_topology
from devicevm.manifest.topology import Topology
from devicevm.planner.plan import Effect
from devicevm.planner.planner import make_plan
from devicevm.vmm.libvirt.domain_xml import domain_xml
from world import ME, ModelVmm, host

REPO = Path(__file__).resolve().parents[2]
OWN: dict[str, Any] = {"schemas": REPO / "schemas", "classes": REPO / "classes"}
STICK = """\
apiVersion: devicevm/v1
kind: Client
metadata: {{name: bench}}
spec:
  vm: {{memory: 64MiB, boot: {{kernel: /k}}}}
  devices:
    - {{name: stick, class: usb, parameters: {{model: {model}, massStorage: {{size: 1MiB{store}}}}}}}
"""


def bench(*controllers: NodeDevice) -> Host:
    """A host with the images that USB devices take."""
    images = tuple(ImageFacts(name, "0" * 12, f"/i/{name}/k", f"/i/{name}/i", "quiet") for name in ("client", "usb"))
    return replace(host(), images=images, node_devices=controllers)


def controller(number: int, class_code: str) -> NodeDevice:
    """A PCI function in a group of its own."""
    address = f"0000:00:{number:02x}.0"
    ids = {"vendor": "0x8086", "product": "0xa36d", "class_code": class_code}
    return NodeDevice(f"pci_{number}", "pci", **ids, address=address, iommu_group=number, node=0)


def test_a_real_device_is_at_a_controller_of_the_host() -> None:
    topology = read_topology([REPO / "examples" / "usb-host-device.yaml"], **OWN)
    where = bench(controller(0x14, "0x0c0330"), controller(0x1F, "0x0c0500"))
    plan = make_plan(topology, (where,), (), ME)
    assert not plan.unplaced
    (spec,) = [spec for spec in plan.domains if spec.host_devices]
    assert spec.host_devices == (HostDevice("pci", "0000:00:14.0"),)
    assert spec.emulators[0].command[-2:] == ("host", "0951:1666")
    (address,) = domain_xml(spec, "/state").iterfind("devices/hostdev/source/address")
    assert (address.get("slot"), address.get("function")) == ("0x14", "0x0")


def test_without_a_controller_a_real_device_is_not_placed() -> None:
    topology = read_topology([REPO / "examples" / "usb-host-device.yaml"], **OWN)
    (item,) = make_plan(topology, (bench(controller(0x1F, "0x0c0500")),), (), ME).unplaced
    assert "no PCI function of class 0x0c0330 is there" in item.reasons[0]


def declared(tmp_path: Path, model: str, store: str) -> Topology:
    path = tmp_path / "bench.yaml"
    path.write_text(STICK.format(model=model, store=store))
    return read_topology([path], **OWN)


@pytest.mark.parametrize(
    ("store", "effect"), [("", {Effect.RESTART}), (", store: {file: /srv/stick.img}", {Effect.RECONNECT})]
)
def test_content_in_memory_is_lost_with_the_device_vm(tmp_path: Path, store: str, effect: set[Effect]) -> None:
    """The device VM has died: what is on a store is plugged in again, what was in memory is gone."""
    vmm = ModelVmm(bench())
    vmm.apply(declared(tmp_path, "A", store))
    vmm.domains["bench-dvm"] = replace(vmm.domains["bench-dvm"], active=False, active_spec=None)
    plan = vmm.plan(declared(tmp_path, "A", store))
    assert {step.effect for step in plan.steps if step.affects} == effect
