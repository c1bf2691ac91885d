"""fio in one client on three disks in turn: a device VM's, nbdkit's on the host, and QEMU's own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from devicevm.planner.plan import Plan

from .measuring import Comparison, Figures, Result, series, take_turns
from .shell import Shell
from .stage import Stage, say

SIZE = 64 * 2**20
TARGET = 2.5
SECONDS = 2
TEXT = f"""\
One client with three virtio disks of {SIZE // 2**20} MiB, and fio on one after the other: (a) a disk of class `disk`
in its device VM, as devicevm makes it, (b) nbdkit's memory plugin on the host, on a unix socket, configured the same in
the client, (c) QEMU's own virtio-blk on a raw file in a tmpfs. Direct I/O, libaio, {SECONDS} seconds a job after 0.3 s
to warm up. Latency is fio's mean completion latency; the ratio of rates is a to b as well, so there more is
better."""
MANIFEST = """\
apiVersion: devicevm/v1
kind: Client
metadata: {{name: user}}
spec:
  vm:
    memory: 512MiB
    boot: {{guestImage: fio-client}}
    domainXML: {fragment}
  devices:
    - {{name: data, class: disk, parameters: {{size: 64MiB}}}}
"""


@dataclass(frozen=True)
class Job:
    """One way to use a disk: fio's words for it, and the figure that is taken."""

    what: str
    unit: str
    mode: str
    block: str
    depth: int
    target: float = 0.0

    def command(self, device: str) -> str:
        """The fio command on one disk."""
        options = f"--rw={self.mode} --bs={self.block} --iodepth={self.depth} --filename={device}"
        fixed = f"--name=j --ioengine=libaio --direct=1 --time_based --runtime={SECONDS} --ramp_time=0.3"
        return f"fio {fixed} {options} --randrepeat=0 --output-format=json --output=/tmp/fio.json && cat /tmp/fio.json"

    def figure(self, found: dict[str, Any]) -> float:
        """What fio's JSON says, in this job's unit."""
        (job,) = found["jobs"]
        side = job["read" if "read" in self.mode else "write"]
        if self.unit == "us":
            return float(side["clat_ns"]["mean"]) / 1000
        return float(side["iops"] if self.unit == "IOPS" else side["bw_bytes"] / 2**20)


JOBS = (
    Job("4k random read, one at a time", "us", "randread", "4k", 1, TARGET),
    Job("4k random read, 16 at a time", "IOPS", "randread", "4k", 16),
    Job("4k random write, one at a time", "us", "randwrite", "4k", 1),
    Job("sequential read, 1 MiB", "MiB/s", "read", "1M", 1),
    Job("sequential write, 1 MiB", "MiB/s", "write", "1M", 1),
)
PEERS = {"/dev/vda": "devicevm", "/dev/vdb": "nbdkit on the host", "/dev/vdc": "virtio-blk on tmpfs"}


def run(stage: Stage, runs: int) -> Result:
    """The benchmark."""
    stage.build("base")
    stage.build_own("fio-client")
    with client(stage) as shell:
        sides = [lambda device=device: measure(shell, device) for device in PEERS]
        found = take_turns(runs, sides, say)
    ours, *others = found
    comparisons = [
        Comparison(job.what, job.unit, series(ours, job.what), series(peer, job.what), name, job.target * first)
        for job in JOBS
        for name, peer, first in zip(list(PEERS.values())[1:], others, (1, 0), strict=True)
    ]
    return Result("disk", "Disks", TEXT, tuple(comparisons))


def measure(shell: Shell, device: str, jobs: tuple[Job, ...] = JOBS) -> Figures:
    """Every job on one disk."""
    return {job.what: job.figure(json.loads(shell.run(job.command(device)))) for job in jobs}


@contextlib.contextmanager
def client(stage: Stage, change: dict[str, dict[str, Any]] | None = None) -> Iterator[Shell]:
    """A shell in a client that has the three disks. `change`: other values for fields of the domains, by role."""
    with tmpfs_file(SIZE) as raw, host_nbdkit(stage.folder, SIZE) as nbd:
        port = stage.folder / "shell"
        fragment = json.dumps(ElementTree.tostring(fragment_of(port, nbd, raw), encoding="unicode"))
        plan = stage.plan(stage.read("disk", MANIFEST.format(fragment=fragment)))
        try:
            stage.apply(changed(plan, change or {}))
            with contextlib.closing(Shell(port)) as shell:
                for device in PEERS:
                    shell.run(f"dd if=/dev/zero of={device} bs=1M count={SIZE >> 20} oflag=direct 2>/dev/null")
                yield shell
        finally:
            stage.clear()


def changed(plan: Plan, change: dict[str, dict[str, Any]]) -> Plan:
    """The plan with other values in its domains: to try what a device VM would do with other settings."""
    return replace(plan, domains=tuple(replace(spec, **change.get(spec.role.value, {})) for spec in plan.domains))


def fragment_of(port: Path, nbd: Path, raw: Path) -> Element:
    """What the client has besides: a shell's port, and the disks to compare with."""
    domain = Element("domain")
    devices = SubElement(domain, "devices")
    devices.append(shell_channel(port))
    devices.append(nbd_disk(nbd, "vdb"))
    file = SubElement(devices, "disk", type="file", device="disk")
    SubElement(file, "driver", name="qemu", type="raw", cache="writeback")
    SubElement(file, "source", file=str(raw))
    SubElement(file, "target", dev="vdc", bus="virtio")
    return domain


def shell_channel(port: Path) -> Element:
    """The port of a client's shell."""
    channel = Element("channel", type="unix")
    SubElement(channel, "source", mode="bind", path=str(port))
    SubElement(channel, "target", type="virtio", name="org.devicevm.shell")
    return channel


def nbd_disk(nbd: Path, target: str) -> Element:
    """A disk that the host's nbdkit serves."""
    network = Element("disk", type="network", device="disk")
    SubElement(network, "driver", name="qemu", type="raw", cache="none")
    source = SubElement(network, "source", protocol="nbd")
    SubElement(source, "host", transport="unix", socket=str(nbd))
    SubElement(network, "target", dev=target, bus="virtio")
    return network


@contextlib.contextmanager
def tmpfs_file(size: int) -> Iterator[Path]:
    """A raw file in memory."""
    handle, name = tempfile.mkstemp(prefix="dvb-", suffix=".raw", dir="/dev/shm")
    try:
        os.ftruncate(handle, size)
        os.close(handle)
        os.chmod(name, 0o666)  # noqa: S103 - QEMU runs as a user of its own
        yield Path(name)
    finally:
        os.unlink(name)


@contextlib.contextmanager
def host_nbdkit(folder: Path, size: int) -> Iterator[Path]:
    """nbdkit's memory plugin, as in the device VM but on the host."""
    path = folder / "nbd"
    command = ["nbdkit", "--foreground", "--exit-with-parent", "--unix", str(path), "memory", str(size)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 10
        while not path.exists():
            if time.monotonic() > deadline or process.poll() is not None:
                raise TimeoutError("nbdkit does not start")
            time.sleep(0.02)
        path.chmod(0o666)
        yield path
    finally:
        process.terminate()
        process.wait(10)
        path.unlink(missing_ok=True)
