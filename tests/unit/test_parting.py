"""Clients that share device VMs, of whom some cannot have what they ask for: what becomes of the others."""

from __future__ import annotations

from dataclasses import replace

from devicevm.inventory.host import Host
from devicevm.manifest.topology import Client, Device, DeviceVM, Serves, Topology
from devicevm.planner.plan import Plan
from devicevm.planner.planner import Intent
from world import DISK, GIB, NET, ModelVmm, class_, client, core, disk, host, topology

GREEDY = class_("greedy", resources=(core(99),))
STORAGE = DeviceVM("storage", Serves(classes=("disk",)))
LAN = DeviceVM("lan", Serves(classes=("net",)))
FAST = replace(disk("fast"), class_="greedy")
NIC = Device("lan", "net")


def declared(*clients: Client) -> Topology:
    return topology(*clients, classes=(DISK, GREEDY, NET), device_vms=(LAN, STORAGE))


def sized(one: Client, memory: int) -> Client:
    assert one.vm
    return replace(one, vm=replace(one.vm, memory=memory))


def out(plan: Plan) -> set[str]:
    return {item.client for item in plan.unplaced}


def applied(vmm: ModelVmm, wanted: Topology) -> Plan:
    """A plan that is carried out, after which there is nothing more to do."""
    plan = vmm.apply(wanted)
    again = vmm.plan(wanted)
    assert (again.steps, out(again)) == ((), out(plan))
    return plan


def serving(vmm: ModelVmm) -> dict[str, set[str]]:
    """The clients of each device VM."""
    specs = [one.spec for one in vmm.observe() if one.spec and one.spec.emulators]
    return {spec.name: {emulator.client for emulator in spec.emulators} for spec in specs}


SHOPS = tuple(client(f"shop{number}", disk()) for number in range(4))
WEB = client("web", disk())


def running(*clients: Client, one: Host | None = None) -> ModelVmm:
    vmm = ModelVmm(one or host())
    assert vmm.apply(declared(*clients)).unplaced == ()
    return vmm


def test_what_a_running_client_cannot_have_is_nothing_to_those_that_share_with_it() -> None:
    vmm = running(WEB, *SHOPS)
    wishing = replace(WEB, devices=(disk(), FAST))
    plan = vmm.plan(declared(wishing, *SHOPS))
    assert plan.steps == () and out(plan) == {"web"}
    assert all(item.reasons[0].startswith("h1: web-dvm: 99 cores") for item in plan.unplaced)
    # Another has what it asks for.
    plan = applied(vmm, declared(wishing, replace(SHOPS[0], devices=(disk(), disk("more"))), *SHOPS[1:]))
    assert out(plan) == {"web"} and "update/device-vm/storage" in {step.id for step in plan.steps}
    assert serving(vmm) == {"storage": {"web", *(shop.name for shop in SHOPS)}}


def test_those_that_share_with_it_are_started_once_the_host_is_back() -> None:
    vmm = running(WEB, *SHOPS)
    vmm.domains = {name: replace(one, active=False, active_spec=None) for name, one in vmm.domains.items()}
    plan = applied(vmm, declared(replace(WEB, devices=(disk(), FAST)), *SHOPS))
    assert out(plan) == {"web"}
    assert {step.id for step in plan.steps} == {
        "start/device-vm/storage",
        *(f"start/client/{shop.name}" for shop in SHOPS),
    }


def test_each_that_cannot_have_what_it_asks_for_has_its_own_reasons() -> None:
    vmm = running(WEB, *SHOPS)
    wanted = declared(replace(WEB, devices=(disk(), FAST)), SHOPS[0], replace(SHOPS[1], host="h2"), *SHOPS[2:])
    reasons = {item.client: item.reasons[0] for item in vmm.plan(wanted).unplaced}
    assert reasons.keys() == {"web", "shop1"}
    assert reasons["web"].startswith("h1: web-dvm: 99 cores")
    assert "shop1 is to be on h2" in reasons["shop1"]


