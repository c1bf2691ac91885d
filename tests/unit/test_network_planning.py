"""Networks: what the planner makes of class net, and how the two ends of a link find each other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from devicevm.channel.link import client_end, client_netdev, device_vm_arguments, socket_of
from devicevm.domain import DomainSpec
from devicevm.guest.boot_config import device_config, service_config
from devicevm.inventory.host import ImageFacts
from devicevm.manifest.read import read_topology
from devicevm.manifest.topology import Topology
from devicevm.planner.plan import Effect, Plan
from devicevm.planner.planner import Intent
from devicevm.vmm.libvirt.domain_xml import domain_xml
from devicevm.vmm.libvirt.drift import drift
from devicevm.vmm.libvirt.element import parse, to_text
from world import ME, ModelVmm, host

REPO = Path(__file__).resolve().parents[2]
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
LAB = """\
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: lab}
spec:
  serves: {classes: [net]}
  share: {maxDevices: %d}
  parameters: {net: {address: 10.0.0.1/24, isolate: %s}}
"""
CLIENT = """\
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: %s}
spec:
  vm: {memory: 64MiB, boot: {guestImage: client}}
  devices: [{name: lan, class: net, parameters: {%s}}]
"""
HOST = """\
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: here}
spec:
  host: {}
  devices:
    - name: lan
      class: net
      tap: {name: lab0, address: 10.0.0.2/24}
      parameters: {mac: "02:00:00:00:00:09"}
"""
GONE = Intent("default", prune=True)


class Networks:
    """Manifests in a folder, and a model of a VMM that has the image of networks."""

    def __init__(self, folder: Path) -> None:
        one = host()
        image = ImageFacts("net", "0" * 12, "/i/net/kernel", "/i/net/initramfs", "quiet")
        self.vmm = ModelVmm(replace(one, images=(*one.images, image)))
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


@pytest.fixture
def networks(tmp_path: Path) -> Networks:
    return Networks(tmp_path)


def arguments(spec: DomainSpec) -> list[str]:
    return [item.get("value", "") for item in domain_xml(spec, "/s").iterfind(f"{QEMU}commandline/{QEMU}arg")]


def ends(spec: DomainSpec) -> set[tuple[str, str]]:
    """From where to where a domain's links lead."""
    found = [re.search(r"local\.path=([^,]+),.*remote\.path=([^,]+)", argument) for argument in arguments(spec)]
    return {(match[1], match[2]) for match in found if match}


def test_each_client_is_linked_to_the_device_vm_and_nobody_else(networks: Networks) -> None:
    networks.apply(LAB % (16, "false"), CLIENT % ("a", ""), CLIENT % ("b", ""))
    there = ends(networks.spec("lab"))
    back = {(theirs, mine) for name in "ab" for mine, theirs in ends(networks.spec(name))}
    assert back < there and len(back) == 2
    # There is one for each client that may come while it runs.
    assert len({path for pair in there for path in pair}) == 2 * 16


def test_hardware_addresses_are_distinct_and_stay(networks: Networks) -> None:
    networks.apply(LAB % (16, "false"), CLIENT % ("a", ""), CLIENT % ("b", "mac: 02:00:00:00:00:07"))
    macs = {
        name: re.findall(r"mac=([0-9a-f:]{17})", " ".join(arguments(networks.spec(name)))) for name in ("lab", "a", "b")
    }
    everyone = [mac for found in macs.values() for mac in found]
    assert len(set(everyone)) == len(everyone) == 16 + 2
    assert all(int(mac[:2], 16) & 3 == 2 for mac in everyone), "locally administered, of one station"
    assert macs["b"] == ["02:00:00:00:00:07"]
    first = macs["a"]
    networks.apply(LAB % (16, "false"), CLIENT % ("a", ""))
    assert re.findall(r"mac=([0-9a-f:]{17})", " ".join(arguments(networks.spec("a")))) == first


def test_clients_come_and_go_while_the_network_runs(networks: Networks) -> None:
    lab = LAB % (3, "false")
    networks.apply(lab, CLIENT % ("a", ""), CLIENT % ("b", ""))
    before = {name: ends(networks.spec(name)) for name in "ab"}
    plan = networks.apply(lab, CLIENT % ("a", ""), CLIENT % ("b", ""), CLIENT % ("c", ""))
    (step,) = [step for step in plan.steps if "device-vm" in step.id]
    assert (step.id, step.effect, step.felt) == ("update/device-vm/lab", Effect.LIVE, ())
    assert not [step for step in plan.steps if step.name in ("a", "b")]
    plan = networks.apply(lab, CLIENT % ("b", ""), CLIENT % ("c", ""), intent=GONE)
    (step,) = [step for step in plan.steps if "device-vm" in step.id]
    assert (step.id, step.effect, step.felt) == ("update/device-vm/lab", Effect.LIVE, ())
    # The next one has the link that is free, and nobody's changes.
    networks.apply(lab, CLIENT % ("b", ""), CLIENT % ("c", ""), CLIENT % ("d", ""))
    assert ends(networks.spec("d")) == before["a"] and ends(networks.spec("b")) == before["b"]
    used = [ends(networks.spec(name)) for name in "bcd"]
    assert sorted(pair for pairs in used for pair in pairs) == sorted((b, a) for a, b in ends(networks.spec("lab")))


