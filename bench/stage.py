"""Where it is measured: an embedded VMM of its own, images in a store, and nothing left afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from devicevm.apply.outcome import Outcome
from devicevm.apply.progress import Progress
from devicevm.apply.workflow import Options, carry_out, plan_on, survey
from devicevm.cli.data import data
from devicevm.cli.imagebuild import build_one, recipes_of
from devicevm.cli.remains import remains_of
from devicevm.domain import DomainSpec
from devicevm.guest.apt import AptPackages
from devicevm.guest.architecture import architecture, build_architecture
from devicevm.guest.build import build_image
from devicevm.guest.image import Image
from devicevm.guest.recipe import parse_recipe
from devicevm.guest.store import ImageStore
from devicevm.manifest.read import read_images, read_topology
from devicevm.manifest.topology import Topology
from devicevm.planner.plan import Plan
from devicevm.planner.planner import Intent, make_plan
from devicevm.vmm.libvirt.driver import LibvirtDriver
from devicevm.vmm.registry import open_driver

HERE = Path(__file__).parent
OWNER = "bench"
UP = "devicevm-client: up"
"""What the client images' init writes to the console when it is there."""


@dataclass
class Stage:
    """An embedded VMM in a folder of its own. `accelerator` as the user chose it."""

    folder: Path
    images: Path
    accelerator: str

    @cached_property
    def driver(self) -> LibvirtDriver:
        """Opened when it is first needed: some benchmarks need no guests."""
        # QEMU runs as a user of its own, who must get at its files below.
        self.folder.chmod(0o711)
        uri = f"qemu:///embed?root={self.folder}/vmm"
        driver = open_driver(uri, images=self.images, accelerator=self.accelerator, wait=10)
        if not isinstance(driver, LibvirtDriver):
            raise TypeError(f"{uri} has no libvirt")
        return driver

    @cached_property
    def store(self) -> ImageStore:
        """The image store."""
        return ImageStore(self.images)

    def build(self, *names: str) -> None:
        """Build images that come with devicevm, or find them."""
        for recipe in (recipe for name in names for recipe in recipes_of(name)):
            build_one(recipe, self.store)

    def build_own(self, name: str) -> Image:
        """Build an image of the benchmarks' own: NAME.yaml here, programs below guest/."""
        sources = self.folder / "guest"
        if not sources.exists():
            shutil.copytree(data("guest"), sources)
            shutil.copytree(HERE / "guest", sources, dirs_exist_ok=True)
        (document,) = read_images([HERE / f"{name}.yaml"], schemas=data("schemas"))
        cache = Path("/var/cache/devicevm") if os.geteuid() == 0 else Path.home() / ".cache/devicevm"
        packages = AptPackages(cache / "apt", architecture(build_architecture()))
        return build_image(
            parse_recipe(document), sources=sources, store=self.store, cache=cache / "trees", packages=packages
        )

    def read(self, name: str, text: str) -> Topology:
        """What a manifest declares, through a file as users have it."""
        path = self.folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return topology_of(path)

    def plan(self, topology: Topology) -> Plan:
        """The plan from what there is now."""
        return plan_on(self.driver, topology, Intent(OWNER))

    def apply(self, plan: Plan, options: Options | None = None, progress: Progress | None = None) -> Outcome:
        """Carry a plan out; a failure ends the benchmark."""
        return applied(plan, self.driver, options, progress)

    def clear(self) -> None:
        """No domain any more, with everything that belongs to it."""
        for observed in self.driver.observe():
            self.driver.stop(observed.name)
            self.driver.undefine(observed.name)
        for domain in self.driver.connection.listAllDomains(0):
            if domain.isActive():
                domain.destroy()
            domain.undefine()

    def end_guests(self, runtime: str = "") -> list[str]:
        """Kill what processes of this stage there are; everything that was left of it, in words."""
        found = remains_of(self.folder, runtime)
        for item in found:
            kind, _, name = item.partition(" ")
            if kind == "process":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(name), signal.SIGKILL)
        return found

    def close(self) -> None:
        """End every guest, close the VMM, remove its folders; what is left all the same is told."""
        runtime = ""
        if "driver" in self.__dict__:
            runtime = str(self.driver.places.runtime)
            with contextlib.suppress(Exception):
                self.clear()
            self.driver.close()
        for item in self.end_guests(runtime):
            say(f"was left behind, now removed: {item}")
        for folder in filter(None, (str(self.folder), runtime)):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def make_stage(images: Path, accelerator: str) -> Iterator[Stage]:
    """A stage that leaves nothing, whatever happens. The path is short: libvirt puts sockets deep below it."""
    stage = Stage(Path(tempfile.mkdtemp(prefix="dvb-", dir="/tmp")), images, accelerator)
    try:
        yield stage
    finally:
        stage.close()


def topology_of(path: Path) -> Topology:
    """What the manifest at `path` declares."""
    return read_topology([path], schemas=data("schemas"), classes=data("classes"))


def applied(
    plan: Plan, driver: LibvirtDriver, options: Options | None = None, progress: Progress | None = None
) -> Outcome:
    """Carry a plan out; its first error is raised."""
    outcome = carry_out(plan, driver, driver.host(), options or Options(), progress or Progress())
    for error in outcome.errors.values():
        raise error
    return outcome


def whole_apply(path: Path, driver: LibvirtDriver, progress: Progress) -> tuple[Plan, dict[str, float]]:
    """What `devicevm apply PATH` does, and the seconds that each of its phases takes."""
    marks = [time.perf_counter()]
    topology = topology_of(path)
    marks.append(time.perf_counter())
    hosts, observed = survey(driver)
    marks.append(time.perf_counter())
    plan = make_plan(topology, hosts, observed, Intent(OWNER))
    marks.append(time.perf_counter())
    outcome = carry_out(plan, driver, hosts[0], Options(), progress)
    marks.append(time.perf_counter())
    for error in outcome.errors.values():
        raise error
    names = ("read", "survey", "plan", "carry out")
    spent = [after - before for before, after in itertools.pairwise(marks)]
    return plan, {"all": marks[-1] - marks[0], **dict(zip(names, spent, strict=True))}


def wait_up(driver: LibvirtDriver, specs: list[DomainSpec], seconds: float) -> None:
    """Return once each client's init has said that it is up; TimeoutError names those that have not."""
    deadline = time.monotonic() + seconds
    waiting = list(specs)
    while waiting := [spec for spec in waiting if not any(UP in line for line in driver.console_tail(spec, 100))]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not up: {', '.join(spec.name for spec in waiting)}")
        time.sleep(0.05)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
