"""From the beginning of an apply until a running domain can use the disk that it is given."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from devicevm.apply.progress import Progress

from .disk import host_nbdkit, nbd_disk, shell_channel
from .measuring import Comparison, Figures, Result, parts_of, series, take_turns
from .shell import Shell
from .stage import Stage, say, topology_of, whole_apply
from .ten_clients import plain

TEXT = """\
A domain that runs, and is not devicevm's, is given a second disk: `apply` begins with a changed manifest, the device VM
that serves the first one, and has room for it, is given one more, and it ends when the guest's shell, which tries all
the time, has read 4 KiB of it. Against it: libvirt-python attaches the disk of an nbdkit on the host, which runs
already, by the same XML."""
DOMAIN = """\
apiVersion: devicevm/v1
kind: Client
metadata: {{name: user}}
spec:
  vm: {{memory: 192MiB, machine: pc, boot: {{guestImage: client}}, domainXML: {fragment}}}
"""
MANIFEST = """\
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: storage}
spec: {serves: {classes: [disk]}, memory: 256MiB}
---
apiVersion: devicevm/v1
kind: Client
metadata: {name: given}
spec:
  existing: {domain: user}
  devices:
    - {name: data, class: disk, parameters: {size: 16MiB}}
"""
MORE = "    - {name: more, class: disk, parameters: {size: 16MiB}}\n"
USED = "until dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; do sleep 0.01; done"
GONE = "while test -b /dev/vdb; do sleep 0.01; done"


def run(stage: Stage, runs: int) -> Result:
    """The benchmark."""
    stage.build("base", "client")
    port = stage.folder / "shell"
    make_domain(stage, port)
    paths = {name: stage.folder / f"{name}.yaml" for name in ("before", "after")}
    paths["before"].write_text(MANIFEST)
    paths["after"].write_text(MANIFEST + MORE)
    with host_nbdkit(stage.folder, 16 * 2**20) as nbd:
        stage.apply(stage.plan(topology_of(paths["before"])))
        try:
            with contextlib.closing(Shell(port)) as shell:
                sides = (lambda: ours(stage, shell, paths), lambda: theirs(stage, shell, nbd))
                found, peers = take_turns(runs, sides, say)
        finally:
            stage.clear()
    compared = Comparison("attached and read", "s", series(found, "usable"), series(peers, "usable"), "libvirt-python")
    return Result("attach", "A disk for a domain that runs", TEXT, (compared,), parts_of(found, "s"))


def make_domain(stage: Stage, port: Path) -> None:
    """A domain that is not devicevm's, and runs: it boots as one of devicevm's clients would."""
    fragment = ElementTree.Element("domain")
    ElementTree.SubElement(fragment, "devices").append(shell_channel(port))
    text = json.dumps(ElementTree.tostring(fragment, encoding="unicode"))
    (spec,) = stage.plan(stage.read("domain", DOMAIN.format(fragment=text))).domains
    stage.driver.prepare(spec)
    stage.driver.connection.defineXML(plain(stage.driver.render(spec))).create()


def ours(stage: Stage, shell: Shell, paths: dict[str, Path]) -> Figures:
    """Apply; then all is as it was."""
    phases: Figures = {}

    def give() -> None:
        phases.update(whole_apply(paths["after"], stage.driver, Progress())[1])

    usable = timed(shell, give)
    phases["applied"] = phases.pop("all")
    whole_apply(paths["before"], stage.driver, Progress())
    shell.run(GONE)
    return {"usable": usable, **phases}


def theirs(stage: Stage, shell: Shell, nbd: Path) -> Figures:
    """libvirt alone; then all is as it was."""
    libvirt, domain = stage.driver.libvirt, stage.driver.connection.lookupByName("user")
    xml = ElementTree.tostring(nbd_disk(nbd, "vdb"), encoding="unicode")
    usable = timed(shell, lambda: domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE))
    domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    shell.run(GONE)
    return {"usable": usable}


def timed(shell: Shell, give: Callable[[], object]) -> float:
    """Seconds from the beginning of `give` until the guest has read from the disk."""

    def read() -> float:
        shell.run(USED)
        return time.perf_counter()

    with ThreadPoolExecutor(max_workers=1) as pool:
        reading = pool.submit(read)
        begun = time.perf_counter()
        give()
        return reading.result() - begun
