"""What plans tell of those who feel them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from devicevm.inventory.cpuset import format_cpuset


def test_plan_tells_who_feels_it_and_until_when(cli: Any, web: Path, vmm: Any) -> None:
    assert cli("apply", web).status == 0
    web.write_text(web.read_text().replace("memory: 256MiB", "memory: 128MiB"))
    said = cli("plan", web)
    assert "~ stop client web: memory 268435456 -> 134217728 [restarts it; web is away until it has booted]" in said.out
    steps = {step["id"]: step for step in cli("plan", web, "-o", "json").json["steps"]}
    assert steps["stop/client/web"]["felt"] == [{"clients": ["web"], "until": "booted"}]
    assert "felt" not in steps["start/client/web"]


FREE = """
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: fast}
spec:
  serves: {classes: [rng]}
  resources:
    - thread: {count: 2}
    - thread: {count: 1}
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: web}
spec:
  vm: {memory: 256MiB, boot: {guestImage: client}}
  devices: [{name: entropy, class: rng}]
---
apiVersion: devicevm/v1
kind: Host
metadata: {name: HOST}
spec: {reservedCpus: RESERVED}
"""


def declared(path: Path, host: str, reserved: str) -> Path:
    path.write_text(FREE.replace("HOST", host).replace("RESERVED", reserved))
    return path


def test_rebalance_takes_what_is_free_again_once_and_tells_the_price(cli: Any, tmp_path: Path, vmm: Any) -> None:
    """All processors but one are reserved at first."""
    found = cli("inventory", "-o", "json").json
    host, cpus = found["name"], found["cpus"]
    most = ",".join(str(cpu["id"]) for cpu in cpus[1:])
    path = declared(tmp_path / "fast.yaml", host, f'"{most}"')
    assert cli("apply", path).status == 0
    declared(path, host, "[]")
    assert cli("plan", path).out.endswith("No changes.\n")
    assert "DeviceVM fast asks for, best first: 2 threads; 1 thread" in cli("explain", path, "web/entropy").out
    said = cli("plan", path, "--rebalance")
    assert "rebalance gains: better alternatives not had: 1 -> 0" in said.out
    assert "felt because of it by: web" in said.out
    assert "without --rebalance: none" in said.out
    document = cli("plan", path, "--rebalance", "-o", "json").json["rebalance"]
    assert document["gains"] == ["better alternatives not had: 1 -> 0"]
    assert document["clients"] == ["web"]
    assert "rebalance gains" in cli("apply", path, "--rebalance", "--yes").err
    again = cli("apply", path, "--rebalance")
    assert "rebalance: nothing would be better, what runs stays" in again.err
    assert again.out.endswith("No changes.\n")


def test_what_has_to_move_anyhow_is_no_move_of_rebalancing(cli: Any, tmp_path: Path, vmm: Any) -> None:
    host = cli("inventory", "-o", "json").json["name"]
    path = declared(tmp_path / "fast.yaml", host, '"2-15"')
    assert cli("apply", path).status == 0
    said = cli("plan", declared(path, host, '"0-1,4-15"'), "--rebalance")
    assert "it could not stay: CPU 0 is now reserved" in said.out
    assert "update device VM fast: it runs on CPU 2-3 instead of 0-1" in said.out
    assert "rebalance: nothing would be better, what runs stays\n" in said.out
    assert "moves fast" not in said.out


def test_rebalance_belongs_to_the_making_of_a_plan(cli: Any, web: Path, vmm: Any, tmp_path: Path) -> None:
    assert cli("plan", web, "--out", tmp_path / "plan.json").status == 0
    said = cli("apply", tmp_path / "plan.json", "--rebalance")
    assert said.status == 2
    assert "--rebalance belongs to the making of a plan" in said.err


def test_what_is_left_out_and_does_not_run_is_left_so(cli: Any, web: Path, vmm: Any) -> None:
    assert cli("apply", web).status == 0
    for name in ("web", "web-dvm"):
        vmm.lookupByName(name).destroy()
    declared_so = web.read_text()
    web.write_text(declared_so.replace("spec:\n", "spec:\n  host: elsewhere\n"))
    said = cli("plan", web)
    assert "stays as it is" in said.out
    assert said.out.endswith("No changes. 2 cannot be placed.\n")
    web.write_text(declared_so)
    assert "start device VM web-dvm" in cli("plan", web).out


def test_a_processor_of_the_vmms_own_threads_is_among_those_of_its_device_vm(cli: Any, web: Path, vmm: Any) -> None:
    """What libvirt has pinned, and what plan and status say, are the same processors."""
    resources = "[{thread: {count: 1, dedicated: true, emulator: own}}]"
    declared = (
        f"---\napiVersion: devicevm/v1\nkind: DeviceVM\nmetadata: {{name: fast}}\nspec: {{resources: {resources}}}\n"
    )
    web.write_text(web.read_text() + declared)
    said = cli("plan", web)
    assert cli("apply", web).status == 0
    tune = ElementTree.fromstring(vmm.lookupByName("fast").XMLDesc()).findall("cputune/*")
    assert [one.tag for one in tune] == ["vcpupin", "emulatorpin"]
    pinned = sorted(int(one.get("cpuset", "")) for one in tune)
    words = format_cpuset(pinned)
    assert f"thread, CPUs {words}, alone" in said.out
    assert f"fast has CPU {words} to itself" in said.out + said.err
    (row,) = [line.split() for line in cli("status").out.splitlines() if line.split()[:1] == ["fast"]]
    assert words in row
    (domain,) = [one for one in cli("status", "-o", "json").json["domains"] if one["name"] == "fast"]
    assert domain["cpus"] == pinned
