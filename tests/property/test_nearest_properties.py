"""What the reasons tell as the nearest fit is true: whoever declares that instead is placed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from devicevm.manifest.topology import Client, HostPolicy, ResourceRequest, Topology
from hypothesis import given, settings
from hypothesis import strategies as st
from world import ModelVmm, class_, client, core, disk, host, thread, topology

WISHES: list[dict[str, Any]] = [
    {},
    {"smt": "require"},
    {"smt": "isolate"},
    {"numaNode": "one"},
    {"emulator": "own"},
    {"near": "sibling"},
]
REQUESTS = st.one_of(
    st.builds(ResourceRequest, st.just("thread"), st.integers(1, 9), st.just(True), st.sampled_from(WISHES)),
    st.builds(ResourceRequest, st.just("core"), st.integers(1, 5), st.just(True)),
    st.builds(ResourceRequest, st.just("processor"), st.integers(1, 2), st.just(True)),
)


def followed(request: ResourceRequest, words: str) -> ResourceRequest:
    """The request that a nearest fit proposes."""
    if found := re.search(r": (\d+) instead of", words):
        return replace(request, count=int(found[1]))
    if "instead of" in words:
        return ResourceRequest("thread", 1, "a dedicated thread" in words)
    wish = words.partition("giving up ")[2].partition(" of ")[0]
    if wish == "dedicated":
        return replace(request, dedicated=False, options={})
    return replace(request, options={key: value for key, value in request.options.items() if key != wish})


def wanted(others: list[Client], last: Client, asked: ResourceRequest, policy: HostPolicy, busy: Any) -> Topology:
    classes = (class_("asked", resources=((asked,),)), class_("busy", resources=(busy,)))
    return topology(*others, last, classes=classes, hosts=(policy,))


@given(
    st.builds(
        host,
        st.just("h1"),
        cores=st.integers(1, 4),
        threads=st.integers(1, 2),
        sockets=st.integers(1, 2),
    ),
    REQUESTS,
    st.sampled_from([core(), thread(2, dedicated=True), thread()]),
    st.integers(0, 3),
    st.sampled_from([1.0, 16.0]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_whoever_follows_the_nearest_fit_is_placed(
    one: Any, asked: ResourceRequest, busy: Any, others: int, overcommit: float, pinned: bool
) -> None:
    vmm = ModelVmm(one)
    last = client("z", replace(disk(), class_="asked"))
    if pinned:
        last = replace(last, vm=replace(last.vm, cpus=thread(dedicated=True)[0]))
    policy = HostPolicy("h1", cpu_overcommit=overcommit)
    there = [client(f"b{number}", replace(disk(), class_="busy")) for number in range(others)]
    vmm.apply(topology(*there, classes=(class_("busy", resources=(busy,)),), hosts=(policy,)))
    plan = vmm.plan(wanted(there, last, asked, policy, busy))
    reasons = [reason for item in plan.unplaced if item.client == "z" for reason in item.reasons]
    for words in reasons:
        if words.startswith("nearest for z-dvm: "):
            again = vmm.plan(wanted(there, last, followed(asked, words), policy, busy))
            assert not [item for item in again.unplaced if item.client == "z"]
