"""Existing domains in plans: what is put in and taken out, in which order, and what is felt of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devicevm.apply.actions import Context, perform
from devicevm.domain import DomainSpec, ObservedDomain
from devicevm.inventory.host import Holding, Host
from devicevm.inventory.supports import GUESTS, STORES
from devicevm.manifest.topology import Client, Consumer, Device, DeviceVM, Serves, Store, Topology
from devicevm.planner.plan import Plan, Subject
from devicevm.planner.planner import Intent
from devicevm.vmm.driver import VmmError
from world import DISK, GIB, MIB, RNG, SERIAL, ModelVmm, client, disk, host, topology

KEPT = replace(disk("log"), memory=0, store=Store("file", MIB, path="/srv/log.img"))

LEGACY = Holding("legacy", "11111111-1111-1111-1111-111111111111", True, 2, GIB)
OTHER = Holding("other", "22222222-2222-2222-2222-222222222222", True, 2, GIB)
CLASSES = (DISK, RNG, replace(SERIAL, frontends=("pci-serial", "isa-serial")))


def ledger(*devices: Device, **changes: object) -> Client:
    made = client("ledger", *(devices or (disk("log"),)), vm=None, consumer=Consumer.EXISTING, domain="legacy")
    return replace(made, **changes)  # type: ignore[arg-type]


def declared(*clients: Client, **rest: object) -> Topology:
    return topology(*clients, classes=CLASSES, **rest)


def world(*holdings: Holding, supports: tuple[str, ...] = host().vmm.supports) -> ModelVmm:
    found: Host = host(holdings=holdings or (LEGACY,), supports=supports)
    return ModelVmm(found)


def felt(plan: Plan) -> dict[str, str]:
    return {step.id: step.effect.value for step in plan.steps}


def before(plan: Plan, first: str, second: str) -> bool:
    """Whether a step waits for another, in the end."""
    after = {step.id: step.after for step in plan.steps}
    return first in after[second] or any(before(plan, first, key) for key in after[second])


@pytest.mark.parametrize(("active", "effect"), [(True, "live"), (False, "none")])
def test_devices_are_put_in_once_they_answer_and_no_domain_is_stopped(active: bool, effect: str) -> None:
    vmm = world(replace(LEGACY, active=active))
    plan = vmm.apply(declared(ledger()))
    assert felt(plan) == {
        "define/device-vm/ledger-dvm": "none",
        "start/device-vm/ledger-dvm": "none",
        "attach/client/ledger": effect,
    }
    assert before(plan, "start/device-vm/ledger-dvm", "attach/client/ledger")
    assert not vmm.plan(declared(ledger())).steps


def test_devices_go_before_their_device_vm_does() -> None:
    vmm = world()
    vmm.apply(declared(ledger()))
    assert not vmm.plan(declared()).steps
    plan = vmm.apply(declared(), Intent("default", prune=True))
    assert felt(plan) == {
        "detach/client/ledger": "live",
        "stop/device-vm/ledger-dvm": "none",
        "undefine/device-vm/ledger-dvm": "none",
    }
    assert before(plan, "detach/client/ledger", "stop/device-vm/ledger-dvm")
    assert not vmm.domains


def test_what_cannot_be_plugged_in_waits_for_its_user() -> None:
    vmm = world()
    fixed = ledger(disk("log"), replace(disk("boot"), frontend="sata"))
    plan = vmm.apply(declared(fixed))
    step = next(step for step in plan.steps if step.id == "attach/client/ledger")
    assert (step.effect.value, [one.until.value for one in step.felt]) == ("restart", ["restarted"])
    assert "domain legacy runs, and has boot of ledger as it is now until it is shut down" in plan.warnings[0]
    assert not any(step.id.startswith(("stop/client", "start/client")) for step in plan.steps)


def test_a_vmm_that_plugs_nothing_in_says_so() -> None:
    vmm = world(supports=(GUESTS, STORES))
    plan = vmm.apply(declared(ledger()))
    assert felt(plan)["attach/client/ledger"] == "restart"
    assert "until it is shut down and started again" in plan.warnings[0]
    assert not vmm.plan(declared(ledger())).steps


def test_one_device_more_disturbs_no_other() -> None:
    vmm = world()
    vmm.apply(declared(ledger()))
    plan = vmm.apply(declared(ledger(disk("log"), Device("entropy", "rng"))))
    assert felt(plan)["attach/client/ledger"] == "live"
    assert not any(step.id.startswith("detach") for step in plan.steps)
    assert next(step.reason for step in plan.steps if step.name == "ledger") == "domain legacy gets entropy"


def test_a_device_goes_before_its_device_vm_lets_go_of_it() -> None:
    vmm = world()
    both = ledger(disk("log"), Device("entropy", "rng"))
    shared = DeviceVM("shared", Serves(classes=("disk",)))
    vmm.apply(declared(both, device_vms=(shared,)))
    plan = vmm.apply(declared(ledger(), device_vms=(shared,)))
    assert before(plan, "attach/client/ledger", "stop/device-vm/ledger-dvm")
    step = next(step for step in plan.steps if step.id == "attach/client/ledger")
    assert (step.effect.value, step.reason) == ("live", "domain legacy loses entropy")

    vmm = world()
    vmm.apply(declared(both, device_vms=(DeviceVM("shared", Serves()),)))
    plan = vmm.apply(declared(ledger(), device_vms=(DeviceVM("shared", Serves()),)))
    assert before(plan, "attach/client/ledger", "update/device-vm/shared")
    assert not vmm.plan(declared(ledger(), device_vms=(DeviceVM("shared", Serves()),))).steps


def test_what_cannot_be_unplugged_stays_until_its_user_restarts_the_domain() -> None:
    vmm = world()
    fixed = replace(disk("boot"), frontend="sata")
    vmm.apply(declared(ledger(disk("log"), fixed)))
    plan = vmm.plan(declared(ledger()))
    assert felt(plan)["attach/client/ledger"] == "restart"
    assert "has boot of ledger as it is now until it is shut down" in plan.warnings[0]


def test_a_device_vm_that_is_restarted_is_let_go_of_and_had_again() -> None:
    """A disk does not come back by itself; a serial port does."""
    shared = DeviceVM("shared", Serves(), memory=512 * MIB)
    larger = replace(shared, memory=GIB)
    vmm = world()
    vmm.apply(declared(ledger(), device_vms=(shared,)))
    plan = vmm.apply(declared(ledger(), device_vms=(larger,)))
    assert felt(plan) == {
        "detach/client/ledger": "reconnect",
        "stop/device-vm/shared": "none",
        "define/device-vm/shared": "none",
        "start/device-vm/shared": "none",
        "attach/client/ledger": "live",
    }
    assert before(plan, "detach/client/ledger", "stop/device-vm/shared")
    assert before(plan, "start/device-vm/shared", "attach/client/ledger")
    (told,) = next(step.felt for step in plan.steps if step.id == "detach/client/ledger")
    assert (told.until.value, told.seconds and told.seconds.from_) == ("answered", 2)
    assert any("has to be unmounted before" in warning for warning in plan.warnings)

    vmm = world()
    port = ledger(Device("gps", "serial"))
    vmm.apply(declared(port, device_vms=(shared,)))
    plan = vmm.apply(declared(port, device_vms=(larger,)))
    assert felt(plan)["stop/device-vm/shared"] == "reconnect"
    assert "detach/client/ledger" not in felt(plan)


def test_devices_go_from_one_domain_to_another() -> None:
    vmm = world(LEGACY, OTHER)
    vmm.apply(declared(ledger()))
    plan = vmm.apply(declared(ledger(domain="other")))
    assert list(felt(plan)) == ["detach/client/ledger", "attach/client/ledger"]
    assert before(plan, "detach/client/ledger", "attach/client/ledger")
    assert [(spec.domain, spec.uuid) for spec in plan.previous] == [("legacy", LEGACY.uuid)]
    assert not vmm.plan(declared(ledger(domain="other"))).steps


def seen_without(vmm: ModelVmm, **changes: object) -> ObservedDomain:
    """The client as it is seen when somebody has changed the domain."""
    there = vmm.domains["ledger"]
    vmm.domains["ledger"] = replace(there, **changes)  # type: ignore[arg-type]
    return there


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"drift": ("log (virtio-blk) is missing in its definition",)},
            "log (virtio-blk) is missing in its definition",
        ),
        ({"broken": "its metadata was changed by hand"}, "its metadata was changed by hand"),
    ],
)
def test_what_somebody_changes_is_put_right(changes: dict[str, object], reason: str) -> None:
    vmm = world()
    vmm.apply(declared(ledger()))
    seen_without(vmm, **changes)
    plan = vmm.apply(declared(ledger()))
    assert [(step.id, step.reason) for step in plan.steps] == [("attach/client/ledger", reason)]
    assert not vmm.plan(declared(ledger())).steps


def test_what_somebody_takes_out_while_it_runs_is_put_in_again() -> None:
    vmm = world()
    vmm.apply(declared(ledger()))
    spec = vmm.domains["ledger"].spec
    assert spec is not None
    seen_without(vmm, active_spec=replace(spec, attachments=()))
    plan = vmm.apply(declared(ledger()))
    assert [(step.id, step.reason) for step in plan.steps] == [("attach/client/ledger", "domain legacy gets log")]


def test_a_domain_that_is_renamed_or_gone_is_told_and_its_device_vm_stays() -> None:
    vmm = world()
    vmm.apply(declared(ledger()))
    vmm.hosts = (host(holdings=(replace(LEGACY, domain="legacy2"),)),)
    plan = vmm.plan(declared(ledger()))
    assert not plan.steps
    assert plan.unplaced[0].reasons == (
        "there is no domain legacy; its devices are in legacy2: was it renamed? Then declare that name",
    )
    plan = vmm.apply(declared(ledger(domain="legacy2")))
    assert list(felt(plan)) == ["attach/client/ledger"]
    # Undefined, with its mark: of the client, only the device VM tells.
    del vmm.domains["ledger"]
    vmm.hosts = (host(),)
    assert not vmm.plan(declared()).steps
    plan = vmm.plan(declared(), Intent("default", remove=frozenset(["ledger"])))
    assert list(felt(plan)) == ["stop/device-vm/ledger-dvm", "undefine/device-vm/ledger-dvm"]


def test_another_owners_clients_are_in_no_step() -> None:
    vmm = world()
    vmm.apply(declared(ledger()), Intent("theirs"))
    plan = vmm.plan(declared(), Intent("default", prune=True))
    assert not plan.steps


def test_a_disk_on_a_store_comes_back_by_itself_and_is_left_in() -> None:
    shared = DeviceVM("shared", Serves(), memory=512 * MIB)
    vmm = world()
    vmm.apply(declared(ledger(KEPT), device_vms=(shared,)))
    plan = vmm.plan(declared(ledger(KEPT), device_vms=(replace(shared, memory=GIB),)))
    assert felt(plan)["stop/device-vm/shared"] == "reconnect"
    assert not any(step.kind is Subject.CLIENT for step in plan.steps)


def test_a_domain_that_its_vmm_has_paused_goes_on_once_its_disks_answer() -> None:
    vmm = world()
    vmm.apply(declared(ledger(KEPT)))
    seen_without(vmm, stalled=True)
    plan = vmm.plan(declared(ledger(KEPT)))
    assert felt(plan) == {"resume/client/ledger": "live"}


def test_a_domain_that_is_paused_for_a_disk_whose_content_is_gone_is_left_to_its_user() -> None:
    vmm = world()
    vmm.apply(declared(ledger()))
    spec = vmm.domains["ledger"].spec
    assert spec is not None
    seen_without(vmm, stalled=True, away=tuple(one.channel.address for one in spec.attachments))
    plan = vmm.plan(declared(ledger()))
    assert felt(plan) == {}
    (warning,) = plan.warnings
    assert "stays paused until it is stopped and started again" in warning


class Recorder:
    """A driver that only remembers whom it was to let go on."""

    def __init__(self, observed: tuple[ObservedDomain, ...]) -> None:
        self.observed = observed
        self.calls: list[tuple[str, str, tuple[str, ...]]] = []
        self.refused: set[str] = set()

    def start(self, name: str) -> None:
        self.started = name

    def mark(self, spec: DomainSpec) -> None:
        self.marked = spec.name

    def observe(self) -> tuple[ObservedDomain, ...]:
        return self.observed

    def rejoin(self, uuid: str, owner: str, addresses: tuple[str, ...]) -> None:
        self.calls.append((uuid, owner, addresses))
        if uuid in self.refused:
            raise VmmError(f"{uuid} stays paused")


def test_who_goes_on_is_the_domain_whatever_its_client_is_called() -> None:
    """Domains of others may be called like a client that is an existing domain, or the VMM: they are left alone."""
    vmm = world()
    lab = client("lab", disk(), vm=None, consumer=Consumer.VMM)
    plan = vmm.apply(declared(ledger(), lab, client("web", disk()), device_vms=(DeviceVM("shared", Serves()),)))
    recorder = Recorder(vmm.observe())
    step = next(step for step in plan.steps if step.id == "start/device-vm/shared")
    context = Context(plan, recorder, guests=False, timeout=1)  # type: ignore[arg-type]
    perform(context, step)
    addresses = {one.client: one.channel.address for spec in plan.domains for one in spec.emulators}
    legacy, web = (spec.uuid for name in ("ledger", "web") for spec in plan.domains if spec.name == name)
    wanted = {(legacy, "default", (addresses["ledger"],)), (web, "default", (addresses["web"],))}
    assert set(recorder.calls) == wanted and not context.stalled

    recorder.calls, recorder.refused = [], {legacy, web}
    perform(context, step)
    assert set(recorder.calls) == wanted, "one that cannot is no reason to leave the others as they are"
    told = context.stalled[step.id].message
    assert f"{legacy} stays paused" in told and f"{web} stays paused" in told
