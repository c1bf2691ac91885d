"""Host parts in plans: after their device VMs and before their clients, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from devicevm.apply.check import check_plan
from devicevm.apply.outcome import Outcome, to_undo
from devicevm.errors import DevicevmError
from devicevm.manifest.topology import Client, Consumer, Device, DeviceVM, Serves, ShareScope, Store
from devicevm.planner.plan import Plan
from devicevm.planner.planner import Intent
from devicevm.vmm.swtpm import check_swtpm
from world import GIB, MIB, ModelVmm, client, disk, topology

GONE = Intent("default", prune=True)
SHARED = DeviceVM("safe", Serves(classes=("tpm",)), scope=ShareScope.TRUST_DOMAIN, memory=512 * MIB)


def tpm(name: str = "tpm") -> Device:
    return Device(name, "tpm", {}, store=Store("file", MIB, f"/data/{name}.tpm"), memory=0)


def web(name: str = "web", **changes: object) -> Client:
    return client(name, tpm(name), **changes)


def ids(plan: Plan) -> list[str]:
    return [step.id for step in plan.steps]


def test_a_part_comes_between_its_device_vm_and_its_client() -> None:
    vmm = ModelVmm()
    plan = vmm.apply(topology(client("web", tpm())))
    found = ids(plan)
    order = ["start/device-vm/web-dvm", "start/part/web/tpm", "start/client/web"]
    assert [key for key in found if key in order] == order
    assert not vmm.plan(topology(client("web", tpm()))).steps
    spec, device_vm = vmm.domains["web"].spec, vmm.domains["web-dvm"].spec
    assert spec and device_vm
    (part,) = [one.part for one in device_vm.emulators]
    assert part
    # The client's VMM speaks to the part, and that to the device VM.
    assert spec.attachments[0].channel.address == part.address
    assert device_vm.emulators[0].channel.address == part.channel != part.address
    assert len(part.address.encode()) < 100


def test_it_goes_after_its_client_and_before_its_device_vm() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(web()))
    found = ids(vmm.apply(topology(), GONE))
    order = ["stop/client/web", "stop/part/web/web", "stop/device-vm/web-dvm"]
    assert [key for key in found if key in order] == order
    assert not vmm.parts
    assert not vmm.domains


def test_a_device_vm_that_changes_has_its_parts_started_anew() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(web(), device_vms=(SHARED,)))
    found = ids(vmm.apply(topology(web(), device_vms=(replace(SHARED, memory=GIB),))))
    assert [key for key in found if "part" in key] == ["stop/part/web/web", "start/part/web/web"]
    assert len(vmm.parts) == 1


def test_a_part_that_does_not_run_is_started_and_its_client_with_it() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(web()))
    vmm.parts.clear()
    plan = vmm.plan(topology(web()))
    assert ids(plan) == ["stop/client/web", "start/part/web/web", "start/client/web"]
    assert "does not run" in plan.steps[0].reason
    vmm.carry_out(plan)
    assert not vmm.plan(topology(web())).steps


def test_a_device_vm_that_has_died_is_not_met_by_the_part_of_before() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(web()))
    vmm.domains["web-dvm"] = replace(vmm.domains["web-dvm"], active=False, active_spec=None)
    found = ids(vmm.apply(topology(web())))
    order = [
        "stop/client/web",
        "stop/part/web/web",
        "start/device-vm/web-dvm",
        "start/part/web/web",
        "start/client/web",
    ]
    assert [key for key in found if key in order] == order


def test_a_device_vm_that_somebody_has_started_keeps_its_parts() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(web()))
    vmm.domains["web-dvm"] = replace(vmm.domains["web-dvm"], ready=False)
    assert ids(vmm.apply(topology(web()))) == ["start/device-vm/web-dvm"]
    assert len(vmm.parts) == 1


def test_another_client_of_a_shared_device_vm_disturbs_no_part() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(web(), device_vms=(SHARED,)))
    (before,) = vmm.parts
    found = ids(vmm.apply(topology(web(), web("db"), device_vms=(SHARED,))))
    assert [key for key in found if "part" in key] == ["start/part/db/db"]
    assert before in vmm.parts
    found = ids(vmm.apply(topology(web(), device_vms=(SHARED,)), GONE))
    assert [key for key in found if "part" in key] == ["stop/part/db/db"]
    assert list(vmm.parts) == [before]


def test_what_others_have_is_left_alone() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(web()))
    plan = vmm.plan(topology(client("db", disk())))
    assert not [key for key in ids(plan) if "part" in key]


def test_a_part_is_undone_when_its_client_does_not_start() -> None:
    plan = ModelVmm().plan(topology(web()))
    done = [key for key in ids(plan) if key != "start/client/web"]
    undone = to_undo(plan.steps, Outcome(done=done, failed=["start/client/web"]))
    assert undone.index("start/part/web/web") < undone.index("start/device-vm/web-dvm")


def test_a_step_that_names_no_part_is_refused() -> None:
    plan = ModelVmm().plan(topology(web()))
    check_plan(plan)
    broken = replace(plan, steps=tuple(replace(step, part=None) for step in plan.steps))
    with pytest.raises(DevicevmError, match="start/part/web/web: it does not say which process"):
        check_plan(broken)


def test_what_libvirt_wants_for_a_tpm_is_told_before_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    vmm = ModelVmm()
    vmm.apply(topology(web(), client("db", disk())))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name == "swtpm" else None)
    specs = {name: domain.spec for name, domain in vmm.domains.items() if domain.spec}
    check_swtpm(specs["db"])
    with pytest.raises(DevicevmError, match="swtpm_setup, swtpm_ioctl") as caught:
        check_swtpm(specs["web"])
    assert "swtpm-tools" in caught.value.hint
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    check_swtpm(specs["web"])


def on_host(*devices: Device) -> Client:
    return client("lab", *(replace(one, path=f"/srv/{one.name}") for one in devices), vm=None, consumer=Consumer.HOST)


def test_the_host_has_its_devices_at_paths() -> None:
    vmm = ModelVmm()
    devices = (disk(), Device("noise", "rng"), Device("gps", "serial"))
    plan = vmm.apply(topology(on_host(*devices)))
    kinds = {step.part.address: step.part.kind for step in plan.steps if step.part}
    assert kinds == {"/srv/data": "file", "/srv/noise": "fifo", "/srv/gps": "pty"}
    assert not vmm.plan(topology(on_host(*devices))).steps
    vmm.parts.popitem()
    assert len(ids(vmm.apply(topology(on_host(*devices))))) == 1
    vmm.apply(topology(), GONE)
    assert not vmm.parts


def test_a_disk_that_is_read_only_is_so_for_the_host() -> None:
    book = replace(disk(), store=Store("file", MIB, "/data/book", read_only=True), memory=0)
    plan = ModelVmm().plan(topology(on_host(book)))
    (step,) = [step for step in plan.steps if step.part]
    assert step.part
    assert step.part.options == {"readOnly": "yes"}


def stored(**part_options: str) -> Device:
    """A disk of the host's on a store."""
    return replace(disk(), store=Store("file", MIB, "/data/lab"), memory=0, part_options=part_options)


