"""The examples of resources, for real: what was planned is what the kernel and the guest show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from devicevm.guest.control import Control
from devicevm.inventory.cpuset import parse_cpuset
from manifests import with_shell, write
from stage import Shell, Stage

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def affinities(pid: int) -> dict[str, str]:
    """The CPUs that each thread of a process may run on, by the thread's name (QEMU: `CPU 0/TCG`)."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        found[lines["Name"]] = lines["Cpus_allowed_list"]
    return found


def apply(stage: Stage, kind: str) -> dict[str, Any]:
    """Apply an example; its device VM's allocation."""
    path = EXAMPLES / f"resource-{kind}.yaml"
    plan = stage.json("plan", path)
    stage.devicevm("apply", path)
    assert stage.devicevm("apply", path).stdout == "No changes.\n"
    (allocation,) = plan["allocations"]
    return dict(allocation)


@pytest.mark.parametrize("kind", ["thread", "core", "processor"])
def test_processors_are_pinned_as_planned(stage: Stage, kind: str) -> None:
    allocation = apply(stage, kind)
    assert allocation["dedicated"]
    (cpu,) = allocation["cpus"]
    threads = affinities(stage.process(f"{kind}-storage"))
    (virtual,) = [cpus for name, cpus in threads.items() if name.startswith("CPU ")]
    assert virtual == str(cpu)
    emulator = next(cpus for name, cpus in threads.items() if name.startswith("qemu-system"))
    assert emulator == str(cpu)
    stage.devicevm("destroy", "--yes", EXAMPLES / f"resource-{kind}.yaml")


@pytest.mark.parametrize("kind", ["microcode", "memory"])
def test_what_the_host_lacks_falls_back_and_says_why(stage: Stage, kind: str) -> None:
    allocation = apply(stage, kind)
    assert len(allocation["reasons"]) >= 1
    told = stage.devicevm("explain", EXAMPLES / f"resource-{kind}.yaml", f"{kind}-user/data").stdout
    assert "asked" in told
    stage.devicevm("destroy", "--yes", EXAMPLES / f"resource-{kind}.yaml")


def test_extensions_are_seen_in_the_guest(stage: Stage) -> None:
    apply(stage, "isa")
    control = next(path for path in stage.sockets() if path.name.endswith("-control.sock"))
    with Control(str(control), timeout=20) as guest:
        assert {"aes", "avx2"} <= set(guest.cpu().flags)
    stage.devicevm("destroy", "--yes", EXAMPLES / "resource-isa.yaml")


def test_of_alternatives_the_best_that_the_host_has_answers_the_client(stage: Stage) -> None:
    """With the program of that alternative, on a processor that has what the program was made for."""
    declared, user = yaml.safe_load_all((EXAMPLES / "resource-alternatives.yaml").read_text())
    path = write(stage.folder, declared, with_shell(user, stage))
    (allocation,) = stage.json("plan", path)["allocations"]
    *refused, taken = allocation["reasons"]
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "alternatives-user.shell")
    answer = shell.ask(b"hello\n", 7).decode().partition(":")[0]
    shell.close()
    program = {"avx512": "avx512f", "avx2": "avx2"}.get(answer, "")
    assert taken.startswith(program or "1 ")
    control = next(path for path in stage.sockets() if path.name.endswith("-control.sock"))
    with Control(str(control), timeout=20) as guest:
        assert {program} - {""} <= set(guest.cpu().flags)
    told = stage.devicevm("explain", path, "alternatives-user/meter").stdout
    assert refused and all(reason in told for reason in refused)
    stage.devicevm("destroy", "--yes", path)


def test_an_extension_that_the_vmm_drops_silently_is_an_error(stage: Stage) -> None:
    """The plan is made to ask for one that TCG does not have: libvirt starts the guest all the same."""
    path = stage.folder / "plan.json"
    stage.devicevm("plan", EXAMPLES / "resource-isa.yaml", "--out", path)
    plan = json.loads(path.read_text())
    (asking,) = [spec for spec in plan["domains"] if spec.get("cpuFeatures")]
    asking["cpuFeatures"].append("avx512f")
    path.write_text(json.dumps(plan))
    result = stage.devicevm("apply", path, ok=False)
    assert result.returncode == 1
    assert "its processor has no avx512f, though the VMM was asked for it" in result.stderr
    assert stage.domains() == []


