"""Device VMs that boot a whole disk: what the planner makes of the image, with and without the agent, and readiness."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from devicevm.apply.ready import NotReady, wait_ready, wait_up
from devicevm.domain import Channel, DomainSpec
from devicevm.inventory.host import Host, ImageFacts
from devicevm.manifest.topology import Boot, ClassService, Device, DeviceClass, Program
from devicevm.planner.plan import Action, Effect, Plan
from test_firmware import instrument
from world import SERIAL, ModelVmm, client, host, topology

RADIO = replace(SERIAL, name="radio", image="radio", program=Program(("mV",), ready="bytes", expect="thermometer"))


def with_image(**facts: Any) -> Host:
    """A host with a disk image besides devicevm's own."""
    image = ImageFacts("radio", "5" * 12, disk="/i/radio/disk", **facts)
    return replace(host(), images=(*host().images, image))


def device(name: str = "tuner") -> Device:
    return Device(name, "radio")


def plan_of(*devices: Device, vmm: ModelVmm | None = None, class_: DeviceClass = RADIO, **facts: Any) -> Plan:
    vmm = vmm or ModelVmm(with_image(**facts))
    return vmm.plan(topology(client("car", *devices), classes=(class_,)))


def device_vm(plan: Plan) -> DomainSpec:
    return next(spec for spec in plan.domains if spec.emulators)


@pytest.mark.parametrize("agent", [False, True])
def test_a_disk_is_booted_by_itself_and_has_a_control_port_with_the_agent_only(agent: bool) -> None:
    spec = device_vm(plan_of(device(), agent=agent, firmware="efi"))
    assert spec.boot == Boot(image="/i/radio/disk", firmware="efi")
    assert spec.image == "radio-" + "5" * 12
    assert (spec.has_agent, bool(spec.control)) == (agent, agent)
    assert spec.console


@pytest.mark.parametrize(("agent", "changes"), [(True, {"update"}), (False, {"define", "start"})])
def test_without_agent_nothing_is_changed_while_it_runs(agent: bool, changes: set[str]) -> None:
    vmm = ModelVmm(with_image(agent=agent))
    vmm.apply(topology(client("car", device()), classes=(RADIO,)))
    plan = plan_of(device(), device("second"), vmm=vmm)
    steps = {(step.action.value, step.name) for step in plan.steps if step.kind.value == "device-vm"}
    assert {action for action, name in steps} == changes
    assert not [step for step in plan.steps if step.action is Action.STOP and step.name == "car-dvm"]


def test_without_agent_a_changed_command_is_a_restart() -> None:
    vmm = ModelVmm(with_image(agent=False))
    vmm.apply(topology(client("car", device()), classes=(RADIO,)))
    changed = replace(RADIO, program=replace(RADIO.program, command=("uV",)))
    plan = plan_of(device(), vmm=vmm, class_=changed)
    effects = {step.id: step.effect for step in plan.steps}
    assert effects == {
        "stop/device-vm/car-dvm": Effect.RECONNECT,
        "define/device-vm/car-dvm": Effect.NONE,
        "start/device-vm/car-dvm": Effect.NONE,
    }


def test_services_are_the_agent_s() -> None:
    serviced = replace(RADIO, service=ClassService(("tune",)))
    (left,) = plan_of(device(), class_=serviced, agent=False).unplaced
    assert left.reasons == ("h1: car-dvm: 1 thread: image radio has no agent, which would run the service of radio",)
    assert plan_of(device(), class_=serviced, agent=True).unplaced == ()


def test_a_client_does_not_boot_one_by_its_name() -> None:
    vmm = ModelVmm(with_image())
    vm = client("car").vm
    assert vm is not None
    wanted = client("car", vm=replace(vm, boot=Boot(guest_image="radio")))
    (left,) = vmm.plan(topology(wanted)).unplaced
    assert left.reasons == ("h1: car: image radio is a whole disk: name its file as boot.image",)


class Opening:
    """A driver whose guest opens its port when it has been asked `opens` times, and closes it while `closed` does."""

    def __init__(self, opens: int, closed: range = range(0)) -> None:
        self.opens, self.closed, self.asked = opens, closed, 0

    def is_active(self, name: str) -> bool:
        return True

    def open_ports(self, name: str) -> frozenset[str]:
        self.asked += 1
        there = self.asked > self.opens and self.asked not in self.closed
        return frozenset(("car.tuner",) if there else ())

    def console_tail(self, spec: DomainSpec, lines: int) -> tuple[str, ...]:
        return ("last words",)


@contextmanager
def radio(path: Path, **changes: Any) -> Iterator[tuple[DomainSpec, Any]]:
    """A device VM without agent, and the instrument behind its port."""
    spec = device_vm(plan_of(device(), agent=False))
    emulator = replace(spec.emulators[0], channel=Channel("stream", str(path), "car.tuner"), ask="read\n", **changes)
    with instrument(path) as made:
        yield replace(spec, emulators=(emulator,)), made


def test_without_agent_it_is_ready_when_its_port_is_open_and_has_answered(tmp_path: Path) -> None:
    with radio(tmp_path / "s") as (spec, made):
        driver = Opening(5)
        wait_ready(cast(Any, driver), spec, time.monotonic() + 10)
        assert driver.asked > 5
        assert made.asked
        with pytest.raises(NotReady, match=r"no program has opened /dev/virtio-ports/car\.tuner"):
            wait_ready(cast(Any, Opening(10**6)), spec, time.monotonic() + 0.3)


def test_a_program_that_ends_with_the_probe_is_waited_for(tmp_path: Path) -> None:
    with radio(tmp_path / "s") as (spec, made):
        driver = Opening(0, closed=range(3, 9))
        wait_ready(cast(Any, driver), spec, time.monotonic() + 10)
        assert made.left
        assert driver.asked > 9 + 10  # and once more for a second


def test_after_a_death_it_is_not_asked_over_its_client(tmp_path: Path) -> None:
    with radio(tmp_path / "s") as (spec, made):
        wait_up(cast(Any, Opening(2)), spec, time.monotonic() + 10)
        assert made.asked == 0
