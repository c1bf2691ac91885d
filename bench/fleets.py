"""Fleets from a seed: hosts, and clients whose devices ask for threads and cores, shared or dedicated.

The same seed gives the same fleet. Nothing here is of a real machine: what the planner needs of a host is made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from devicevm.inventory.host import Cpu, Host, ImageFacts, Node, Vmm
from devicevm.inventory.supports import GUESTS, LIVE_DEVICES, STORES
from devicevm.manifest.topology import (
    Boot,
    ClassMemory,
    Client,
    ClientVM,
    Device,
    DeviceClass,
    HostPolicy,
    Program,
    ResourceRequest,
    Topology,
)

MIB = 2**20
GIB = 2**30


@dataclass(frozen=True)
class Fleet:
    """Hosts with nothing on them, and what is declared."""

    hosts: tuple[Host, ...]
    topology: Topology


@dataclass(frozen=True)
class Shape:
    """What a fleet's hosts and clients are drawn from. Memory in bytes; `cores` are a socket's.

    `weights` are those of CLASSES; `overcommit` is a host's vCPUs to a shareable CPU.
    """

    sockets: Sequence[int] = (1, 2)
    cores: Sequence[int] = (4, 8, 16, 32)
    threads: Sequence[int] = (1, 2)
    memory_per_core: Sequence[int] = (4 * GIB, 8 * GIB)
    client_vcpus: Sequence[int] = (1, 2, 4)
    client_memory: Sequence[int] = (256 * MIB, 512 * MIB, GIB, 4 * GIB)
    devices: Sequence[int] = (2, 3, 4)
    weights: Sequence[int] = (14, 6, 2, 1, 2)
    overcommit: Sequence[float] = (8.0,)


ROOMY = Shape()
"""Everything fits when a host has some ten clients."""

SCARCE = Shape(
    sockets=(1,),
    cores=(4, 6, 8),
    memory_per_core=(512 * MIB, GIB),
    client_vcpus=(1, 2, 4),
    client_memory=(256 * MIB, 512 * MIB, GIB),
    devices=(1, 2, 3),
    weights=(5, 3, 3, 2, 3),
    overcommit=(1.0, 1.5, 2.0, 4.0),
)
"""A host takes two to four clients: of CPUs, vCPUs and memory, now one and now another is what ends first."""


def make_host(
    name: str, sockets: int, cores: int, threads: int, memory: int, huge_pages: dict[str, int] | None = None
) -> Host:
    """A host with a NUMA node for each socket; CPU n is a thread of core n % (the host's cores), as Linux numbers.

    `memory` in bytes, and `huge_pages` (page bytes -> count on each node): both are evenly spread over the nodes.
    """
    total = sockets * cores
    cpus = tuple(
        Cpu(
            id=number,
            core=f"core{number % total}",
            socket=number % total // cores,
            node=number % total // cores,
            siblings=tuple(range(number % total, total * threads, total)),
        )
        for number in range(total * threads)
    )
    nodes = tuple(
        Node(
            socket,
            memory // sockets,
            tuple(cpu.id for cpu in cpus if cpu.node == socket),
            huge_pages=dict(huge_pages or {}),
        )
        for socket in range(sockets)
    )
    return Host(
        name=name,
        arch="x86_64",
        memory=memory,
        vmm=Vmm("test:///default", "Test", supports=(GUESTS, LIVE_DEVICES, STORES), runtime_dir="/run/devicevm/0"),
        cpus=cpus,
        nodes=nodes,
        accelerator="tcg",
        page_sizes=(4096, *map(int, huge_pages or {})),
        images=tuple(ImageFacts(image, "0" * 12, f"/i/{image}/k", f"/i/{image}/r", "") for image in ("base", "client")),
    )


def make_class(
    name: str, resources: tuple[tuple[ResourceRequest, ...], ...], base: int, per_device: int
) -> DeviceClass:
    """A class of small disks that live in their device VM's memory (`base` and `per_device` in bytes)."""
    return DeviceClass(
        name=name,
        protocol="nbd",
        frontends=("virtio-blk",),
        channels=("stream",),
        image="base",
        program=Program(("nbdkit", "--single", "memory", "1M"), ready="nbd", on_exit="poweroff"),
        memory=ClassMemory(base, per_device),
        resources=resources,
    )


def _one(kind: str, count: int, dedicated: bool) -> tuple[tuple[ResourceRequest, ...], ...]:
    return ((ResourceRequest(kind, count, dedicated),),)


CLASSES = (
    make_class("shared", _one("thread", 1, False), 96 * MIB, 8 * MIB),
    make_class("shared-two", _one("thread", 2, False), 128 * MIB, 16 * MIB),
    make_class("thread", _one("thread", 1, True), 96 * MIB, 8 * MIB),
    make_class("thread-two", _one("thread", 2, True), 128 * MIB, 32 * MIB),
    make_class("whole-core", _one("core", 1, True), 192 * MIB, 64 * MIB),
)


def make_fleet(seed: int, hosts: int, clients: int, shape: Shape = ROOMY) -> Fleet:
    """A fleet of so many hosts and clients, drawn from a shape."""
    # Not for secrets: the same seed must give the same fleet.
    draw = Random(seed)  # noqa: S311
    machines = tuple(_host(f"host-{number:04}", draw, shape) for number in range(hosts))
    names = [class_.name for class_ in CLASSES]
    users = []
    for number in range(clients):
        vm = ClientVM(draw.choice(shape.client_vcpus), draw.choice(shape.client_memory), Boot(guest_image="client"))
        picked = draw.choices(names, shape.weights, k=draw.choice(shape.devices))
        devices = tuple(Device(f"device-{index}", name) for index, name in enumerate(picked))
        users.append(Client(f"client-{number:05}", vm, devices))
    policies = tuple(HostPolicy(host.name, cpu_overcommit=draw.choice(shape.overcommit)) for host in machines)
    classes = tuple(sorted(CLASSES, key=lambda class_: class_.name))
    return Fleet(machines, Topology(tuple(users), classes=classes, hosts=policies))


def _host(name: str, draw: Random, shape: Shape) -> Host:
    sockets, cores, threads = draw.choice(shape.sockets), draw.choice(shape.cores), draw.choice(shape.threads)
    return make_host(name, sockets, cores, threads, sockets * cores * draw.choice(shape.memory_per_core))
