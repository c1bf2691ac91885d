"""Images that were built anew: who boots them when, in which order, and what becomes of a failure on the way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from devicevm.apply.actions import Context
from devicevm.apply.executor import execute
from devicevm.apply.progress import Progress
from devicevm.domain import DomainSpec
from devicevm.errors import DevicevmError
from devicevm.manifest.topology import Device, DeviceVM, Serves, ShareScope, Store, Topology
from devicevm.planner.felt import START
from devicevm.planner.plan import Action, Effect, Felt, Plan, Seconds, Subject, Until
from devicevm.planner.planner import Intent
from world import MIB, ModelVmm, client, disk, host, topology

UPGRADE = Intent("default", upgrade=True)


def kept(name: str = "kept") -> Device:
    """A disk that its client finds again."""
    return Device(name, "disk", {"size": "1MiB"}, store=Store("file", MIB, path=f"/data/{name}.raw"))


def rebuilt(vmm: ModelVmm, digest: str = "1" * 12) -> ModelVmm:
    """The VMM, with another build of image base."""
    vmm.hosts = tuple(
        replace(
            one, images=tuple(replace(image, digest=digest) if image.name == "base" else image for image in one.images)
        )
        for one in vmm.hosts
    )
    return vmm


def after_a_build(wanted: Topology) -> ModelVmm:
    vmm = ModelVmm(host(cores=16))
    vmm.apply(wanted)
    return rebuilt(vmm)


def after_every_build(wanted: Topology) -> ModelVmm:
    """The same, of every image."""
    vmm = ModelVmm(host(cores=16))
    vmm.apply(wanted)
    images = tuple(replace(one, digest="2" * 12) for one in vmm.hosts[0].images)
    vmm.hosts = (replace(vmm.hosts[0], images=images),)
    return vmm


TWO = topology(client("a", kept("a")), client("b", kept("b")))


def test_what_runs_keeps_its_build_and_the_user_is_told() -> None:
    plan = after_a_build(TWO).plan(TWO)
    assert plan.steps == ()
    assert [line for line in plan.warnings if "newer build" in line] == [
        "a-dvm, b-dvm: a newer build of image base is there; --upgrade has it booted"
    ]


def test_a_new_client_gets_the_new_build_and_the_others_keep_theirs() -> None:
    vmm = after_a_build(TWO)
    plan = vmm.apply(topology(*TWO.clients, client("c", kept("c"))))
    assert {step.name for step in plan.steps if step.kind is Subject.DEVICE_VM} == {"c-dvm"}
    images = {name: one.spec.image for name, one in vmm.domains.items() if one.spec and one.spec.image}
    assert images == {"a-dvm": "base-" + "0" * 12, "b-dvm": "base-" + "0" * 12, "c-dvm": "base-" + "1" * 12}


def test_each_waits_until_the_one_before_is_back() -> None:
    vmm = after_a_build(TWO)
    plan = vmm.apply(TWO, UPGRADE)
    stop = {step.name: step for step in plan.steps if step.action is Action.STOP}
    assert (stop["a-dvm"].effect, stop["a-dvm"].affects, stop["a-dvm"].behind) == (Effect.RECONNECT, ("a",), ())
    assert (stop["b-dvm"].effect, stop["b-dvm"].behind) == (Effect.RECONNECT, ("start/device-vm/a-dvm",))
    assert not [line for line in plan.warnings if "newer build" in line]
    assert vmm.plan(TWO, UPGRADE).steps == ()


def test_a_client_that_is_restarted_is_back_before_the_next_goes() -> None:
    wanted = topology(client("a", disk()), client("b", disk()))
    plan = after_a_build(wanted).plan(wanted, UPGRADE)
    behind = {step.id: set(step.behind) for step in plan.steps if step.behind}
    back = {"start/device-vm/a-dvm", "start/client/a"}
    assert behind == {"stop/client/b": back, "stop/device-vm/b-dvm": back}


def test_a_client_of_two_device_vms_never_loses_both_and_is_restarted_once() -> None:
    apart = (DeviceVM("one", Serves(classes=("disk",))), DeviceVM("two", Serves(classes=("tpm",))))
    tpm = Device("tpm", "tpm", store=Store("file", MIB, path="/data/tpm.raw"))
    wanted = topology(client("a", kept("a"), disk("lost"), tpm), client("b", kept("b")), device_vms=apart)
    vmm = after_every_build(wanted)
    plan = vmm.apply(wanted, UPGRADE)
    ids = [step.id for step in plan.steps]
    assert ids.count("stop/client/a") == ids.count("start/client/a") == 1
    away: set[str] = set()
    for step in plan.steps:
        if step.kind is Subject.DEVICE_VM and step.action in (Action.STOP, Action.START):
            (away.add if step.action is Action.STOP else away.discard)(step.name)
            assert len(away) <= 1
    assert vmm.plan(wanted, UPGRADE).steps == ()


def outages(plan: Plan, kind: Subject, chance: random.Random) -> Iterator[set[str]]:
    """Who of that kind is away after each step, when steps come as soon as those that they wait for are done, in any
    order."""
    waiting, done, away = list(plan.steps), set[str](), set[str]()
    while waiting:
        step = chance.choice([one for one in waiting if done >= {*one.after, *one.behind}])
        waiting.remove(step)
        done.add(step.id)
        if step.kind is kind and step.action in (Action.STOP, Action.START):
            (away.add if step.action is Action.STOP else away.discard)(step.name)
        yield away
    assert not away


@pytest.mark.parametrize("seed", range(20))
def test_at_most_one_is_away_whatever_they_serve(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    clients = [
        client(
            f"c{number}", *(kept(f"{number}-{one}") if chance.random() < 0.6 else disk(f"d{one}") for one in range(2))
        )
        for number in range(6)
    ]
    shared = DeviceVM("shared", Serves(clients=tuple(one.name for one in chance.sample(clients, 3))), max_devices=4)
    wanted = topology(*clients, device_vms=(shared,))
    for away in outages(after_a_build(wanted).plan(wanted, UPGRADE), Subject.DEVICE_VM, chance):
        assert len(away) <= 1


APART = (
    DeviceVM("a-entropy", Serves(classes=("rng",)), ShareScope.CLIENT),
    DeviceVM("z-disks", Serves(classes=("disk",)), ShareScope.CLIENT),
)


@pytest.mark.parametrize("seed", range(5))
def test_clients_of_several_device_vms_are_away_one_at_a_time_for_what_they_are_told(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    clients = [client(f"c{number}", disk(), Device("e", "rng"), Device("s", "serial")) for number in range(5)]
    wanted = topology(*clients, device_vms=APART)
    plan = after_every_build(wanted).plan(wanted, UPGRADE)
    for away in outages(plan, Subject.CLIENT, chance):
        assert len(away) <= 1
    for away in outages(plan, Subject.DEVICE_VM, chance):
        assert len(away) <= 1
    told = {step.name: step.felt for step in plan.steps if step.id.startswith("stop/client/")}
    three = Seconds(3 * START["tcg"].from_)
    assert told == {one.name: (Felt((one.name,), Until.BOOTED, three),) for one in clients}


@pytest.mark.parametrize("seed", range(5))
def test_who_shares_a_device_vm_goes_and_comes_back_together(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    shared = DeviceVM("m-shared", Serves(clients=("a", "c"), classes=("disk",)), max_devices=2)
    clients = [client(name, disk(), Device("e", "rng")) for name in "abcd"]
    wanted = topology(*clients, device_vms=(shared, *APART))
    plan = after_every_build(wanted).plan(wanted, UPGRADE)
    seen = set()
    for away in outages(plan, Subject.CLIENT, chance):
        assert away <= {"a", "c"} or len(away) <= 1
        seen.add(frozenset(away))
    assert frozenset("ac") in seen


class FailingAt:
    """A driver that remembers what runs; the start of `bad` on a new build fails."""

    def __init__(self, bad: str) -> None:
        self.bad = bad
        self.defined: dict[str, str] = {}
        self.running: dict[str, str] = {}

    def define(self, spec: DomainSpec) -> None:
        self.defined[spec.name] = spec.image

    def start(self, name: str) -> None:
        if name == self.bad and self.defined[name].endswith("1"):
            raise DevicevmError("it does not come up")
        self.running[name] = self.defined[name][-1:]

    def stop(self, name: str) -> None:
        self.running.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments: ()


def upgrade_with(bad: str) -> dict[str, str]:
    """Which build each of three device VMs runs after an upgrade in which one does not come up."""
    wanted = topology(*(client(name, kept(name)) for name in "abc"))
    vmm = after_a_build(wanted)
    plan: Plan = vmm.plan(wanted, UPGRADE)
    driver = FailingAt(bad)
    for spec in plan.previous:
        driver.define(spec)
        driver.start(spec.name)
    outcome = execute(Context(plan, cast(Any, driver), False, 1.0), 8, 8, Progress())
    assert outcome.failed == [f"start/device-vm/{bad}"]
    assert not outcome.undo_errors
    return driver.running


def test_a_failure_stops_there_and_the_rest_goes_on_as_it_was() -> None:
    assert upgrade_with("a-dvm") == {"a-dvm": "0", "b-dvm": "0", "c-dvm": "0"}


def test_what_came_up_before_a_failure_stays() -> None:
    assert upgrade_with("b-dvm") == {"a-dvm": "1", "b-dvm": "0", "c-dvm": "0"}
