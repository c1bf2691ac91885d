"""Moving what runs, on real guests: room is made for a client that has none, and nobody feels more than was announced.

Two processors are enough: what shares a thread, or could, is put together so that one is free to be dedicated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from devicevm.inventory.cpuset import parse_cpuset
from stage import Shell, Stage, shell_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HOST = """\
apiVersion: devicevm/v1
kind: Host
metadata: {{name: {name}}}
spec: {{reservedCpus: {reserved}}}
"""

CLIENT = """\
---
apiVersion: devicevm/v1
kind: Client
metadata: {{name: {name}}}
spec:
  vm:
    memory: 256MiB
    boot: {{guestImage: client}}
    domainXML: "{port}"
  devices:
    - {{name: data, class: disk, parameters: {{size: 8MiB, store: {{file: {store}}}}}}}
---
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {{name: {name}-dvm}}
spec:
  serves: {{clients: [{name}]}}
  resources: {resources}
"""

# Six guests on two processors: on a machine that has more to do, the last one to boot is late.
PATIENT = ("--timeout", "200")

SHARED = "[{thread: {count: 1}}]"
ALONE = "[{core: {count: 1}}]"
# Another processor model, too: nothing that a running device VM can be given.
ALONE_IF_IT_CAN_BE = "[{isa: [aes], core: {count: 1}}, {thread: {count: 1}}]"


@dataclass
class Seen:
    """What shows whether a client or its device VM was restarted, and what the client reads on its disk."""

    client: int
    device_vm: int
    boot: str
    content: str


class Guest:
    """A client with one disk, in a file, and a device VM of its own."""

    def __init__(self, stage: Stage, name: str, resources: str) -> None:
        self.stage, self.name = stage, name
        self.port = stage.folder / f"{name}.shell"
        store = stage.folder / f"{name}.img"
        self.documents = CLIENT.format(name=name, port=shell_port(self.port), store=store, resources=resources)

    def write(self) -> None:
        """Something that is this guest's alone, on its disk; acknowledged."""
        with_own_words = f"( echo {self.name}; cat /proc/sys/kernel/random/boot_id; dd if=/dev/urandom bs=64k count=8 )"
        self.run(f"{with_own_words} 2>/dev/null | dd of=/dev/vda bs=4k conv=fsync 2>/dev/null")

    def seen(self) -> Seen:
        """As it is now; what is on the disk is read from the device, not from the guest's memory."""
        boot = self.run("cat /proc/sys/kernel/random/boot_id").split()[0]
        content = self.run("echo 3 >/proc/sys/vm/drop_caches; md5sum /dev/vda").split()[0]
        return Seen(self.stage.process(self.name), self.stage.process(f"{self.name}-dvm"), boot, content)

    def run(self, command: str) -> str:
        """In a shell in the guest, which may have been another guest a moment ago."""
        shell = Shell(self.port)
        try:
            return shell.run(command)
        finally:
            shell.close()

    def pins(self) -> tuple[int, ...]:
        """The CPUs of its device VM, as libvirt and the kernel have them: of the virtual CPU's thread, in both."""
        name = f"{self.name}-dvm"
        told = parse_cpuset(self.stage.virsh("vcpupin", name).split()[-1])
        tasks = Path(f"/proc/{self.stage.process(name)}/task")
        (allowed,) = [
            line.split()[-1]
            for task in tasks.iterdir()
            if (task / "comm").read_text().startswith("CPU ")
            for line in (task / "status").read_text().splitlines()
            if line.startswith("Cpus_allowed_list")
        ]
        assert parse_cpuset(allowed) == told
        return told


def topology(stage: Stage, *guests: Guest) -> Path:
    """The manifest of these on two processors of the host."""
    host = stage.json("inventory")
    cpus = [cpu["id"] for cpu in host["cpus"]]
    if len(cpus) < 2 or len(host["cpus"][0].get("siblings") or [0]) > 1:
        pytest.skip("two cores of one thread each are needed")
    path = stage.folder / "rebalance.yaml"
    path.write_text(HOST.format(name=host["name"], reserved=cpus[2:]) + "".join(guest.documents for guest in guests))
    return path