def test_a_device_vm_is_near_its_client(stage: Stage) -> None:
    path = EXAMPLES / "resource-near.yaml"
    allocation = apply(stage, "near")
    assert allocation["dedicated"]
    device_vm, client = ({**affinities(stage.process(f"near-{who}"))} for who in ("storage", "user"))
    (mine,) = [int(cpus) for name, cpus in device_vm.items() if name.startswith("CPU ")]
    (theirs,) = [int(cpus) for name, cpus in client.items() if name.startswith("CPU ")]
    assert [mine] == allocation["cpus"] and theirs != mine
    cpus = {cpu["id"]: cpu for cpu in stage.json("inventory")["cpus"]}
    assert mine in cpus[theirs]["siblings"] or cpus[mine].get("node", 0) == cpus[theirs].get("node", 0)
    stage.devicevm("destroy", "--yes", path)


def test_a_class_of_ones_own_answers(stage: Stage) -> None:
    """As its `expect` says: until then its device VM is not ready."""
    path = EXAMPLES / "own-class.yaml"
    stage.devicevm("apply", path)
    devices = {one["device"]: one["state"] for one in stage.json("status")["devices"]}
    assert devices == {"inside": "connected", "outside": "connected"}
    stage.devicevm("destroy", "--yes", path)


FLOATING = """<domain type='qemu'><name>theirs</name><memory unit='MiB'>32</memory><vcpu>2</vcpu>
<os><type arch='x86_64'>hvm</type></os></domain>"""


def test_what_floats_is_kept_off_dedicated_processors(stage: Stage) -> None:
    """The pool's client and the VMM's own threads stay in the pool, and so does a domain that is nobody's; and all this
    comes to pass while they run."""
    name = stage.json("inventory")["name"]
    path = stage.folder / "pool.yaml"
    # Before the Host is called as it is, nothing is said of it.
    stage.devicevm("apply", EXAMPLES / "resource-pool.yaml")
    running = {domain: stage.process(domain) for domain in ("pool-storage", "pool-user")}
    path.write_text((EXAMPLES / "resource-pool.yaml").read_text().replace("my-host", name))
    (stage.folder / "theirs.xml").write_text(FLOATING)
    stage.virsh("define", str(stage.folder / "theirs.xml"))
    stage.virsh("start", "theirs")
    before = set(affinities(stage.process("theirs")).values())
    plan = stage.json("plan", path)
    # Everybody is off the processor before the device VM has it alone.
    moved = ["repin/domain/theirs", "update/client/pool-user", "update/device-vm/pool-storage"]
    assert [step["id"] for step in plan["steps"]] == moved
    assert {step["effect"] for step in plan["steps"]} == {"live"}
    stage.devicevm("apply", path)
    assert stage.devicevm("apply", path).stdout == "No changes.\n"
    assert running == {domain: stage.process(domain) for domain in running}
    (alone,) = plan["allocations"][0]["cpus"]
    storage = affinities(stage.process("pool-storage"))
    assert [cpus for thread, cpus in storage.items() if thread.startswith("CPU ")] == [str(alone)]
    assert next(cpus for thread, cpus in storage.items() if thread.startswith("qemu-system")) == "0"
    assert stage.virsh("emulatorpin", "pool-storage").split()[-1] == "0"
    assert set(affinities(stage.process("pool-user")).values()) == {"0"}
    theirs = {cpu for cpus in affinities(stage.process("theirs")).values() for cpu in parse_cpuset(cpus)}
    everywhere = {cpu["id"] for cpu in stage.json("inventory")["cpus"]}
    assert theirs == everywhere - {alone}
    assert parse_cpuset(stage.virsh("vcpupin", "theirs", "--config").split()[-1]) == tuple(sorted(theirs))
    stage.devicevm("destroy", "--yes", path)
    assert set(affinities(stage.process("theirs")).values()) == before
    stage.virsh("destroy", "theirs")
    stage.virsh("undefine", "theirs")
