"""How many clients fit at most, by OR-Tools' CP-SAT, against how many the planner places.

A client fits with all its device VMs on one host. What counts is what inventory/free.py counts: memory, CPUs that
somebody has to himself, vCPUs pinned to each shared CPU, and vCPUs on the shared CPUs together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from devicevm.domain import DomainSpec
from devicevm.inventory.host import Host
from devicevm.manifest.topology import Client, DeviceClass, HostPolicy, Topology
from devicevm.planner.planner import Intent, make_plan

from .fleets import MIB, SCARCE, Fleet, make_fleet
from .measuring import Comparison, Part, Result, Series
from .stage import OWNER, Stage, say

HOSTS = (2, 3, 4)
CLIENTS = range(8, 15)
TARGET = 3.0
"""% of the clients that could be placed which the planner may leave out."""
SOLVER_SECONDS = 30.0
MEMORY_STEP = 32 * MIB
"""What device VMs' memory is rounded up to (docs/classes.md)."""
TEXT = """\
Fleets from seeds, of 2 to 4 hosts with 8 to 14 clients that want more than there is (bench/fleets.py: SCARCE).
OR-Tools' CP-SAT finds how many clients fit at most, each with its device VMs on one host, and proves it; the planner is
asked the same. A fleet in which all clients fit says nothing and is left out."""


@dataclass(frozen=True)
class Demand:
    """What a client and its device VMs ask of a host together. Memory in bytes.

    `cores` and `threads` are to be had alone; `shared` counts the vCPUs pinned to shared CPUs, of which the widest
    device VM needs `widest` different ones; `floating` are the client's own vCPUs.
    """

    memory: int
    floating: int
    cores: int = 0
    threads: int = 0
    shared: int = 0
    widest: int = 0


@dataclass(frozen=True)
class Room:
    """What a host has: CPUs in cores of equally many, memory in bytes, and vCPUs to a shared CPU."""

    cores: int
    threads_per_core: int
    memory: int
    overcommit: float