def test_of_running_clients_whose_wishes_exclude_each_other_some_have_theirs() -> None:
    alone = class_("alone", resources=(core(),))
    vmm = ModelVmm(host(cores=3, threads=1))
    wanted = replace(declared(*SHOPS), classes=(DISK, alone, NET))
    assert vmm.apply(wanted).unplaced == ()
    more = tuple(replace(shop, devices=(disk(), replace(disk("own"), class_="alone"))) for shop in SHOPS)
    plan = applied(vmm, replace(wanted, clients=more))
    # One CPU is the shared device VM's.
    assert len(out(plan)) == 2
    assert len([name for name in serving(vmm) if name != "storage"]) == 2


def test_a_newcomer_joins_those_whose_neighbour_has_no_place() -> None:
    vmm = running(WEB, *SHOPS)
    plan = applied(vmm, declared(replace(WEB, devices=(disk(), FAST)), *SHOPS, client("zoo", disk())))
    assert out(plan) == {"web"} and "zoo" in serving(vmm)["storage"]


def test_newcomers_of_running_clients_on_several_hosts_leave_those_alone() -> None:
    """A new client's devices join two device VMs, each on another host."""
    vmm = ModelVmm(host("h1"), host("h2"))
    first = (replace(WEB, host="h1"), replace(client("net1", NIC), host="h2"))
    assert vmm.apply(declared(*first)).unplaced == ()
    plan = applied(vmm, declared(*first, client("zoo", disk(), NIC)))
    assert plan.unplaced == ()
    assert serving(vmm)["lan"] == {"net1", "zoo"} and serving(vmm)["storage"] == {"web"}


def test_who_is_on_no_network_is_not_left_out_with_one_that_is() -> None:
    vmm = ModelVmm(host())
    plan = applied(vmm, declared(client("a", disk(), NIC), client("e", disk()), sized(client("f", NIC), 99 * GIB)))
    assert out(plan) == {"f"}
    assert serving(vmm) == {"lan": {"a"}, "storage": {"a", "e"}}


def test_as_many_are_on_a_network_as_its_host_takes() -> None:
    vmm = ModelVmm(host("h1", memory=4 * GIB), host("h2", memory=2 * GIB))
    crowd = [sized(client(name, NIC, disk()), GIB) for name in "abcde"]
    plan = applied(vmm, declared(*crowd, replace(client("z", disk()), host="h2")))
    # Who is on no network, and is to be elsewhere, is parted from them.
    assert out(plan) == {"d", "e"}
    assert serving(vmm)["lan"] == {"a", "b", "c"}
    assert {one.spec.host for one in vmm.observe() if one.spec and one.name in ("lan", "z")} == {"h1", "h2"}


def test_as_many_come_to_a_network_that_runs_as_its_host_takes() -> None:
    vmm = ModelVmm(host("h1", memory=4 * GIB), host("h2", memory=16 * GIB))
    first = replace(client("a", NIC), host="h1")
    assert vmm.apply(declared(first)).unplaced == ()
    plan = applied(vmm, declared(first, *(sized(client(name, NIC), GIB) for name in "bcde")))
    assert out(plan) == {"e"} and serving(vmm) == {"lan": {"a", "b", "c", "d"}}


def test_a_nic_goes_to_its_network_wherever_others_are_parted() -> None:
    """The first device VM by name is no network: two that are on none found no place with each other there."""
    everything = (DeviceVM("all", Serves()),)
    vmm = ModelVmm(host("h1", memory=2 * GIB), host("h2", memory=2 * GIB))
    crowd = [sized(client(name, disk()), GIB) for name in "ab"]
    assert vmm.apply(replace(declared(*crowd), device_vms=everything)).unplaced == ()
    later = [client(name, NIC) for name in "xy"]
    wanted = replace(declared(*crowd, *later), device_vms=everything)
    plan = applied(vmm, wanted)
    assert plan.unplaced == ()
    (network,) = {name for name, clients in serving(vmm).items() if clients & {"x", "y"}}
    assert serving(vmm)[network] == {"x", "y"}


def test_who_stays_elsewhere_begins_a_network_anew_when_its_own_is_leaving() -> None:
    vmm = ModelVmm(host("h1"), host("h2"))
    lan, web = replace(client("a", NIC), host="h1"), replace(WEB, host="h2")
    assert vmm.apply(declared(lan, web)).unplaced == ()
    wanted = declared(replace(web, devices=(disk(), NIC)))
    plan = vmm.plan(wanted, Intent("default", prune=True))
    assert plan.unplaced == ()
    assert {spec.host for spec in plan.domains} == {"h2"}
