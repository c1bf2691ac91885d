"""How the planner's time and memory grow: fleets from ten clients to ten thousand.

Each figure is of a process of its own, so that its peak memory is its own, too: this module is that process as well
(`python -m bench.scale CASE CLIENTS FOLDER`). What a case begins with is made before and read from a file.
"""

from __future__ import annotations

import gc
import json
import pickle
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from devicevm.domain import DomainSpec, ObservedDomain
from devicevm.inventory.host import Holding, Host
from devicevm.manifest.topology import Topology
from devicevm.planner.plan import Action, Plan
from devicevm.planner.planner import Intent, make_plan
from devicevm.vmm.libvirt.metadata import read, unqualified

from .fleets import ROOMY, Fleet, make_fleet
from .measuring import Comparison, Figures, Growth, Line, Part, Result, Series
from .stage import OWNER, Stage, say

SIZES = {10: 3, 100: 10, 1000: 100, 10000: 1000}
"""Clients -> hosts; a client has three devices on average."""
CASES = {
    "full": "a plan of everything",
    "again": "a plan when nothing is to do",
    "one-more": "a plan of one more client",
}
TARGETS = {"full": 10.0, "again": 10.0, "one-more": 1.0}
"""Seconds, at the largest size."""
TARGET_MEMORY = 1024.0
"""MiB, at the largest size."""
LIMIT = 300.0
"""Seconds after which a case is stopped."""
SEED = 1
REPO = Path(__file__).resolve().parent.parent
TEXT = """\
`make_plan` alone, on fleets from a seed (bench/fleets.py): up to 1,000 hosts and 10,000 clients with 30,000 devices.
Nothing runs: what a plan promises is taken to be there, read back from the metadata that its domains would have.
Reading that, with its digests, is observing, and reading manifests is not planning: neither is in the figures. Each
figure is of a process of its own; peak memory is that of the whole process (`ru_maxrss`), with Python, the fleet and
what is there. The targets are limits in seconds and MiB, so a ratio is the part of the limit that is used. The plot
shows seconds by clients; broken lines are the targets."""


@dataclass(frozen=True)
class State:
    """What `make_plan` is given."""

    topology: Topology
    hosts: tuple[Host, ...]
    observed: tuple[ObservedDomain, ...] = ()

    def plan(self) -> Plan:
        """The plan from here."""
        return make_plan(self.topology, self.hosts, self.observed, Intent(OWNER))


def applied(fleet: Fleet, plan: Plan) -> State:
    """What is there after the first plan of a fleet: every domain as the plan says it, running."""
    strange = {step.action for step in plan.steps} - {Action.DEFINE, Action.START}
    if strange:
        raise ValueError(f"a first plan only defines and starts, this one also has {sorted(strange)}")
    observed = tuple(_observed(spec) for spec in sorted(plan.domains, key=lambda spec: spec.name))
    held: dict[str, list[Holding]] = {host.name: [] for host in fleet.hosts}
    for spec in plan.domains:
        held[spec.host].append(_holding(spec))
    hosts = tuple(replace(host, holdings=tuple(held[host.name])) for host in fleet.hosts)
    return State(fleet.topology, hosts, observed)


def with_one_more(state: State) -> State:
    """The same with a client declared that is not there: like one that is, under a name of its own."""
    like = state.topology.clients[len(state.topology.clients) // 2]
    clients = (*state.topology.clients, replace(like, name="one-more"))
    return replace(state, topology=replace(state.topology, clients=clients))


def run(stage: Stage, runs: int) -> Result:
    """The benchmark."""
    found: dict[tuple[str, int], list[Figures]] = {}
    stopped: list[str] = []
    for clients in SIZES:
        for case, name in CASES.items():
            # The others begin where the full plan ends.
            if case != "full" and ("full", clients) not in found:
                continue
            figures = []
            for _ in range(runs):
                one = measure(case, clients, stage.folder)
                if not one:
                    stopped.append(f"{name} of {clients:,} clients was stopped after {LIMIT:g} s")
                    break
                figures.append(one)
            if figures:
                found[case, clients] = figures
                say(
                    f"{clients} clients, {case}: "
                    + ", ".join(f"{key} {value:.4g}" for key, value in figures[-1].items())
                )
    text = TEXT + "".join(f" Not reached: {what}." for what in stopped)
    growth = Growth("clients", "seconds", _lines(found))
    title = "The planner on large fleets"
    return Result("scale", title, text, against_targets(found), _parts(found), growth=growth)


def measure(case: str, clients: int, folder: Path) -> Figures:
    """Seconds, MiB and counts of one case in a process of its own; empty when it was stopped."""
    command = [sys.executable, "-m", "bench.scale", case, str(clients), str(folder)]
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=LIMIT, cwd=REPO)
    except subprocess.TimeoutExpired:
        return {}
    return dict(json.loads(done.stdout))


