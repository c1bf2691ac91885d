"""A VMM that only remembers, for the manager's keeper, and keepers on it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from devicevm.domain import DomainSpec, ObservedDomain
from devicevm.manager.keeper import Keeper, Times
from devicevm.manifest.topology import DeviceVM, Serves, Start, Topology
from devicevm.planner.naming import domain_uuid
from devicevm.planner.planner import make_plan
from devicevm.vmm.driver import Driver, VmmError
from world import ME, client, disk, host, topology

GRACE = 0.2
A, B, C = (domain_uuid("default", name) for name in "abc")


class Agent:
    """The control port of a device VM: answers as long as it is told to, of devices in these states. Each has been
    started once more by each question."""

    def __init__(self, path: str, states: dict[str, str] | None = None) -> None:
        self.answers, self.states, self.asked = True, states or {}, 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            threading.Thread(target=self._serve, args=(self.socket.accept()[0],), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with suppress(OSError), peer, peer.makefile("rb") as lines:
            for line in lines:
                if self.answers and line.strip():
                    self.asked += 1
                    reply = {"id": json.loads(line)["id"], "ok": True, "uptime": 1.0, "memoryAvailable": 1}
                    count = {"pid": 1, "restarts": self.asked, "connected": False, "serving": False}
                    reply["devices"] = [{"name": name, "state": state} | count for name, state in self.states.items()]
                    peer.sendall(json.dumps(reply).encode() + b"\n")


class Remembering(Driver):
    """What the keeper asks of a VMM; `broken` are device VMs that do not start, `slow` seconds of a start; what an
    operation `raises`. Of those that are `paused`, it says why they are so again; nothing: they go on."""

    def __init__(self, *specs: DomainSpec) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.active: set[str] = set()
        self.marked: set[str] = set()
        self.starts: list[str] = []
        self.broken: set[str] = set()
        self.paused: dict[str, str] = {}
        self.raises: dict[str, Exception] = {}
        self.consoles: dict[str, tuple[str, ...]] = {}
        self.slow = 0.0
        self.booting = self.most = 0
        self.lock = threading.Lock()

    def observe(self) -> tuple[ObservedDomain, ...]:
        return tuple(
            ObservedDomain(name, spec.uuid, spec.owner, spec.role, name in self.active, spec, ready=name in self.marked)
            for name, spec in sorted(self.specs.items())
        )

    def start(self, name: str) -> None:
        with self.lock:
            self.booting += 1
            self.most = max(self.most, self.booting)
        time.sleep(self.slow)
        with self.lock:
            self.booting -= 1
        self.starts.append(name)
        self._fail("start")
        if name in self.broken:
            raise VmmError(f"cannot start {name}: no such kernel")
        self.active.add(name)

    def _fail(self, operation: str) -> None:
        if operation in self.raises:
            raise self.raises[operation]

    def stop(self, name: str) -> None:
        self._fail("stop")
        self.active.discard(name)
        self.marked.discard(name)

    def resume(self, name: str) -> bool:
        if name not in self.paused:
            return False
        if why := self.paused[name]:
            raise VmmError(why)
        del self.paused[name]
        return True

    def is_active(self, name: str) -> bool:
        self._fail("is_active")
        return name in self.active

    def console_tail(self, spec: DomainSpec, lines: int) -> tuple[str, ...]:
        self._fail("console_tail")
        return self.consoles.get(spec.name, ())[-lines:]

    def mark(self, spec: DomainSpec) -> None:
        self._fail("mark")
        self.marked.add(spec.name)

    def define(self, spec: DomainSpec) -> None:
        self.specs[spec.name] = spec


Remembering.__abstractmethods__ = frozenset()  # the keeper asks for no more than these


def device_vms(wanted: Topology) -> tuple[DomainSpec, ...]:
    plan = make_plan(wanted, (host(),), (), ME)
    return tuple(replace(spec, start=Start.REQUEST) for spec in plan.domains if spec.emulators)


TWO = device_vms(topology(client("a", disk()), client("b", disk())))
SHARED = device_vms(topology(client("a", disk()), client("b", disk()), device_vms=(DeviceVM("both", Serves()),)))


def keeper(driver: Remembering, boots: int = 8) -> Keeper:
    made = Keeper(driver, boots=boots, times=Times(grace=GRACE, pause=0.01), guests=False)
    made.take_over(lambda _name: False)
    made.found_running([])
    return made


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def kill(driver: Remembering, kept: Keeper, name: str) -> None:
    driver.stop(name)
    kept.died(name, "its QEMU died")
