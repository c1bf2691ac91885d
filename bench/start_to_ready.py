"""From the start call to a device VM whose emulators answer, against a bare kernel that says one line."""

from __future__ import annotations

import itertools
import socket
import time
from dataclasses import replace
from xml.etree import ElementTree

from devicevm.apply.ready import wait_ready
from devicevm.domain import DomainSpec, Role
from devicevm.errors import DevicevmError
from devicevm.guest.control import Control, DeviceState
from devicevm.guest.probe import PROBES

from .measuring import Comparison, Figures, Result, parts_of, series, take_turns
from .stage import Stage, say

TARGET = 1.3
LIMIT = 60.0
TEXT = """\
The device VM of the quickstart (one disk, one random number generator, one GPS receiver) is started as
`devicevm apply` starts it, until each emulator has answered a probe through its channel. Against it: the same kernel,
machine type, loader, memory and kernel arguments, defined and created by libvirt-python alone, with an initramfs that
holds two drivers and a static program that writes one line to a virtio port. Neither includes the definition."""
MANIFEST = """\
apiVersion: devicevm/v1
kind: Client
metadata: {name: web}
spec:
  vm: {memory: 256MiB, boot: {guestImage: client}}
  devices:
    - {name: data, class: disk, parameters: {size: 64MiB}}
    - {name: entropy, class: rng}
    - {name: gps, class: serial, parameters: {program: nmea}}
"""
PARTS = ("create call", "guest boots to agent's answer", "emulators wait on their ports", "probes")


def run(stage: Stage, runs: int) -> Result:
    """The benchmark."""
    stage.build("base", "client")
    image = stage.build_own("bare")
    plan = stage.plan(stage.read("quickstart", MANIFEST))
    spec = next(spec for spec in plan.domains if spec.role is Role.DEVICE_VM)
    try:
        stage.driver.define(spec)
        bare = define_bare(stage, spec, str(stage.store.initramfs(image)))
        ours, theirs, taken = take_turns(
            runs, (lambda: start(stage, spec), lambda: start_bare(stage, bare), lambda: take_apart(stage, spec)), say
        )
    finally:
        stage.clear()
    against = "bare kernel"
    return Result(
        "start",
        "Start of a device VM",
        TEXT,
        (Comparison("start to ready", "s", series(ours, "ready"), series(theirs, "ready"), against, TARGET),),
        (*parts_of(taken, "s", "device VM: "), *parts_of(theirs, "s", "bare kernel: ")),
    )


def start(stage: Stage, spec: DomainSpec) -> Figures:
    """What `apply` does to start a device VM."""
    begun = time.perf_counter()
    stage.driver.start(spec.name)
    wait_ready(stage.driver, spec, time.monotonic() + LIMIT)
    seconds = time.perf_counter() - begun
    stage.driver.stop(spec.name)
    return {"ready": seconds}


def take_apart(stage: Stage, spec: DomainSpec) -> Figures:
    """The same steps with a clock between them."""
    marks = [time.perf_counter()]
    stage.driver.start(spec.name)
    marks.append(time.perf_counter())
    with Control(spec.control, timeout=LIMIT) as control:
        status = control.status()
        marks.append(time.perf_counter())
        guest = status.uptime
        while not all(device.state in (DeviceState.RUNNING, DeviceState.WAITING) for device in status.devices):
            time.sleep(0.01)
            status = control.status()
    marks.append(time.perf_counter())
    spent: Figures = {}
    for emulator in spec.emulators:
        begun = time.perf_counter()
        _probe(emulator.ready, emulator.channel.address)
        spent[f"probe {emulator.ready}"] = time.perf_counter() - begun
    marks.append(time.perf_counter())
    stage.driver.stop(spec.name)
    figures = {name: after - before for name, (before, after) in zip(PARTS, itertools.pairwise(marks), strict=True)}
    return {"ready": marks[-1] - marks[0], **figures, "guest's clock at agent's first answer": guest, **spent}


def _probe(name: str, address: str) -> None:
    while True:
        try:
            PROBES[name](address, LIMIT)
        except DevicevmError:
            time.sleep(0.05)
        else:
            return


def define_bare(stage: Stage, spec: DomainSpec, initramfs: str) -> str:
    """Define the bare kernel's domain; its name. What devicevm adds to a domain is not in it."""
    name = f"{spec.name}-bare"
    boot = replace(spec.boot, initrd=initramfs)
    control = spec.control.removesuffix(".sock") + "-bare"
    plain = replace(spec, name=name, emulators=(), boot=boot, control=control, console="")
    domain = ElementTree.fromstring(stage.driver.render(plain))
    for tag in ("uuid", "metadata", "sysinfo", "title", "description"):
        for item in domain.findall(tag):
            domain.remove(item)
    devices = domain.find("devices")
    for item in domain.findall("devices/controller[@type='scsi']") if devices is not None else ():
        devices.remove(item)  # type: ignore[union-attr]
    stage.driver.connection.defineXML(ElementTree.tostring(domain, encoding="unicode"))
    return name


def start_bare(stage: Stage, name: str) -> Figures:
    """Create the bare domain and wait for its line."""
    domain = stage.driver.connection.lookupByName(name)
    source = ElementTree.fromstring(domain.XMLDesc(0)).find("devices/channel/source")
    path = "" if source is None else source.get("path", "")
    begun = time.perf_counter()
    domain.create()
    created = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as port:
        port.settimeout(LIMIT)
        port.connect(path)
        if not port.recv(3):
            raise EOFError(f"{name} is gone")
    ready = time.perf_counter()
    domain.destroy()
    return {"ready": ready - begun, "create call": created - begun, "guest boots to its line": ready - created}