def test_a_network_whose_links_are_all_taken_is_restarted_with_more(networks: Networks) -> None:
    networks.apply(LAB % (2, "false"), CLIENT % ("a", ""), CLIENT % ("b", ""))
    assert not networks.vmm.plan(networks.declared(LAB % (9, "false"), CLIENT % ("a", ""), CLIENT % ("b", ""))).steps
    plan = networks.apply(LAB % (9, "false"), CLIENT % ("a", ""), CLIENT % ("b", ""), CLIENT % ("c", ""))
    assert [(step.id, step.effect) for step in plan.steps if "device-vm" in step.id] == [
        ("stop/device-vm/lab", Effect.RECONNECT),
        ("define/device-vm/lab", Effect.NONE),
        ("start/device-vm/lab", Effect.NONE),
    ]
    assert [felt.clients for step in plan.steps for felt in step.felt] == [("a", "b")]
    assert not [step for step in plan.steps if step.name in ("a", "b")]
    assert len(networks.spec("lab").links) == 9


def test_memory_is_there_for_all_who_may_come(networks: Networks) -> None:
    networks.apply(LAB % (64, "false"), CLIENT % ("a", ""))
    plan = networks.apply(LAB % (64, "false"), *(CLIENT % (f"c{number}", "") for number in range(63)))
    assert [step.effect for step in plan.steps if "device-vm" in step.id] == [Effect.LIVE]


def test_the_host_has_a_tap_on_a_network(networks: Networks) -> None:
    networks.apply(LAB % (16, "false"), CLIENT % ("a", ""))
    plan = networks.apply(LAB % (16, "false"), CLIENT % ("a", ""), HOST)
    assert [(step.id, step.effect) for step in plan.steps] == [
        ("update/device-vm/lab", Effect.LIVE),
        ("start/part/here/lan", Effect.NONE),
    ]
    (part,) = [step.part for step in plan.steps if step.part]
    (channel,) = [one.channel for one in networks.spec("lab").emulators if one.client == "here"]
    assert (part.kind, part.address, part.channel) == ("tap", "lab0", channel.address)
    assert part.options == {
        "address": "10.0.0.2/24",
        "mac": "02:00:00:00:00:09",
        "socket": client_end(channel.address),
    }
    plan = networks.apply(LAB % (16, "false"), CLIENT % ("a", ""), intent=GONE)
    assert [step.id for step in plan.steps] == ["stop/part/here/lan", "update/device-vm/lab"]


def test_what_the_network_is_told_changes_while_it_runs(networks: Networks) -> None:
    networks.apply(LAB % (16, "false"), CLIENT % ("a", ""))
    plan = networks.apply(LAB % (16, "true"), CLIENT % ("a", ""))
    (step,) = plan.steps
    assert (step.id, step.effect, step.reason) == ("update/device-vm/lab", Effect.LIVE, "changes the service of net")
    (service,) = networks.spec("lab").services
    assert service.command[service.command.index("--isolate") + 1] == "true"
    plan = networks.apply(LAB % (16, "true"), CLIENT % ("a", "address: 10.0.0.9"))
    assert [(step.id, step.effect) for step in plan.steps] == [("update/device-vm/lab", Effect.RECONNECT)]
    assert networks.spec("lab").emulators[0].command[-1] == "10.0.0.9"


def test_nobody_declares_a_network_and_a_client_has_one_of_its_own(networks: Networks) -> None:
    networks.apply(CLIENT % ("a", ""), CLIENT % ("b", ""))
    for name in "ab":
        spec = networks.spec(f"{name}-dvm")
        assert [emulator.client for emulator in spec.emulators] == [name]
        assert spec.services[0].command[:3] == ("/usr/lib/devicevm/network", "--mode", "switch")


def test_a_network_in_two_device_vms_is_told(networks: Networks) -> None:
    plan = networks.apply(LAB % (1, "false"), CLIENT % ("a", ""), CLIENT % ("b", ""))
    (warning,) = plan.warnings
    assert warning.startswith("lab, lab-2 know nothing of each other") and "share.maxDevices of lab is 1" in warning
    assert not networks.vmm.plan(networks.declared(LAB % (2, "false"), CLIENT % ("c", ""))).warnings


def test_the_agent_is_told_of_services_and_links_without_ports(networks: Networks) -> None:
    networks.apply(LAB % (16, "false"), CLIENT % ("a", ""))
    spec = networks.spec("lab")
    assert [service_config(one)["port"] for one in spec.services] == [None]
    assert [device_config(one)["port"] for one in spec.emulators] == [None]


def test_a_fragment_adds_to_the_arguments_of_links(networks: Networks) -> None:
    networks.apply(CLIENT % ("a", ""))
    spec = networks.spec("a")
    mine = arguments(spec)
    fragment = (
        "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:commandline>"
        "<qemu:arg value='-name'/><qemu:arg value='x'/></qemu:commandline></domain>"
    )
    assert arguments(replace(spec, domain_xml=fragment)) == [*mine, "-name", "x"]


def test_the_socket_of_an_argument_is_found_again() -> None:
    address = "/run/a,b/0a.sock"
    assert [socket_of(word) for word in device_vm_arguments(address, "02:00:00:00:00:01", 9, "pci.0")] == [
        "",
        address,
        "",
        "",
    ]
    assert [socket_of(word) for word in client_netdev(address, "x")] == ["", client_end(address)]
    assert "addr=0x19.1" in device_vm_arguments(address, "02:00:00:00:00:01", 9, "pci.0")[3]
    assert not socket_of("socket,local.path=/etc/passwd")


def test_another_uplink_is_drift() -> None:
    path = REPO / "tests/goldens/domains/device-vm-links.xml"
    wanted = parse(path.read_text(), "golden")
    have = ElementTree.fromstring(to_text(wanted).replace('bridge="br0"', 'bridge="br1"'))
    assert drift(wanted, have) == ("interface 02:37:c5:bd:82:3e source: bridge is br1, declared br0",)
