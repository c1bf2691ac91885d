"""How long a client waits when its device VM is killed, and the manager restarts it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .measuring import Figures, Result, parts_of, take_turns
from .shell import Shell
from .stage import Stage, say

if TYPE_CHECKING:
    from manager_stage import ManagedStage

TESTS = Path(__file__).resolve().parent.parent / "tests"
PAUSE = 0.5
"""Seconds after which answers are a new device VM's: none is back as soon."""
ENOUGH = 20
"""Answers that are waited for before the kill, and from the new device VM."""
LIMIT = 120.0
TEXT = """\
A client uses one device of its device VM all the time, and the device VM's QEMU is killed. The manager hears of it and
starts it anew; nobody else does anything. What is told is the longest time between two answers in the client, by the
host's clock, since a client that asks a disk for something is paused meanwhile: of a disk with a store on the host,
of which 4 KiB are read and 4 KiB written in turn, each past all caches, and of a serial port (a GPS receiver that
speaks every tenth of a second). That no answer is lost or wrong is for tests to show (`make test-long`)."""
CLIENT = """\
apiVersion: devicevm/v1
kind: Client
metadata: {{name: {name}}}
spec:
  vm: {{memory: 192MiB, boot: {{guestImage: client}}, domainXML: "{shell}"}}
  devices: [{device}]
"""
DEVICES = {
    "disk": "{{name: it, class: disk, parameters: {{size: 16MiB, store: {{file: {name}.img}}}}}}",
    "serial port": "{{name: it, class: serial, parameters: {{program: nmea, interval: 100}}}}",
}
LOOPS = {
    "disk": (
        "while dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct && dd if=/dev/zero of=/dev/vda bs=4k count=1 "
        "oflag=direct; do echo answered; done 2>/dev/null"
    ),
    "serial port": "stty -F /dev/ttyS1 raw -echo; cat /dev/ttyS1",
}


def run(stage: Stage, runs: int) -> Result:
    """The benchmark."""
    stage.build("base", "client")
    os.environ["DEVICEVM_IMAGES"] = str(stage.images)
    # The tests' libvirtd, with a manager beside it: written once.
    sys.path[1:1] = [str(TESTS), str(TESTS / "e2e")]
    from manager_stage import managed_stage

    numbers = itertools.count()
    with managed_stage("--grace", "2") as managed:
        # Another client each time: who dies again and again is restarted later each time.
        sides = [
            lambda kind=kind: outage(managed, kind, f"{kind.replace(' ', '-')}-{next(numbers)}") for kind in DEVICES
        ]
        found = take_turns(runs, sides, say, warm=False)
    parts = [part for kind, figures in zip(DEVICES, found, strict=True) for part in parts_of(figures, "s", f"{kind}: ")]
    return Result("outage", "Outage when a device VM is killed", TEXT, (), tuple(parts))


def outage(managed: ManagedStage, kind: str, name: str) -> Figures:
    """Kill the device VM of a new client that uses one device; the client and its data are gone afterwards."""
    from stage import shell_port

    port = managed.folder / f"{name}.shell"
    device = DEVICES[kind].format(name=name)
    path = managed.declare(name, CLIENT.format(name=name, shell=shell_port(port), device=device))
    managed.devicevm("apply", path)
    try:
        with contextlib.closing(Shell(port)) as shell:
            return watch(managed, shell, LOOPS[kind], f"{name}-dvm")
    finally:
        managed.devicevm("destroy", "--yes", "--delete-data", path)


def watch(managed: ManagedStage, shell: Shell, loop: str, device_vm: str) -> Figures:
    """The longest time between two answers, and how much of it went by until there was a process again."""
    from manager_stage import until

    answers: list[float] = []

    def listen() -> None:
        # It ends with the shell's socket.
        with contextlib.suppress(OSError, EOFError):
            for moment in shell.lines(loop):
                answers.append(moment)

    threading.Thread(target=listen, daemon=True).start()
    until(lambda: len(answers) >= ENOUGH, LIMIT)
    process = managed.device_vms()[device_vm]
    os.kill(process, signal.SIGKILL)
    killed = time.perf_counter()
    until(lambda: managed.device_vms().get(device_vm, process) != process, LIMIT, managed.said)
    started = time.perf_counter()
    until(lambda: sum(moment > killed + PAUSE for moment in answers) >= ENOUGH, LIMIT, managed.said)
    longest = max(after - before for before, after in itertools.pairwise(answers))
    return {"without an answer": longest, "killed to a new process": started - killed}
