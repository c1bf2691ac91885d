"""Made-up hosts, topologies and a model of a VMM, for tests of the planner."""

from __future__ import annotations

from dataclasses import replace

from devicevm.domain import DomainSpec, Emulator, ObservedDomain, Role
from devicevm.frontend.registry import FRONTENDS
from devicevm.inventory.host import Cpu, Holding, Host, ImageFacts, Node, Vmm
from devicevm.inventory.supports import GUESTS, LIVE_DEVICES, STORES
from devicevm.manifest.topology import (
    Boot,
    ClassMemory,
    ClassStorage,
    Client,
    ClientVM,
    Consumer,
    Device,
    DeviceClass,
    Program,
    ResourceRequest,
    Topology,
)
from devicevm.part.part import Part
from devicevm.planner.book import held_by
from devicevm.planner.plan import Action, Plan, Step, Subject
from devicevm.planner.planner import Intent, make_plan

MIB = 2**20
GIB = 2**30
ME = Intent("default")


def host(
    name: str = "h1",
    *,
    cores: int = 4,
    threads: int = 2,
    sockets: int = 1,
    memory: int = 16 * GIB,
    supports: tuple[str, ...] = (GUESTS, LIVE_DEVICES, STORES),
    holdings: tuple[Holding, ...] = (),
) -> Host:
    """A host whose CPU n is thread n // (cores * sockets) of core n % (cores * sockets), as Linux numbers them."""
    total = cores * sockets
    cpus = []
    for number in range(total * threads):
        core = number % total
        siblings = tuple(core + total * thread for thread in range(threads))
        cpus.append(Cpu(number, f"core{core}", core // cores, core // cores, siblings))
    nodes = tuple(
        Node(socket, memory // sockets, tuple(cpu.id for cpu in cpus if cpu.node == socket))
        for socket in range(sockets)
    )
    return Host(
        name=name,
        arch="x86_64",
        memory=memory,
        vmm=Vmm("qemu:///system", "QEMU", supports=supports, runtime_dir="/run/devicevm/0"),
        cpus=tuple(cpus),
        nodes=nodes,
        accelerator="tcg",
        images=tuple(
            ImageFacts(image, "0" * 12, f"/i/{image}/kernel", f"/i/{image}/initramfs", "quiet")
            for image in ("base", "client", "tpm")
        ),
        holdings=holdings,
    )


def thread(count: int = 1, *, dedicated: bool = False) -> tuple[ResourceRequest, ...]:
    """One alternative: threads."""
    return (ResourceRequest("thread", count, dedicated),)


def core(count: int = 1) -> tuple[ResourceRequest, ...]:
    """One alternative: whole cores."""
    return (ResourceRequest("core", count, True),)


def class_(name: str = "disk", **changes: object) -> DeviceClass:
    """A class like the built-in disk, with `changes`."""
    base = DeviceClass(
        name=name,
        protocol="nbd",
        frontends=("virtio-blk", "sata"),
        channels=("stream",),
        image="base",
        program=Program(("nbdkit", "memory", "${sizeBytes}"), ready="nbd", on_exit="poweroff"),
        memory=ClassMemory(96 * MIB, 8 * MIB),
        resources=(thread(),),
        storage=ClassStorage(),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


DISK = class_()
RNG = class_(
    "rng",
    protocol="egd",
    frontends=("virtio-rng",),
    program=Program(("/usr/lib/devicevm/egd",), ready="egd"),
    memory=ClassMemory(80 * MIB, MIB),
    storage=None,
)
SERIAL = class_(
    "serial",
    protocol="bytes",
    frontends=("isa-serial",),
    program=Program(("/usr/lib/devicevm/nmea",), ready="bytes"),
    memory=ClassMemory(80 * MIB, MIB),
    storage=None,
)


NET = class_(
    "net",
    protocol="ethernet",
    frontends=("virtio-net",),
    channels=("link",),
    program=Program(("net",), ready="link"),
    memory=ClassMemory(80 * MIB, MIB),
    storage=None,
)
TPM = class_(
    "tpm",
    protocol="tpm",
    frontends=("tpm-crb", "tpm-tis"),
    image="tpm",
    program=Program(("/usr/lib/devicevm/tpm", "${backing}")),
)


def disk(name: str = "data", size: int = MIB) -> Device:
    """An ephemeral disk."""
    return Device(name, "disk", {"size": str(size)}, memory=size)


def client(name: str, *devices: Device, labels: dict[str, str] | None = None, **changes: object) -> Client:
    """A small client VM with devices."""
    made = Client(name, ClientVM(1, 128 * MIB, Boot(guest_image="client")), devices, labels or {})
    return replace(made, **changes)  # type: ignore[arg-type]


def topology(*clients: Client, classes: tuple[DeviceClass, ...] = (DISK, RNG, SERIAL, TPM), **rest: object) -> Topology:
    """A topology of clients, sorted as the reader sorts them."""
    return Topology(tuple(sorted(clients, key=lambda item: item.name)), classes=classes, **rest)  # type: ignore[arg-type]


class ModelVmm:
    """A VMM that only remembers: what it has after a plan is what the plan promised."""

    def __init__(self, *hosts: Host) -> None:
        self.hosts = hosts or (host(),)
        self.domains: dict[str, ObservedDomain] = {}
        self.parts: dict[str, Part] = {}
        """The host parts that run, by name."""

    def observe(self) -> tuple[ObservedDomain, ...]:
        """Every domain, sorted by name."""
        return tuple(
            replace(domain, parts=tuple(one.id for one in parts_of(domain) if one.part in self.parts.values()))
            for name, domain in sorted(self.domains.items())
        )

    def inventory(self) -> tuple[Host, ...]:
        """The hosts with what the domains hold of them."""
        return tuple(
            replace(
                one,
                holdings=one.holdings
                + tuple(
                    _holding(domain.spec)
                    for domain in self.observe()
                    if domain.spec and domain.spec.host == one.name and domain.consumer is Consumer.VM
                ),
            )
            for one in self.hosts
        )

    def plan(self, wanted: Topology, intent: Intent = ME) -> Plan:
        """The plan from what there is now."""
        return make_plan(wanted, self.inventory(), self.observe(), intent)

    def apply(self, wanted: Topology, intent: Intent = ME) -> Plan:
        """Plan and carry out."""
        plan = self.plan(wanted, intent)
        self.carry_out(plan)
        return plan

    def carry_out(self, plan: Plan) -> None:
        """Do each step in its order; a step before those it is after is a fault of the plan."""
        done: set[str] = set()
        waiting = list(plan.steps)
        known = {step.id for step in waiting}
        while waiting:
            ready = [step for step in waiting if done >= {*step.after, *step.behind} & known]
            assert ready, f"steps wait for each other: {[step.id for step in waiting]}"
            for step in ready:
                if step.kind is Subject.DOMAIN:
                    self._repin(step, plan.owner)
                elif step.kind is Subject.PART:
                    self._do_part(step)
                elif step.kind is not Subject.STORE:
                    self._do(step.action, step.name, plan)
                done.add(step.id)
                waiting.remove(step)

    def _repin(self, step: Step, owner: str) -> None:
        repin = step.repin
        assert repin is not None and step.name not in self.domains
        there = next(one for host in self.hosts for one in host.holdings if one.uuid == repin.uuid)
        assert there.floats and there.moved_to == repin.before
        moved = replace(there, moved_by=owner if repin.cpus else "", moved_to=repin.cpus)
        self.hosts = tuple(
            replace(host, holdings=tuple(moved if one is there else one for one in host.holdings))
            for host in self.hosts
        )

    def _do_part(self, step: Step) -> None:
        part = step.part
        assert part is not None
        if step.action is Action.STOP:
            del self.parts[part.name]
            return
        running = [one for one in self.domains.values() if one.active]
        assert any(emulator.part == part for one in running for emulator in parts_of(one)), (
            f"{step.id} starts too early"
        )
        assert part.name not in self.parts, f"{step.id} runs already"
        self.parts[part.name] = part

    @property
    def _awake(self) -> set[str]:
        return {one.uuid for host in self.hosts for one in host.holdings if one.active}

    def _do(self, action: Action, name: str, plan: Plan) -> None:
        spec = next((spec for spec in plan.domains if spec.name == name), None)
        old = self.domains.get(name)
        if action in (Action.DEFINE, Action.UPDATE):
            assert spec is not None
            active = old.active if old else False
            live = spec if action is Action.UPDATE else (old.active_spec if old else None)
            self.domains[name] = ObservedDomain(name, spec.uuid, spec.owner, spec.role, active, spec, live)
        elif action is Action.ATTACH:
            assert spec is not None and spec.consumer is Consumer.EXISTING
            active = spec.uuid in self._awake
            seen = ObservedDomain(name, spec.uuid, spec.owner, spec.role, active, spec, spec if active else None)
            self.domains[name] = replace(seen, consumer=Consumer.EXISTING)
        elif action is Action.DETACH:
            assert old is not None, f"{name} has no devices to take out"
            del self.domains[name]
        elif action is Action.START:
            assert old is not None and not (old.active and old.ready), f"{name} is started, but runs or is not there"
            addresses = {part.address for part in self.parts.values()}
            attached = spec.attachments if spec else ()
            needed = {one.channel.address for one in attached if FRONTENDS[one.frontend].part}
            assert needed <= addresses, f"{name} is started before its host parts"
            self.domains[name] = replace(old, active=True, active_spec=old.spec, ready=True)
        elif action is Action.RESUME:
            assert old is not None and old.stalled, f"{name} is let go on, but nothing keeps it"
            self.domains[name] = replace(old, stalled=False)
        elif action is Action.STOP:
            assert old is not None and old.active, f"{name} is stopped, but does not run"
            left = [one.id for one in parts_of(old) if one.part in self.parts.values()]
            assert not left, f"{name} is stopped before the host parts of {left}"
            self.domains[name] = replace(old, active=False, active_spec=None)
        elif action is Action.UNDEFINE:
            assert old is not None and not old.active, f"{name} is undefined while it runs"
            del self.domains[name]


def parts_of(domain: ObservedDomain) -> list[Emulator]:
    """The emulators of a domain that have host parts."""
    spec = domain.active_spec or domain.spec
    return [one for one in spec.emulators if one.part] if spec else []


def _holding(spec: DomainSpec) -> Holding:
    placement = spec.placement
    floats = placement.floats and spec.role is Role.CLIENT
    cpus = () if floats else held_by(placement)
    return Holding(
        spec.name,
        spec.uuid,
        True,
        spec.vcpus,
        spec.memory,
        cpus,
        not cpus,
        placement.dedicated,
        nodes=placement.nodes,
        owner=spec.owner,
        page_size=spec.page_size,
        node_devices=tuple(device.address for device in spec.host_devices),
    )
