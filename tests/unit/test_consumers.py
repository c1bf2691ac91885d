"""Clients that are no VM of devicevm's: where their device VMs go, what that takes, and how long they stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devicevm.domain import Emulator
from devicevm.inventory.host import Holding, Host
from devicevm.manifest.topology import Client, Consumer, DeviceVM, HostPolicy, Serves
from devicevm.planner.plan import Endpoint
from devicevm.planner.planner import Intent
from world import GIB, MIB, ModelVmm, client, disk, host, topology

LEGACY = Holding("legacy", "11111111-1111-1111-1111-111111111111", True, 2, GIB)


def outsider(name: str, consumer: Consumer, **changes: object) -> Client:
    return client(name, disk(), vm=None, consumer=consumer, **changes)


def existing(name: str = "ledger", domain: str = "legacy", **changes: object) -> Client:
    return outsider(name, Consumer.EXISTING, domain=domain, **changes)


def hosts(*names: str, **holdings: tuple[Holding, ...]) -> tuple[Host, ...]:
    return tuple(host(name, holdings=holdings.get(name, ())) for name in names)


@pytest.mark.parametrize("consumer", [Consumer.HOST, Consumer.VMM])
def test_the_device_vm_of_who_is_no_vm_is_there_and_nothing_else(consumer: Consumer) -> None:
    vmm = ModelVmm()
    plan = vmm.apply(topology(outsider("lab", consumer)))
    part = ["start/part/lab/data"] if consumer is Consumer.HOST else []
    assert [step.id for step in plan.steps] == ["define/device-vm/lab-dvm", "start/device-vm/lab-dvm", *part]
    (spec,) = plan.domains
    assert [emulator.consumer for emulator in spec.emulators] == [consumer]
    (allocation,) = plan.allocations
    address = spec.emulators[0].channel.address
    assert allocation.endpoints == ((Endpoint("lab/data", address),) if consumer is Consumer.VMM else ())
    assert not vmm.plan(topology(outsider("lab", consumer))).steps


def test_who_is_no_vm_takes_nothing_of_the_host_but_its_device_vm() -> None:
    tight = replace(host(memory=2 * GIB), cpus=host().cpus)
    policy = HostPolicy("h1", reserved_memory=2 * GIB - 128 * MIB)
    lab = outsider("lab", Consumer.VMM)
    plan = ModelVmm(tight).plan(topology(lab, hosts=(policy,)))
    assert not plan.unplaced
    # A client VM of 128 MiB would not fit beside it.
    assert ModelVmm(tight).plan(topology(client("lab", disk()), hosts=(policy,))).unplaced


def test_one_that_is_not_declared_any_more_stays_until_it_is_told_to_go() -> None:
    vmm = ModelVmm()
    both = topology(outsider("lab", Consumer.VMM), client("web", disk()))
    vmm.apply(both)
    assert not vmm.plan(topology(client("web", disk()))).steps
    gone = vmm.plan(topology(client("web", disk())), Intent("default", remove=frozenset(["lab"])))
    assert [step.id for step in gone.steps] == ["stop/device-vm/lab-dvm", "undefine/device-vm/lab-dvm"]
    vmm.apply(topology(), Intent("default", prune=True))
    assert not vmm.domains


def test_in_a_shared_device_vm_only_what_goes_is_let_go() -> None:
    shared = (DeviceVM("shared", Serves()),)
    vmm = ModelVmm()
    vmm.apply(topology(outsider("lab", Consumer.VMM), client("web", disk()), device_vms=shared))
    vmm.apply(topology(client("web", disk()), device_vms=shared))
    assert {one.client for one in _emulators(vmm)} == {"lab", "web"}
    vmm.apply(topology(client("web", disk()), device_vms=shared), Intent("default", remove=frozenset(["lab"])))
    assert {one.client for one in _emulators(vmm)} == {"web"}


def test_who_has_an_endpoint_is_not_known_so_it_is_told_with_the_worst() -> None:
    shared = (DeviceVM("shared", Serves(), memory=512 * MIB),)
    vmm = ModelVmm()
    lab = outsider("lab", Consumer.VMM)
    vmm.apply(topology(lab, device_vms=shared))
    plan = vmm.plan(topology(lab, device_vms=(replace(shared[0], memory=GIB),)))
    stop = next(step for step in plan.steps if step.id == "stop/device-vm/shared")
    assert (stop.effect.value, stop.affects) == ("restart", ("lab",))


@pytest.mark.parametrize("active", [True, False], ids=["awake", "asleep"])
@pytest.mark.parametrize("consumer", [Consumer.EXISTING, Consumer.HOST, Consumer.VMM])
def test_a_device_vm_that_has_stopped_is_started_whoever_its_clients_are(consumer: Consumer, active: bool) -> None:
    vmm = ModelVmm(host(holdings=(replace(LEGACY, active=active),)))
    wanted = topology(outsider("lab", consumer, domain="legacy" if consumer is Consumer.EXISTING else ""))
    vmm.apply(wanted)
    vmm.domains["lab-dvm"] = replace(vmm.domains["lab-dvm"], active=False, active_spec=None)
    assert "start/device-vm/lab-dvm" in [step.id for step in vmm.plan(wanted).steps]
    # As an apply that died has left it: nothing was put into the domain yet.
    vmm.domains.pop("lab", None)
    assert "start/device-vm/lab-dvm" in [step.id for step in vmm.apply(wanted).steps]
    assert not vmm.plan(wanted).steps


def test_an_existing_domain_fixes_the_host() -> None:
    vmm = ModelVmm(*hosts("h1", "h2", h2=(LEGACY,)))
    plan = vmm.plan(topology(existing()))
    assert {spec.host for spec in plan.domains} == {"h2"}


@pytest.mark.parametrize(
    ("there", "changes", "why"),
    [
        ({}, {}, "there is no domain legacy"),
        ({"h1": (LEGACY,), "h2": (LEGACY,)}, {}, "there is a domain legacy on each of h1, h2: host says which"),
        ({"h1": (LEGACY,)}, {"host": "h2"}, "host h2 has no domain legacy"),
        ({"h1": (replace(LEGACY, owner="lab"),)}, {}, "domain legacy is one that devicevm has made, of owner lab"),
    ],
)
def test_an_existing_domain_that_cannot_be_had_is_told(
    there: dict[str, tuple[Holding, ...]], changes: dict[str, object], why: str
) -> None:
    plan = ModelVmm(*hosts("h1", "h2", **there)).plan(topology(existing(**changes)))
    assert not plan.steps
    (item,) = plan.unplaced
    assert item.client == "ledger"
    assert item.reasons[0].startswith(why)


def test_two_domains_of_a_name_are_told_apart_by_their_host() -> None:
    vmm = ModelVmm(*hosts("h1", "h2", h1=(LEGACY,), h2=(LEGACY,)))
    plan = vmm.plan(topology(existing(host="h2")))
    assert not plan.unplaced
    assert {spec.host for spec in plan.domains} == {"h2"}


def test_a_client_may_be_called_as_its_domain_and_what_that_holds_stays_booked() -> None:
    """The domain is nobody's to place: its processors and memory are held, whatever its client is called."""
    pinned = replace(LEGACY, cpus=(0, 1, 2, 3, 4, 5, 6), floats=False)
    vmm = ModelVmm(host(holdings=(pinned,)))
    plan = vmm.plan(topology(existing("legacy")))
    assert not plan.unplaced
    assert plan.allocations[0].cpus == (7,)


