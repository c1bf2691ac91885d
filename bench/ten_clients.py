"""Ten clients with a disk and random numbers each, applied, against libvirt-python creating the same domains."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from devicevm.apply.progress import Progress
from devicevm.apply.workflow import Options
from devicevm.domain import DomainSpec, Role
from devicevm.planner.plan import Plan, Step

from .measuring import Comparison, Figures, Result, parts_of, series, take_turns
from .stage import Stage, say, wait_up, whole_apply

CLIENTS = 10
TARGET = 1.15
LIMIT = 300.0
TEXT = """\
Ten clients boot a stock kernel, each with a disk and a random number generator: once with a device VM for each client,
once with one device VM for all. devicevm reads the manifest, surveys the host, plans, and carries the plan out, which
ends when every device VM has answered its probes and every client is started. Against it: libvirt-python defines
and creates the same domains from the same XML (without devicevm's metadata), as many at a time, each client after its
device VM, and asks nobody whether anything works. A second pair of figures goes on until every client's init runs."""
CLIENT = """\
apiVersion: devicevm/v1
kind: Client
metadata: {{name: client-{number:02}}}
spec:
  vm: {{memory: 192MiB, boot: {{guestImage: client}}}}
  devices:
    - {{name: data, class: disk, parameters: {{size: 16MiB}}}}
    - {{name: entropy, class: rng}}
"""
SHARED = """\
apiVersion: devicevm/v1
kind: DeviceVM
metadata: {name: shared}
spec:
  serves: {classes: [disk, rng]}
  share: {scope: trustDomain, maxDevices: 32}
"""


class Clock(Progress):
    """When each step began and how long it took, in seconds."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def done(self, step: Step, seconds: float) -> None:
        self.spent[f"{step.action.value} {step.kind.value}"] = (
            self.spent.get(f"{step.action.value} {step.kind.value}", 0.0) + seconds
        )


def run(stage: Stage, runs: int) -> Result:
    """The benchmark."""
    stage.build("base", "client")
    own = _variant(stage, runs, "a device VM for each", manifest(shared=False))
    shared = _variant(stage, runs, "one device VM for all", manifest(shared=True))
    return Result(
        "apply", f"Applying {CLIENTS} clients", TEXT, own.comparisons + shared.comparisons, own.parts + shared.parts
    )


def manifest(shared: bool) -> str:
    """The documents."""
    clients = [CLIENT.format(number=number) for number in range(CLIENTS)]
    return "---\n".join([*([SHARED] if shared else []), *clients])


def _variant(stage: Stage, runs: int, title: str, text: str) -> Result:
    say(title)
    plan = stage.plan(stage.read("ten", text))
    path = stage.folder / "ten.yaml"
    stage.driver.define(plan.domains[0])  # libvirt's first domain takes it seconds
    stage.clear()
    sides = (lambda: watched(stage, lambda: apply(stage, path)), lambda: watched(stage, lambda: create(stage, plan)))
    try:
        ours, theirs = take_turns(runs, sides, say, warm=False)
    finally:
        stage.clear()
    comparisons = [
        Comparison(f"{title}: {what}", "s", series(ours, what), series(theirs, what), "libvirt-python", target)
        for what, target in (("applied", TARGET), ("clients are up", 0.0))
    ]
    return Result("", "", "", tuple(comparisons), parts_of(ours, "s", f"{title}: "))


def watched(stage: Stage, side: Callable[[], Figures]) -> Figures:
    """One side; what hangs (a client's VMM that gets no answer from its disk, say) fails when its guests are ended."""
    watch = threading.Timer(LIMIT, stage.end_guests)
    watch.start()
    try:
        return side()
    finally:
        watch.cancel()


def apply(stage: Stage, path: Path) -> Figures:
    """The whole way, then everything away again."""
    clock = Clock()
    begun = time.perf_counter()
    plan, phases = whole_apply(path, stage.driver, clock)
    wait_up(stage.driver, _clients(plan), LIMIT)
    up = time.perf_counter() - begun
    stage.clear()
    steps = {f"steps, added up: {name}": seconds for name, seconds in clock.spent.items()}
    return {"applied": phases.pop("all"), "clients are up": up, **phases, **steps}


def create(stage: Stage, plan: Plan) -> Figures:
    """Libvirt alone: the plan's domains and their order, and nothing else of it."""
    for spec in plan.domains:
        stage.driver.prepare(spec)
    texts = {spec.name: plain(stage.driver.render(spec)) for spec in plan.domains}
    begun = time.perf_counter()
    with ThreadPoolExecutor(max_workers=Options().parallel) as pool:
        device_vms: dict[str, Future[None]] = {}
        for spec in plan.domains:
            if spec.role is Role.DEVICE_VM:
                device_vms[spec.name] = pool.submit(_create, stage, texts[spec.name])
        waiting = _clients(plan)
        clients = []
        while waiting:
            ready = [spec for spec in waiting if all(device_vms[name].done() for name in _homes(spec))]
            waiting = [spec for spec in waiting if spec not in ready]
            clients += [pool.submit(_create, stage, texts[spec.name]) for spec in ready]
            time.sleep(0.005)
        for future in [*device_vms.values(), *clients]:
            future.result()
    created = time.perf_counter() - begun
    wait_up(stage.driver, _clients(plan), LIMIT)
    up = time.perf_counter() - begun
    stage.clear()
    return {"applied": created, "clients are up": up}


def _create(stage: Stage, text: str) -> None:
    stage.driver.connection.defineXML(text).create()


def _clients(plan: Plan) -> list[DomainSpec]:
    return [spec for spec in plan.domains if spec.role is Role.CLIENT]


def _homes(spec: DomainSpec) -> set[str]:
    return {attachment.device_vm for attachment in spec.attachments}


def plain(text: str) -> str:
    """A domain's XML without what only devicevm reads."""
    domain = ElementTree.fromstring(text)
    for tag in ("metadata", "title", "description"):
        for item in domain.findall(tag):
            domain.remove(item)
    return ElementTree.tostring(domain, encoding="unicode")
