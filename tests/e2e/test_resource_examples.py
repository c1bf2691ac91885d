"""The examples of resources, for real: what was planned is what the kernel and the guest show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from devicevm.guest.control import Control
from stage import Stage

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