@pytest.mark.parametrize("consumer", [Consumer.HOST, Consumer.VMM])
def test_of_several_hosts_one_must_be_said(consumer: Consumer) -> None:
    vmm = ModelVmm(*hosts("h1", "h2"))
    (item,) = vmm.plan(topology(outsider("lab", consumer))).unplaced
    assert item.reasons == ("there are 2 hosts (h1, h2): host.name or hostSelector says which is meant",)
    assert not vmm.plan(topology(outsider("lab", consumer, host="h2"))).unplaced
    labelled = (HostPolicy("h2", labels={"rack": "a"}),)
    plan = vmm.plan(topology(outsider("lab", consumer, host_labels={"rack": "a"}), hosts=labelled))
    assert {spec.host for spec in plan.domains} == {"h2"}


def test_neighbours_count_whoever_they_are() -> None:
    vmm = ModelVmm(*hosts("h1", "h2"))
    lab = outsider("lab", Consumer.VMM, host="h1", labels={"app": "lab"})
    web = client("web", disk(), anti_affinity={"app": "lab"})
    vmm.apply(topology(lab, web))
    assert {one.name: one.spec.host for one in vmm.observe() if one.spec} == {
        "lab-dvm": "h1",
        "web": "h2",
        "web-dvm": "h2",
    }
    assert not vmm.plan(topology(lab, web)).steps


def test_trust_domains_hold_for_everybody() -> None:
    vmm = ModelVmm()
    shared = (DeviceVM("shared", Serves()),)
    people = [outsider("lab", Consumer.VMM, trust_domain="red"), outsider("own", Consumer.HOST, trust_domain="blue")]
    plan = vmm.plan(topology(*people, device_vms=shared))
    assert sorted(spec.trust_domain for spec in plan.domains) == ["blue", "red"]
    cores = [{cpu % 4 for cpu in allocation.cpus} for allocation in plan.allocations]
    assert cores[0].isdisjoint(cores[1])


def test_who_a_client_is_does_not_change_under_it() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(client("web", disk())))
    (item,) = vmm.plan(topology(outsider("web", Consumer.VMM))).unplaced
    assert item.reasons[0].startswith("a client of this name is there for vm, not vmm: remove that first")


def _emulators(vmm: ModelVmm) -> list[Emulator]:
    specs = [one.spec for one in vmm.observe() if one.spec]
    return [emulator for spec in specs for emulator in spec.emulators]
