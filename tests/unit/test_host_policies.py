"""What a Host says that no host is: the plan tells it."""

from __future__ import annotations

from devicevm.manifest.topology import HostPolicy
from world import ModelVmm, client, disk, host, topology


def warnings(*policies: HostPolicy, hosts: tuple[str, ...] = ("h1",)) -> tuple[str, ...]:
    vmm = ModelVmm(*(host(name) for name in hosts))
    return vmm.plan(topology(client("a", disk()), hosts=policies)).warnings


def test_a_host_that_is_not_there_is_told_with_the_one_that_is_meant() -> None:
    there = HostPolicy("other", reserved_cpus=(0, 7), shared_cpus=(1,))
    assert warnings(there, HostPolicy("h-1", maintenance=True), hosts=("h1", "other")) == (
        "Host h-1: there is no such host, and what is said of it holds for none (did you mean h1?)",
    )


def test_hosts_of_other_plans_are_not_told_where_each_host_has_its_own() -> None:
    assert warnings(HostPolicy("elsewhere"), HostPolicy("h1")) == ()


def test_cpus_that_a_host_does_not_have_are_told() -> None:
    assert warnings(HostPolicy("h1", reserved_cpus=(0, 8, 60, 61), shared_cpus=(1, 9))) == (
        "Host h1: reservedCpus has CPU 8,60-61, which is not there: it has 0-7",
        "Host h1: sharedCpus has CPU 9, which is not there: it has 0-7",
    )
