"""An apply that finds 200 domains as declared, against listing them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devicevm.apply.progress import Progress
from devicevm.apply.workflow import survey
from devicevm.planner.planner import Intent, make_plan
from devicevm.vmm.libvirt.driver import LibvirtDriver
from devicevm.vmm.registry import open_driver

from .measuring import Comparison, Figures, Result, parts_of, series, take_turns
from .stage import OWNER, Stage, applied, say, topology_of, whole_apply

CLIENTS = 100
TEXT = f"""\
{CLIENTS} clients with a device VM each run as declared, on libvirt's test driver; `apply` reads the manifests and the
VMM and finds nothing to do. In one process: all of `apply` against listing the domains and reading their XML (live and
inactive, as `apply` does). As a command, on a private libvirtd that serves the test driver: `devicevm apply` against a
Python process that imports libvirt, lists the domains and reads their XML. The devices are small ones of a class of the
benchmark's own, so that 200 domains fit into the host that the test driver plays."""
MANIFEST = """\
apiVersion: devicevm/v1
kind: DeviceClass
metadata: {name: small}
spec:
  protocol: nbd
  frontends: [virtio-blk]
  channels: [stream]
  image: base
  program: {command: [nbdkit, --single, memory, 1M], ready: nbd, onExit: poweroff}
  memory: {base: 4MiB, perDevice: 1MiB}
  resources:
    - thread: {count: 1}
"""
CLIENT = """\
---
apiVersion: devicevm/v1
kind: Client
metadata: {{name: client-{number:03}}}
spec:
  vm: {{memory: 2MiB, boot: {{guestImage: client}}}}
  devices: [{{name: data, class: small}}]
"""
PEER = """\
import sys, libvirt
for domain in libvirt.open(sys.argv[1]).listAllDomains(0):
    domain.XMLDesc(0), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
"""
SETTINGS = """\
unix_sock_dir = "{folder}"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "4:file:/dev/null"
"""


def run(stage: Stage, runs: int) -> Result:
    """The benchmark."""
    stage.build("base", "client")
    path = stage.folder / "many.yaml"
    path.write_text(MANIFEST + "".join(CLIENT.format(number=number) for number in range(CLIENTS)), encoding="utf-8")
    with private_libvirtd(stage.folder) as uri, open_driver(uri, images=stage.images) as driver:
        if not isinstance(driver, LibvirtDriver):
            raise TypeError(uri)
        _fill(path, driver)
        command = (lambda: apply_command(path, uri, stage.images), lambda: timed([sys.executable, "-c", PEER, uri]))
        outside = take_turns(runs, command, say)
    with open_driver("test:///default", images=stage.images) as driver:
        if not isinstance(driver, LibvirtDriver):
            raise TypeError("test")
        _fill(path, driver)
        inside = take_turns(runs, (lambda: apply_here(path, driver), lambda: list_here(driver)), say)
    names = ("in one process", "as a command")
    return Result(
        "nochange",
        f"Nothing to change among {2 * CLIENTS} domains",
        TEXT,
        tuple(
            Comparison(name, "s", series(ours, "all"), series(theirs, "all"), "listing and reading XML")
            for name, (ours, theirs) in zip(names, (inside, outside), strict=True)
        ),
        parts_of(inside[0], "s", "in one process: "),
    )


def _fill(path: Path, driver: LibvirtDriver) -> None:
    # The test driver comes with a domain that takes most of its memory.
    somebodys = driver.connection.lookupByName("test")
    somebodys.destroy()
    somebodys.undefine()
    hosts, observed = survey(driver)
    plan = make_plan(topology_of(path), hosts, observed, Intent(OWNER))
    applied(plan, driver)


def apply_here(path: Path, driver: LibvirtDriver) -> Figures:
    """The whole way, in this process."""
    plan, phases = whole_apply(path, driver, Progress())
    if plan.changes:
        raise AssertionError(f"{plan.steps[0].id}: {plan.steps[0].reason}")
    begun = time.perf_counter()
    driver.host()
    return {**phases, "of survey: inventory": time.perf_counter() - begun}


def list_here(driver: LibvirtDriver) -> Figures:
    """What cannot be avoided."""
    begun = time.perf_counter()
    for domain in driver.connection.listAllDomains(0):
        domain.XMLDesc(0)
        domain.XMLDesc(driver.libvirt.VIR_DOMAIN_XML_INACTIVE)
    return {"all": time.perf_counter() - begun}


def apply_command(path: Path, uri: str, images: Path) -> Figures:
    """The command, as users start it."""
    command = [sys.executable, "-m", "devicevm.cli", "apply", "--owner", OWNER, "--connect", uri]
    return timed([*command, "--images", str(images), str(path)])


def timed(command: list[str]) -> Figures:
    """Seconds of a process that must succeed."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"all": time.perf_counter() - begun}


@contextmanager
def private_libvirtd(folder: Path) -> Iterator[str]:
    """A libvirtd of our own; the URI of its test driver, whose domains live as long as somebody is connected."""
    place = Path(tempfile.mkdtemp(dir=folder))
    (place / "conf").write_text(SETTINGS.format(folder=place), encoding="utf-8")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin", "XDG_RUNTIME_DIR": str(place)}
    daemon = subprocess.Popen(
        ["libvirtd", "--config", place / "conf", "--pid-file", place / "pid"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not (place / "libvirt-sock").exists():
            if time.monotonic() > deadline or daemon.poll() is not None:
                raise TimeoutError("libvirtd does not start")
            time.sleep(0.05)
        yield f"test+unix:///default?socket={place}/libvirt-sock"
    finally:
        daemon.terminate()
        daemon.wait(20)