def test_what_the_host_has_open_waits_for_a_device_vm_that_has_died() -> None:
    """It would have to be opened anew otherwise; what was in memory is gone, and another disk must not pass for it."""
    for device, steps in ((stored(), []), (disk(), ["stop/part/lab/data", "start/part/lab/data"])):
        vmm = ModelVmm()
        vmm.apply(topology(on_host(device)))
        vmm.domains["lab-dvm"] = replace(vmm.domains["lab-dvm"], active=False, active_spec=None)
        plan = vmm.apply(topology(on_host(device)))
        assert [key for key in ids(plan) if "part" in key] == steps
        (start,) = [step for step in plan.steps if step.id == "start/device-vm/lab-dvm"]
        assert [felt.clients for felt in start.felt] == ([] if steps else [("lab",)])
        assert len(vmm.parts) == 1


def test_another_mount_leaves_the_disk_as_it_is() -> None:
    vmm = ModelVmm()
    vmm.apply(topology(on_host(disk())))
    plan = vmm.apply(topology(on_host(replace(disk(), part_options={"mount": "/mnt/data", "type": "ext4"}))))
    assert ids(plan) == ["stop/part/lab/data", "update/device-vm/lab-dvm", "start/part/lab/data"]
    assert not plan.warnings
    assert [part.kind for part in vmm.parts.values()] == ["mount"]
    assert not [step.felt for step in plan.steps if step.felt]


def test_a_mount_is_told_what_the_manifest_says() -> None:
    given = {"mount": "/mnt/data", "type": "xfs", "options": "noatime"}
    book = replace(stored(**given), store=Store("file", MIB, "/data/book", read_only=True))
    (part,) = [step.part for step in ModelVmm().plan(topology(on_host(book))).steps if step.part]
    assert (part.kind, part.address, part.options) == ("mount", "/srv/data", {**given, "readOnly": "yes"})