def demand_of(client: Client, classes: dict[str, DeviceClass]) -> Demand:
    """Devices of one client that ask for the same resources are in one device VM."""
    units: dict[tuple[object, ...], list[DeviceClass]] = {}
    for device in client.devices:
        class_ = classes[device.class_]
        units.setdefault(tuple((one.kind, one.count, one.dedicated) for one in class_.resources[0]), []).append(class_)
    memory, cores, threads, shared, widest = client.memory, 0, 0, 0, 0
    for members in units.values():
        needed = max(one.memory.base for one in members) + sum(one.memory.per_device for one in members)
        memory += -(-needed // MEMORY_STEP) * MEMORY_STEP
        (request,) = members[0].resources[0]
        if request.kind == "core":
            cores += request.count
        elif request.dedicated:
            threads += request.count
        else:
            shared += request.count
            widest = max(widest, request.count)
    return Demand(memory, client.vcpus, cores, threads, shared, widest)


def room_of(host: Host, policy: HostPolicy) -> Room:
    """A host on which nothing runs and nothing is reserved."""
    (threads,) = {len(cpu.siblings) for cpu in host.cpus}
    return Room(len(host.cpus) // threads, threads, host.memory, policy.cpu_overcommit)


def most_that_fit(demands: list[Demand], rooms: list[Room], seconds: float = SOLVER_SECONDS) -> int:
    """How many of the demands the rooms can hold at most, proved; -1 when there was no proof in time.

    The CPUs of a host need no numbers, since its cores are alike. Whole cores can be had when so many are left over by
    the rest, however that lies. Shared vCPUs can be pinned to a number of CPUs when these have the places and the
    widest device VM finds enough different ones: dealt out in turn, none gets two of one device VM.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    here = [[model.new_bool_var(f"{c}@{h}") for h in range(len(rooms))] for c in range(len(demands))]
    for row in here:
        model.add_at_most_one(row)
    for h, room in enumerate(rooms):
        placed = [(row[h], demand) for row, demand in zip(here, demands, strict=True)]
        cpus = room.cores * room.threads_per_core
        pinned = model.new_int_var(0, cpus, f"shared CPUs of {h}")
        # In MiB, so that sums stay small.
        model.add(sum(on * -(-demand.memory // MIB) for on, demand in placed) <= room.memory // MIB)
        whole = sum(on * demand.cores for on, demand in placed)
        single = sum(on * demand.threads for on, demand in placed)
        shared = sum(on * demand.shared for on, demand in placed)
        model.add(whole * room.threads_per_core + single + pinned <= cpus)
        model.add(shared <= int(room.overcommit) * pinned)
        for on, demand in placed:
            model.add(pinned >= demand.widest * on)
        left = cpus - whole * room.threads_per_core - single
        floating = sum(on * demand.floating for on, demand in placed)
        # Tenths: the overcommit may be a fraction.
        model.add(10 * (shared + floating) <= round(10 * room.overcommit) * left)
    model.maximize(sum(on for row in here for on in row))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    # The solver would leave Ctrl-C without Python's handler.
    solver.parameters.catch_sigint_signal = False
    solver.parameters.random_seed = 0
    solver.parameters.max_time_in_seconds = seconds
    return round(solver.objective_value) if solver.solve(model) == cp_model.OPTIMAL else -1


def fits(demands: list[Demand], room: Room) -> bool:
    """Whether a host holds these demands together: the rules of `most_that_fit` for one host."""
    cpus = room.cores * room.threads_per_core
    shared = sum(demand.shared for demand in demands)
    pinned = max([-(-shared // int(room.overcommit)), *(demand.widest for demand in demands)])
    alone = sum(demand.cores * room.threads_per_core + demand.threads for demand in demands)
    return (
        sum(demand.memory for demand in demands) <= room.memory
        and alone + pinned <= cpus
        and shared + sum(demand.floating for demand in demands) <= room.overcommit * (cpus - alone)
    )


def first_fit(demands: list[Demand], rooms: list[Room]) -> int:
    """How many are placed one by one on the first host that has room, when CPUs are counted and not chosen."""
    held: list[list[Demand]] = [[] for _ in rooms]
    for demand in demands:
        here = next((one for one, room in zip(held, rooms, strict=True) if fits([*one, demand], room)), None)
        if here is not None:
            here.append(demand)
    return sum(map(len, held))


@dataclass(frozen=True)
class Outcome:
    """One fleet: how many of its clients fit, are placed as declared, and are placed in another order.

    `counted`: how many `first_fit` places, as declared.
    """

    seed: int
    clients: int
    optimum: int
    placed: int
    counted: int
    by_order: dict[str, int]
    broken: tuple[str, ...]
    """Where the plan holds more than a host has, by the rules of the model."""

    @property
    def short(self) -> int:
        """How many more would fit."""
        return max(0, self.optimum - self.placed)

    @property
    def why(self) -> str:
        """What the missing ones are missing for: what would have helped, the plainest first."""
        if self.placed < self.counted:
            return "CPUs were chosen so that others no longer fit"
        if self.by_order["smallest first"] >= self.optimum:
            return "large clients came first: taken smallest first, all that fit are placed"
        return "what is placed is not moved for what comes later, and no simple order helps"


def examine(seed: int) -> Outcome:
    """The planner and the solver on one fleet."""
    fleet = make_fleet(seed, HOSTS[seed % len(HOSTS)], CLIENTS[seed // len(HOSTS) % len(CLIENTS)], SCARCE)
    classes = {one.name: one for one in fleet.topology.classes}
    demands = [demand_of(client, classes) for client in fleet.topology.clients]
    policies = {policy.name: policy for policy in fleet.topology.hosts}
    rooms = [room_of(host, policies[host.name]) for host in fleet.hosts]
    optimum = most_that_fit(demands, rooms)
    placed, broken = place(fleet)
    orders: dict[str, Callable[[Client], tuple[float, ...]]] = {
        "smallest first": lambda client: (share(fleet, client),),
        "largest first": lambda client: (-share(fleet, client),),
    }
    by_order = {name: place(in_order(fleet, key))[0] for name, key in orders.items()}
    return Outcome(seed, len(demands), optimum, placed, first_fit(demands, rooms), by_order, broken)


def place(fleet: Fleet) -> tuple[int, tuple[str, ...]]:
    """How many clients the planner places, and what of its plan is more than a host has."""
    plan = make_plan(fleet.topology, fleet.hosts, (), Intent(OWNER))
    left_out = {item.client for item in plan.unplaced}
    policies = {policy.name: policy for policy in fleet.topology.hosts}
    broken = [
        f"{host.name}: {what}"
        for host in fleet.hosts
        for what in excess(host, policies[host.name], [spec for spec in plan.domains if spec.host == host.name])
    ]
    return len(fleet.topology.clients) - len(left_out), tuple(broken)


def excess(host: Host, policy: HostPolicy, specs: list[DomainSpec]) -> list[str]:
    """What domains hold beyond what a host has: the rules once more, on the CPUs that the plan names."""
    found = []
    if sum(spec.memory for spec in specs) > host.memory:
        found.append("memory")
    loads: Counter[int] = Counter()
    alone: Counter[int] = Counter()
    for spec in specs:
        held = {cpu for pin in (*spec.placement.vcpus, spec.placement.idle) for cpu in pin}
        (alone if spec.placement.dedicated else loads).update(held)
    if max(alone.values(), default=0) > 1 or alone.keys() & loads.keys():
        found.append("a CPU that somebody has to himself is another's, too")
    if max(loads.values(), default=0) > policy.cpu_overcommit:
        found.append("a shared CPU's vCPUs")
    floating = sum(spec.vcpus for spec in specs if not spec.placement.vcpus)
    if loads.total() + floating > policy.cpu_overcommit * (len(host.cpus) - len(alone)):
        found.append("vCPUs on the shared CPUs together")
    return found


def share(fleet: Fleet, client: Client) -> float:
    """The part of the whole fleet that a client asks for, of what it asks most."""
    demand = demand_of(client, {one.name: one for one in fleet.topology.classes})
    policies = {policy.name: policy for policy in fleet.topology.hosts}
    rooms = [room_of(host, policies[host.name]) for host in fleet.hosts]
    cpus = sum(room.cores * room.threads_per_core for room in rooms)
    per_core = cpus / sum(room.cores for room in rooms)
    alone = demand.cores * per_core + demand.threads
    overcommit = sum(room.overcommit for room in rooms) / len(rooms)
    used = alone + (demand.shared + demand.floating) / overcommit
    return max(used / cpus, demand.memory / sum(room.memory for room in rooms))


def in_order(fleet: Fleet, key: Callable[[Client], tuple[float, ...]]) -> Fleet:
    """The same fleet with its clients called so that they come in that order."""
    clients = sorted(fleet.topology.clients, key=key)
    named = tuple(replace(client, name=f"client-{number:05}") for number, client in enumerate(clients))
    topology: Topology = replace(fleet.topology, clients=named)
    return replace(fleet, topology=topology)


def run(stage: Stage, runs: int) -> Result:
    """The benchmark, on so many fleets."""
    outcomes: list[Outcome] = []
    unproved = trivial = seed = 0
    while len(outcomes) < runs:
        outcome = examine(seed)
        seed += 1
        if outcome.optimum < 0:
            unproved += 1
        elif outcome.optimum == outcome.clients:
            trivial += 1
        else:
            outcomes.append(outcome)
    for one in sorted(outcomes, key=lambda one: -one.short)[:5]:
        say(f"seed {one.seed}: {one.placed} of {one.optimum} that fit, of {one.clients}: {one.why}; {one.by_order}")
    return _result(outcomes, unproved, trivial)


def _result(outcomes: list[Outcome], unproved: int, trivial: int) -> Result:
    fit = sum(one.optimum for one in outcomes)
    ratios = Series(tuple(one.placed / one.optimum for one in outcomes))
    shortfall = 100 * sum(one.short for one in outcomes) / fit
    text = (
        f"{TEXT} {len(outcomes)} fleets; {trivial} were left out because all fit, {unproved} because there was no proof"
        f" in {SOLVER_SECONDS:g} s. Other orders: the same clients under names that sort so."
    )
    parts = [
        Part("placed, of those that fit", "(1 = all)", ratios),
        Part("fleets with fewer than fit", "fleets", _single(sum(one.short > 0 for one in outcomes))),
        Part("clients that fit in all", "clients", _single(fit)),
        Part("most clients left out of one fleet", "clients", _single(max(one.short for one in outcomes))),
    ]
    for name in outcomes[0].by_order:
        missing = sum(max(0, one.optimum - one.by_order[name]) for one in outcomes)
        parts.append(Part(f"left out when taken {name}", "%", _single(100 * missing / fit)))
    missing = sum(max(0, one.optimum - one.counted) for one in outcomes)
    parts.append(Part("left out by first fit when CPUs are counted and not chosen", "%", _single(100 * missing / fit)))
    causes = Counter(one.why for one in outcomes if one.short)
    parts += [Part(f"fewer than fit: {why}", "fleets", _single(count)) for why, count in causes.most_common()]
    broken = Counter(what.partition(": ")[2] for one in outcomes for what in one.broken)
    parts += [Part(f"hosts given more than they have: {what}", "hosts", _single(n)) for what, n in broken.items()]
    met = Comparison("clients left out that fit", "%", _single(shortfall), _single(TARGET), "the target", 1.0)
    return Result("bound", "Placement against the optimum", text, (met,), tuple(parts))


def _single(value: float) -> Series:
    return Series((float(value),))
