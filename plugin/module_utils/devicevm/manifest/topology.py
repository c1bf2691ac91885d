"""What the user declares, as plain frozen data: the result of reading manifests.

A `Topology` is complete and consistent: defaults are filled in, references resolve, sizes are
bytes. The planner needs nothing else of the manifests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

DEFAULT_OWNER = "default"
DEFAULT_TRUST_DOMAIN = "default"


class ShareScope(str, Enum):
    """Who may share one device VM."""

    DEVICE = "device"
    CLIENT = "client"
    TRUST_DOMAIN = "trustDomain"
    HOST = "host"


@dataclass(frozen=True)
class ResourceRequest:
    """One alternative of resources that can run emulation code.

    `kind` names a resource kind of planner/resources; `count` units of it, `dedicated` = nobody
    else runs there; `options` holds what only that kind understands.
    """

    kind: str
    count: int = 1
    dedicated: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """The emulation code of a class and how it is known to work.

    `command` is a template (docs/classes.md, template.py): strings with `${parameter}`, or
    `{"if": parameter, "then": [...], "else": [...]}`. `ready` names a probe of guest/probe.py, or is such a
    template that comes to one name. `expect` is a regular expression for the `bytes` probe, `on_exit` is
    `restart` or `poweroff`. `ask` is sent for what is expected to come. `command` may be empty when all of the class's
    resources bring their own code.
    """

    command: tuple[Any, ...]
    ready: Any = "bytes"
    expect: str = ""
    ask: str = ""
    on_exit: str = "restart"

    @cached_property
    def fixed(self) -> bool:
        """Whether nothing is to be filled in: it runs the same for every device."""
        return all(isinstance(item, str) and "$" not in item for item in (*self.command, self.ready))


@dataclass(frozen=True)
class ClassMemory:
    """Memory of device VMs that a class needs: bytes once per device VM, and a size for each device, which may be a
    condition that comes to one."""

    base: int
    per_device: Any = 0


@dataclass(frozen=True)
class ClassStorage:
    """Which parameters of a class declare backing storage.

    Without a store the device's `size` bytes live in the device VM's memory. `base` declares what the content is a copy
    of, and `faults` that the device is to fail, and its client to see it. `within` is the parameter that holds the
    others; a device without it has no storage.
    """

    store: str = "store"
    size: str = "size"
    read_only: str = "readOnly"
    format: str = "format"
    base: str = "base"
    faults: str = "faults"
    within: str = ""


@dataclass(frozen=True)
class ClassService:
    """What a class runs once in each of its device VMs. `command` is a template like a program's; `defaults` are the
    parameters of a device VM that says nothing."""

    command: tuple[Any, ...]
    defaults: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceClass:
    """How a kind of device is emulated. `protocol` is what runs over the channel: nbd, egd, bytes, ethernet, memory,
    tpm or usbredir. `image` is a name, or a condition that comes to one."""

    name: str
    protocol: str
    frontends: tuple[str, ...]
    channels: tuple[str, ...]
    image: Any
    program: Program
    memory: ClassMemory
    resources: tuple[tuple[ResourceRequest, ...], ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    storage: ClassStorage | None = None
    service: ClassService | None = None


@dataclass(frozen=True)
class Store:
    """Backing storage that outlives its device VM.

    `kind`: file, block or volume. `path` for file and block, `pool` and `volume` for volume.
    `reclaim`: `delete` (with the device, and only when told to with --delete-data) or `retain` (even then).
    """

    kind: str
    size: int
    path: str = ""
    pool: str = ""
    volume: str = ""
    read_only: bool = False
    reclaim: str = "delete"
    format: str = ""
    """What it holds, in the words of the class: who takes it for something else finds other content."""


class Consumer(str, Enum):
    """Who uses a client's devices."""

    VM = "vm"
    """A VM that devicevm makes."""
    EXISTING = "existing"
    """A domain that somebody else has made."""
    HOST = "host"
    """The host's own operating system."""
    VMM = "vmm"
    """Any domain of the VMM's that is given the endpoint."""


@dataclass(frozen=True)
class Device:
    """One device that a client declares; `parameters` are checked and complete with defaults."""

    name: str
    class_: str
    parameters: dict[str, Any] = field(default_factory=dict)
    frontend: str = ""
    channel: str = ""
    store: Store | None = None
    memory: int = 0
    """Bytes of the device VM's memory that the device's own content takes (an ephemeral disk)."""
    path: str = ""
    """Where it appears on the host, for the host as its client: a path, or the name of a tap."""
    part_options: dict[str, str] = field(default_factory=dict)
    """What the host part that shows it there is told besides (part/)."""
    base: Store | None = None
    """What the content is a copy of, as long as nothing was written: read only."""
    faulty: bool = False
    """It is to fail: its client's VMM hands errors on to the guest, instead of waiting for better times."""
    secrets: dict[str, str] = field(default_factory=dict)
    """The files on the host whose content the emulator alone may know, by the parameters that name them."""


@dataclass(frozen=True)
class Boot:
    """What a client VM boots from: kernel (+ initrd, command line), a disk image, or one of its devices.

    `guest_image` names an image that `devicevm image build` makes: its kernel and initrd, and `command_line`
    after its own. It is looked up on the host by the planner.
    """

    kernel: str = ""
    initrd: str = ""
    command_line: str = ""
    image: str = ""
    device: str = ""
    firmware: str = "bios"
    guest_image: str = ""

    @property
    def disk(self) -> Store | None:
        """The disk image as a store, which is only read: what the guest writes is kept beside it."""
        return Store("file", 0, self.image, read_only=True) if self.image else None