def refused(stage: Stage, path: Path, name: str) -> str:
    """What a plain apply says of a client for which there is no room; nothing is done."""
    before = stage.domains()
    result = stage.devicevm("apply", path, ok=False)
    assert result.returncode == 1
    assert stage.domains() == before and name not in before
    return result.stderr


def felt_by(plan: dict[str, Any]) -> dict[str, str]:
    """Who is announced to feel a plan, and until when."""
    return {name: felt["until"] for step in plan["steps"] for felt in step.get("felt", ()) for name in felt["clients"]}


def is_settled(stage: Stage, path: Path) -> None:
    """Nothing is left to do or to gain, and nothing stays behind."""
    assert "steps" not in stage.json("plan", "--rebalance", path)
    assert stage.devicevm("apply", "--rebalance", path).stdout == "No changes.\n"
    assert stage.devicevm("apply", path).stdout == "No changes.\n"
    stage.devicevm("destroy", "--yes", path)


def test_pins_move_while_everybody_runs_on(stage: Stage) -> None:
    """Two shared threads take both processors; on one of them there is a whole one for who must be alone."""
    old = [Guest(stage, "a", SHARED), Guest(stage, "b", SHARED)]
    stage.devicevm("apply", *PATIENT, topology(stage, *old))
    for guest in old:
        guest.write()
    before = [guest.seen() for guest in old]
    pins = [guest.pins() for guest in old]
    assert pins[0] != pins[1]

    new = Guest(stage, "new", ALONE)
    path = topology(stage, *old, new)
    words = refused(stage, path, "new")
    assert "1 core asked, 0 free" in words
    assert "--rebalance finds a place for it" in words
    plan = stage.json("plan", "--rebalance", path)
    assert plan["rebalance"]["gains"] == ["clients that cannot be placed: 1 -> 0"]
    (move,) = plan["rebalance"]["moves"]
    assert plan["rebalance"].get("clients", []) == []
    assert not felt_by(plan)

    stage.devicevm("apply", *PATIENT, "--rebalance", path)
    assert [guest.seen() for guest in old] == before, "nobody was restarted, and what was written is there"
    after = [guest.pins() for guest in old]
    assert after[0] == after[1] and not set(after[0]) & set(new.pins())
    changed = [guest.name for guest, was, now in zip(old, pins, after, strict=True) if was != now]
    assert [move.split(":")[0]] == [f"{name}-dvm" for name in changed]
    is_settled(stage, path)


def test_who_feels_a_move_is_who_was_announced(stage: Stage) -> None:
    """What has a processor to itself, and could do with less, gives it up to who could not."""
    moved, still = Guest(stage, "moved", ALONE_IF_IT_CAN_BE), Guest(stage, "still", SHARED)
    stage.devicevm("apply", *PATIENT, topology(stage, moved, still))
    for guest in (moved, still):
        guest.write()
    before = {guest.name: guest.seen() for guest in (moved, still)}
    pins = still.pins()
    assert moved.pins() != pins

    new = Guest(stage, "new", ALONE)
    path = topology(stage, moved, still, new)
    assert "--rebalance finds a place for it" in refused(stage, path, "new")
    plan = stage.json("plan", "--rebalance", path)
    assert plan["rebalance"]["clients"] == ["moved"]
    assert felt_by(plan) == {"moved": "answered"}

    stage.devicevm("apply", *PATIENT, "--yes", "--rebalance", path)
    after = {guest.name: guest.seen() for guest in (moved, still)}
    assert after["still"] == before["still"]
    # Its disk is on a store: it waits for its device VM, and goes on.
    assert (after["moved"].boot, after["moved"].client) == (before["moved"].boot, before["moved"].client)
    assert after["moved"].device_vm != before["moved"].device_vm
    assert after["moved"].content == before["moved"].content
    assert moved.pins() == still.pins() == pins
    assert not set(pins) & set(new.pins())
    is_settled(stage, path)