def main(case: str, clients: int, folder: Path) -> int:
    """What `measure` starts. The full case leaves what the others begin with in `folder`."""
    fleet = make_fleet(SEED, SIZES[clients], clients, ROOMY)
    kept = folder / f"applied-{clients}.pickle"
    state = State(fleet.topology, fleet.hosts) if case == "full" else _read(kept)
    if case == "one-more":
        state = with_one_more(state)
    before = _peak()
    gc.collect()
    begun = time.perf_counter()
    plan = state.plan()
    seconds = time.perf_counter() - begun
    peak = _peak()
    if case == "again" and plan.changes:
        raise AssertionError(f"{plan.steps[0].id}: {plan.steps[0].reason}")
    if case == "one-more" and {step.name for step in plan.steps if step.kind == "client"} != {"one-more"}:
        raise AssertionError("one more client changes others")
    if case == "full":
        with kept.open("wb") as file:
            pickle.dump(applied(fleet, plan), file)
    unplaced = len({item.client for item in plan.unplaced})
    figures = {"seconds": seconds, "MiB": peak, "MiB before": before, "steps": plan.changes, "unplaced": unplaced}
    print(json.dumps(figures))
    return 0


def _read(kept: Path) -> State:
    with kept.open("rb") as file:
        # Written by ourselves a moment ago.
        state: State = pickle.load(file)  # noqa: S301
    return state


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _observed(spec: DomainSpec) -> ObservedDomain:
    """A domain that runs, as a driver reads it from its metadata."""
    kept = read(unqualified(spec), spec.name, spec.uuid)
    return ObservedDomain(spec.name, spec.uuid, kept.owner, kept.role, True, kept.spec, kept.spec, broken=kept.broken)


def _holding(spec: DomainSpec) -> Holding:
    placement = spec.placement
    # CPUs that are kept empty beside those in use are held, too, where the planner has such.
    pins = (*placement.vcpus, placement.idle)
    cpus = tuple(sorted({cpu for pin in pins for cpu in pin}))
    return Holding(
        domain=spec.name,
        uuid=spec.uuid,
        active=True,
        vcpus=spec.vcpus,
        memory=spec.memory,
        cpus=cpus,
        floats=not cpus,
        dedicated=placement.dedicated,
        nodes=placement.nodes,
        owner=spec.owner,
    )


def against_targets(found: dict[tuple[str, int], list[Figures]]) -> tuple[Comparison, ...]:
    """The largest size against the limits."""
    largest = max(SIZES)
    result = []
    for case, name in CASES.items():
        if (case, largest) not in found:
            # Stopped, or what it begins with was: it is not below its target.
            what = f"{largest:,} clients: {name} (not reached)"
            result.append(Comparison(what, "s", Series((LIMIT,)), Series((TARGETS[case],)), "the target", 1.0))
        for key, unit, limit in (("seconds", "s", TARGETS[case]), ("MiB", "MiB", TARGET_MEMORY)):
            if figures := found.get((case, largest)):
                ours = Series(tuple(figure[key] for figure in figures))
                what = f"{largest:,} clients: {name}{', peak memory' if key == 'MiB' else ''}"
                result.append(Comparison(what, unit, ours, Series((limit,) * len(figures)), "the target", 1.0))
    return tuple(result)


def _parts(found: dict[tuple[str, int], list[Figures]]) -> tuple[Part, ...]:
    result = []
    for (case, clients), figures in found.items():
        what = f"{clients:,} clients on {SIZES[clients]:,} hosts: {CASES[case]}"
        result.append(Part(what, "s", Series(tuple(figure["seconds"] for figure in figures))))
        result.append(Part(f"{what}, peak memory", "MiB", Series(tuple(figure["MiB"] for figure in figures))))
        if figures[0]["unplaced"]:
            result.append(Part(f"{what}, not placed", "clients", Series((figures[0]["unplaced"],))))
    return tuple(result)


def _lines(found: dict[tuple[str, int], list[Figures]]) -> tuple[Line, ...]:
    result = []
    for case, name in CASES.items():
        points = [
            (float(clients), Series(tuple(figure["seconds"] for figure in found[case, clients])).median)
            for clients in SIZES
            if (case, clients) in found
        ]
        if points:
            result.append(Line(name, tuple(points), TARGETS[case]))
    return tuple(result)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
