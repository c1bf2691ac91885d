"""Who shares device VMs and processor cores, by scope and trust domain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devicevm.domain import DomainSpec
from devicevm.manifest.topology import Client, Device, DeviceVM, HostPolicy, ResourceRequest, Serves, ShareScope
from devicevm.planner.plan import Plan
from devicevm.planner.planner import Intent, make_plan
from world import DISK, RNG, SERIAL, ModelVmm, class_, client, disk, host, thread, topology

OWN = class_("own", resources=(thread(1, dedicated=True),))
OPEN = HostPolicy("h1", share_across_trust_domains=True)


def of(name: str, trust: str, *devices: Device) -> Client:
    return client(name, *(devices or (disk(),)), trust_domain=trust)


def cpus(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {allocation.device_vm: allocation.cpus for allocation in plan.allocations}


def groups(plan: Plan) -> list[tuple[str, ...]]:
    return sorted(allocation.serves for allocation in plan.allocations)


PEOPLE = (
    of("a", "red", disk(), Device("gps", "serial")),
    of("b", "red", disk()),
    of("c", "blue", Device("gps", "serial")),
)
BY_SCOPE = {
    ShareScope.DEVICE: [("a/data",), ("a/gps",), ("b/data",), ("c/gps",)],
    ShareScope.CLIENT: [("a/data", "a/gps"), ("b/data",), ("c/gps",)],
    ShareScope.TRUST_DOMAIN: [("a/data", "a/gps", "b/data"), ("c/gps",)],
    ShareScope.HOST: [("a/data", "a/gps", "b/data", "c/gps")],
}
ONE_KIND = {
    ShareScope.DEVICE: [("a/data",), ("b/data",)],
    ShareScope.CLIENT: [("a/data",), ("b/data",)],
    ShareScope.TRUST_DOMAIN: [("a/data", "b/data")],
    ShareScope.HOST: [("a/data", "b/data")],
}


@pytest.mark.parametrize("scope", list(ShareScope))
def test_devices_of_all_kinds_by_scope(scope: ShareScope) -> None:
    plan = ModelVmm().plan(topology(*PEOPLE, device_vms=(DeviceVM("s", Serves(), scope),)))
    assert groups(plan) == sorted(BY_SCOPE[scope])


@pytest.mark.parametrize("scope", list(ShareScope))
def test_devices_of_one_kind_by_scope(scope: ShareScope) -> None:
    """The others stay with their clients."""
    declared = DeviceVM("s", Serves(classes=("disk",)), scope)
    plan = ModelVmm().plan(topology(*PEOPLE, device_vms=(declared,)))
    assert groups(plan) == sorted([*ONE_KIND[scope], ("a/gps",), ("c/gps",)])


@pytest.mark.parametrize("scope", list(ShareScope))
@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_device_vm_serves_more_than_it_may(scope: ShareScope, most: int) -> None:
    disks = [disk(f"d{number}") for number in range(3)]
    people = [of(name, trust, *disks) for name, trust in (("a", "red"), ("b", "red"), ("c", "blue"))]
    plan = ModelVmm().plan(topology(*people, device_vms=(DeviceVM("s", Serves(), scope, max_devices=most),)))
    assert sum(map(len, groups(plan))) == 9
    sharing = {"device": 1, "client": 3, "trustDomain": 6, "host": 9}[scope.value]
    assert max(map(len, groups(plan))) == min(most, sharing)


def test_cores_are_dealt_out_among_trust_domains() -> None:
    """Four cores with two threads: CPUs n and n + 4 are one core."""
    people = [of(f"{trust}{number}", trust) for trust in ("blue", "red") for number in range(6)]
    taken = cpus(ModelVmm().plan(topology(*people)))
    red = {cpu % 4 for name, some in taken.items() if name.startswith("red") for cpu in some}
    blue = {cpu % 4 for name, some in taken.items() if name.startswith("blue") for cpu in some}
    assert (blue, red) == ({0, 1}, {2, 3})


def test_one_trust_domain_has_all_cores() -> None:
    taken = cpus(ModelVmm().plan(topology(*(of(f"c{number}", "red") for number in range(8)))))
    assert {cpu for some in taken.values() for cpu in some} == set(range(8))


def test_more_trust_domains_than_cores_are_told_whose_they_are() -> None:
    people = [of("a", "red"), of("b", "blue")]
    small = host(cores=1, threads=2)
    (left,) = ModelVmm(small).plan(topology(*people)).unplaced
    assert left.client == "b"
    assert left.reasons[0] == (
        "h1: b-dvm: 1 thread: 1 shared thread asked, 0 of 2 CPUs that can be shared have room, with an overcommit "
        "of 16; CPU 0-1 on cores of trust domain red (a-dvm): "
        "cores are shared only where shareAcrossTrustDomains of the Host says so"
    )
    assert ModelVmm(small).plan(topology(*people, hosts=(OPEN,))).unplaced == ()
    shared = DeviceVM("s", Serves(), ShareScope.HOST)
    assert ModelVmm(small).plan(topology(*people, device_vms=(shared,))).unplaced == ()


def test_a_sibling_of_a_dedicated_thread_is_no_strangers() -> None:
    people = [of(name, trust, replace(disk(), class_="own")) for name, trust in (("a", "red"), ("b", "blue"))]
    taken = cpus(ModelVmm().plan(topology(*people, classes=(OWN,))))
    assert taken == {"a-dvm": (0,), "b-dvm": (1,)}
    same = [replace(one, trust_domain="red") for one in people]
    assert cpus(ModelVmm().plan(topology(*same, classes=(OWN,)))) == {"a-dvm": (0,), "b-dvm": (4,)}


def test_a_device_vm_for_all_is_beside_each_of_those_it_serves_and_no_other() -> None:
    shared = DeviceVM("s", Serves(classes=("disk",)), ShareScope.HOST)
    gps = Device("gps", "serial")
    both = [of("a", "red", disk(), gps), of("b", "blue", disk())]
    one_core = host(cores=1, threads=1)
    assert ModelVmm(one_core).plan(topology(*both, device_vms=(shared,))).unplaced == ()
    plan = ModelVmm(one_core).plan(topology(*both, of("z", "green", gps), device_vms=(shared,)))
    assert {item.client for item in plan.unplaced} == {"z"}


def test_who_comes_later_moves_nobody() -> None:
    vmm = ModelVmm(host(cores=2, threads=1))
    vmm.apply(topology(of("a", "red"), of("b", "red")))
    plan = vmm.plan(topology(of("a", "red"), of("b", "red"), of("c", "blue")))
    assert {item.client for item in plan.unplaced} == {"c"}
    assert plan.steps == ()


def test_other_owners_device_vms_are_strangers_too() -> None:
    vmm = ModelVmm(host(cores=2, threads=1))
    vmm.apply(topology(of("a", "red")), Intent("them"))
    mine = make_plan(topology(of("b", "blue")), vmm.inventory(), vmm.observe(), Intent("us"))
    assert cpus(mine) == {"b-dvm": (1,)}
    same = make_plan(
        topology(of("b", "red"), of("c", "red"), of("d", "red")), vmm.inventory(), vmm.observe(), Intent("us")
    )
    assert set(cpus(same).values()) == {(0,), (1,)}


def test_what_was_shared_before_stays_and_is_told() -> None:
    vmm = ModelVmm(host(cores=1, threads=1))
    people = of("a", "red"), of("b", "blue")
    vmm.apply(topology(*people, hosts=(OPEN,)))
    plan = vmm.plan(topology(*people))
    assert plan.steps == ()
    assert plan.warnings == (
        "a-dvm and b-dvm on h1 share the core of CPU 0 across trust domains: --rebalance parts them where "
        "there is room, and shareAcrossTrustDomains of the Host declares it",
    )


def spec_of(vmm: ModelVmm, name: str) -> DomainSpec:
    spec = vmm.domains[name].spec
    assert spec
    return spec


def test_a_client_that_changes_its_trust_domain_gets_a_device_vm_elsewhere() -> None:
    vmm = ModelVmm(host(cores=2, threads=1))
    vmm.apply(topology(of("a", "red"), of("b", "red"), classes=(DISK, RNG, SERIAL)))
    vmm.apply(topology(of("a", "red"), classes=(DISK, RNG, SERIAL)), Intent("default", prune=True))
    vmm.apply(topology(of("a", "red"), of("b", "blue"), classes=(DISK, RNG, SERIAL)))
    assert spec_of(vmm, "a-dvm").placement.vcpus != spec_of(vmm, "b-dvm").placement.vcpus


POOL = HostPolicy("h1", shared_cpus=(0, 1, 2, 3))
FLOATING = class_("floating", resources=((ResourceRequest("thread", options={"float": True}),),))


def test_a_shared_pool_is_everybodys_and_no_warning_is_due() -> None:
    people = [of("a", "red"), of("b", "blue", replace(disk(), class_="floating")), of("c", "green")]
    wanted = topology(*people, classes=(DISK, FLOATING), hosts=(POOL,))
    vmm = ModelVmm(host(cores=4, threads=1))
    plan = vmm.apply(wanted)
    assert (plan.unplaced, plan.warnings, vmm.plan(wanted).warnings) == ((), (), ())


def test_a_client_with_processors_of_its_own_has_its_core_for_its_trust_domain() -> None:
    own = ResourceRequest("thread", 1, True)
    one = of("a", "red")
    people = [replace(one, vm=replace(one.vm, cpus=own)), of("b", "blue")]
    plan = ModelVmm(host(cores=2, threads=2)).plan(topology(*people))
    (spec,) = [spec for spec in plan.domains if spec.name == "a"]
    mine = {cpu % 2 for pin in spec.placement.vcpus for cpu in pin}
    assert plan.unplaced == ()
    assert not {cpu % 2 for cpu in cpus(plan)["b-dvm"]} & mine