class Start(str, Enum):
    """Who starts a client: an apply does, or whoever asks the VMM to, and its device VMs come up with it."""

    APPLY = "apply"
    REQUEST = "request"


@dataclass(frozen=True)
class ClientVM:
    """A client VM for devicevm to make. `memory` in bytes; `domain_xml` is merged into the domain.

    `cpus` are the processors that its virtual CPUs run on, a request for threads; None = wherever the host lets them.
    """

    vcpus: int
    memory: int
    boot: Boot
    machine: str = "q35"
    domain_xml: str = ""
    cpus: ResourceRequest | None = None
    start: Start = Start.APPLY
    autostart: bool | None = None
    """Whether the VMM starts it when it starts itself; None = as somebody has set it."""


@dataclass(frozen=True)
class Client:
    """A consumer of devices. `labels` are what selectors match; `vm` is there for the consumer `vm` alone."""

    name: str
    vm: ClientVM | None = None
    devices: tuple[Device, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    host: str = ""
    host_labels: dict[str, str] = field(default_factory=dict)
    affinity: dict[str, str] = field(default_factory=dict)
    """Labels: it is on a host with another client that has all of them. Empty = no matter."""
    anti_affinity: dict[str, str] = field(default_factory=dict)
    """Labels: it is on no host with another client that has all of them. Empty = no matter."""
    consumer: Consumer = Consumer.VM
    domain: str = ""
    """The name of an existing domain."""

    @property
    def vcpus(self) -> int:
        """Virtual CPUs that are devicevm's to place: none of what is no VM of its own."""
        return self.vm.vcpus if self.vm else 0

    @property
    def memory(self) -> int:
        """Bytes of the host's memory that are devicevm's to place."""
        return self.vm.memory if self.vm else 0

    @property
    def cpus(self) -> ResourceRequest | None:
        """The processors that it asks for."""
        return self.vm.cpus if self.vm else None

    @property
    def boot(self) -> Boot:
        """What devicevm boots it from."""
        return self.vm.boot if self.vm else Boot()

    @property
    def start(self) -> Start:
        """Who starts it."""
        return self.vm.start if self.vm else Start.APPLY

    @property
    def alone(self) -> bool:
        """Whether it may start with nobody there who has its device VMs up before."""
        return self.start is Start.APPLY and not (self.vm and self.vm.autostart)


@dataclass(frozen=True)
class Serves:
    """Which devices a declared device VM is for: every empty field matches all."""

    classes: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    match_labels: dict[str, str] = field(default_factory=dict)


class UplinkKind(str, Enum):
    """What of the host a NIC is on: a tap that is there already, or a bridge, which gets one more."""

    TAP = "tap"
    BRIDGE = "bridge"


@dataclass(frozen=True)
class Uplink:
    """A NIC on the host's network, on its tap or bridge of that name. An empty `mac` is worked out."""

    kind: UplinkKind
    name: str
    mac: str = ""


@dataclass(frozen=True)
class DeviceVM:
    """A device VM in which the user wants a say; `resources` empty = what the classes ask for.

    `memory` 0 = worked out from the classes; `max_devices` bounds how many it serves.
    """

    name: str
    serves: Serves
    scope: ShareScope = ShareScope.TRUST_DOMAIN
    max_devices: int = 16
    resources: tuple[tuple[ResourceRequest, ...], ...] = ()
    memory: int = 0
    host: str = ""
    host_labels: dict[str, str] = field(default_factory=dict)
    same_labels: tuple[str, ...] = ()
    """Keys of labels: only clients that have the same values of them share one."""
    classes_apart: tuple[str, ...] = ()
    """Devices of two of these classes are not in one."""
    clients_apart: dict[str, str] = field(default_factory=dict)
    """Two clients that have all of these labels are not served by one. Empty = no matter."""
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What it says to the services of classes, by class; checked and complete with defaults."""
    uplink: Uplink | None = None


class FloatingDomains(str, Enum):
    """What becomes of domains that may run on processors that are dedicated: the user is told, or they are moved."""

    TELL = "tell"
    MOVE = "move"


@dataclass(frozen=True)
class HostPolicy:
    """What the user says of a host: CPUs and memory kept for itself, how far to overcommit.

    `shared_cpus` are the pool that whoever shares processors shares, and nobody has alone; empty = any CPU is for both.
    `labels` are what selectors match. On a host in `maintenance` nothing new is placed; `headroom_memory` (bytes) and
    `headroom_vcpus` are left free by what is new, and may be used by what is there already.
    """

    name: str
    reserved_cpus: tuple[int, ...] = ()
    reserved_memory: int = 0
    cpu_overcommit: float = 16.0
    accelerator: str = "auto"
    trust_domains: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    maintenance: bool = False
    headroom_memory: int = 0
    headroom_vcpus: int = 0
    shared_cpus: tuple[int, ...] = ()
    share_across_trust_domains: bool = False
    """Whether device VMs of different trust domains may be on one processor core."""
    floating_domains: FloatingDomains = FloatingDomains.TELL


class PlacementStrategy(str, Enum):
    """Which host new clients and their device VMs go to: the first that has room, or the one with the most left."""

    PACK = "pack"
    SPREAD = "spread"


@dataclass(frozen=True)
class Topology:
    """All that is declared, each tuple sorted by name: the order of documents does not matter."""

    clients: tuple[Client, ...] = ()
    device_vms: tuple[DeviceVM, ...] = ()
    classes: tuple[DeviceClass, ...] = ()
    hosts: tuple[HostPolicy, ...] = ()
    placement: PlacementStrategy = PlacementStrategy.PACK
