"""The quickstart, from nothing to a client that uses its devices, on an embedded VMM of its own; and away again."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..apply.workflow import Options, plan_on
from ..domain import DomainSpec
from ..errors import DevicevmError
from ..guest.store import ImageStore
from ..health import check_health
from ..manifest.topology import Client, Topology
from ..planner.planner import Intent
from ..vmm.driver import Driver
from ..vmm.places import places_of
from . import output
from .carrying import Manner, carry
from .changes import summary
from .imagebuild import build_one, recipes_of
from .imageuse import is_current
from .interrupted import Interrupted, uninterrupted
from .opening import find_domain, open_vmm, specification, store_of
from .options import Vmm
from .remains import remains_of
from .statusview import show_health

OWNER = "demo"
IMAGES = ("base", "client")
PASSED, FAILED = "devicevm-demo: passed", "devicevm-demo: failed"
_ASK = "devicevm.run=demo"
_LINES = 200
_PAUSE = 0.2


@dataclass
class Demonstration:
    """One run. `images` and `accelerator` as the user chose them; `timeout` seconds for each wait."""

    vmm: Vmm
    topology: Topology
    timeout: float
    form: str
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="devicevm-demo-")))
    words: tuple[str, ...] = ()
    """What the client said of its devices."""
    left: list[str] = field(default_factory=list)
    """What is still there after the destroy, though it should not be."""
    runtime: str = ""

    @property
    def uri(self) -> str:
        """The embedded VMM."""
        return f"qemu:///embed?root={self.root}"

    def run(self, keep: bool) -> None:
        """Everything, in order; DevicevmError says what went wrong. Without `keep` nothing stays, whatever happens."""
        # QEMU runs as a user of its own, who must get at its files below.
        self.root.chmod(0o711)
        try:
            build_images(self.vmm)
            self._say(f"an embedded VMM in {self.root}: your own domains are not touched")
            with open_vmm(replace(self.vmm, uri=self.uri), self.timeout) as driver:
                self._with(driver, keep)
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(
                f"interrupted; {'everything stays as it is' if keep else 'everything is taken away again'}",
                hint=f"devicevm destroy --owner {OWNER} --connect '{self.uri}'" if keep else "",
            ) from None
        finally:
            if keep:
                self._say(f"everything stays, below {self.root}")
            else:
                with uninterrupted():
                    self._leave()
        if self.left:
            raise DevicevmError("the destroy was not complete", hint="please report this")

    def _leave(self) -> None:
        self.left += remains_of(self.root, self.runtime)
        # Said here, since an earlier failure may be on its way to the user.
        for item in self.left:
            output.error(f"left behind: {item}")
        for folder in (self.root, places_of(self.uri).runtime, places_of(self.uri).private):
            shutil.rmtree(folder, ignore_errors=True)

    def _with(self, driver: Driver, keep: bool) -> None:
        try:
            host = driver.host()
            self.runtime = host.vmm.runtime_dir
            self._apply(driver, "apply the quickstart")
            self.words = self._listen(driver)
            self._say("devices, as devicevm sees them")
            if self.form == "text":
                show_health(check_health(driver, host.vmm.supports, OWNER), host.vmm.uri, OWNER)
            self._unchanged(driver)
        finally:
            if not keep:
                with uninterrupted():
                    self._say("destroy")
                    self.left += destroy_all(driver, self._manner())

    def _apply(self, driver: Driver, title: str) -> None:
        self._say(title)
        plan = plan_on(driver, self.topology, Intent(OWNER))
        self._say(summary(plan))
        outcome = carry(plan, driver, driver.host(), self._manner())
        for error in outcome.errors.values():
            raise error

    def _unchanged(self, driver: Driver) -> None:
        self._say("apply once more")
        plan = plan_on(driver, self.topology, Intent(OWNER))
        if plan.changes:
            steps = ", ".join(f"{step.id}: {step.reason}" for step in plan.steps)
            raise DevicevmError(f"a second apply would change something: {steps}", hint="please report this")
        self._say(summary(plan))

    def _listen(self, driver: Driver) -> tuple[str, ...]:
        """The client's own lines, once it has given its verdict."""
        spec = specification(find_domain(driver, self.topology.clients[0].name))
        self._say(f"the client {spec.name} boots a stock kernel and uses its devices; it says:")
        words = wait_for_verdict(driver, spec, time.monotonic() + self.timeout)
        for line in words if self.form == "text" else ():
            output.line(f"    {line}")
        if not any(PASSED in line for line in words):
            raise DevicevmError("the client could not use its devices", hint="with --keep everything stays, to look at")
        return words

    def _manner(self) -> Manner:
        return Manner(True, self.form, Options(timeout=self.timeout))

    def _say(self, text: str) -> None:
        output.note(f"-- {text}", "bold")


def build_images(vmm: Vmm) -> None:
    """Build the images that the quickstart boots, unless they are there and of this version of devicevm."""
    store = ImageStore(store_of(vmm))
    for recipe in (recipe for name in IMAGES for recipe in recipes_of(name)):
        try:
            build_one(recipe, store)
        except DevicevmError as error:
            # Without a network, say. What was built before will do, most likely.
            if recipe.name not in {image.name for image in store.list() if is_current(store, image)}:
                raise
            output.warning(f"image {recipe.name} is taken as it is: {error.message.splitlines()[0]}")


def demo_topology(topology: Topology) -> Topology:
    """The quickstart, its client told to try its devices as soon as it is up."""
    return replace(topology, clients=tuple(map(_asked, topology.clients)))


def _asked(client: Client) -> Client:
    line = client.boot.command_line
    if _ASK in line or client.vm is None:
        return client
    boot = replace(client.boot, command_line=f"{line} {_ASK}".strip())
    return replace(client, vm=replace(client.vm, boot=boot))


def wait_for_verdict(driver: Driver, spec: DomainSpec, deadline: float) -> tuple[str, ...]:
    """The client's console up to its verdict; DevicevmError when there is none by the `time.monotonic()` deadline."""
    while True:
        lines = driver.console_tail(spec, _LINES)
        if any(PASSED in line or FAILED in line for line in lines):
            return lines
        if time.monotonic() >= deadline or not driver.is_active(spec.name):
            tail = "\n".join(f"    {line}" for line in lines[-12:]) or "    (nothing)"
            raise DevicevmError(
                f"{spec.name} gave no verdict; its console's last lines:\n{tail}", hint="give it more --timeout"
            )
        time.sleep(_PAUSE)


def destroy_all(driver: Driver, manner: Manner) -> list[str]:
    """Destroy everything on the demonstration's own VMM; what is left all the same."""
    try:
        plan = plan_on(driver, Topology(), Intent(OWNER, prune=True, delete_data=True))
        if plan.changes:
            carry(plan, driver, driver.host(), manner)
    except DevicevmError as error:
        output.error(error.message, error.hint)
    left = []
    for name in sorted(driver.domain_names()):
        left.append(f"domain {name}")
        # Not by plan, but away: it is a VMM of our own.
        with contextlib.suppress(DevicevmError):
            driver.stop(name)
            driver.undefine(name)
    return left
