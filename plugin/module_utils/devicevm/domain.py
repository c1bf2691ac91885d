"""What devicevm asks a VMM for: one domain, said without any VMM's own words.

The planner makes these, the VMM drivers render them, and the domain's metadata keeps them:
a plan, a running domain and a re-plan all speak of the same `DomainSpec`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from .manifest.template import base_serial
from .manifest.topology import Boot, Consumer, Start, Store, Uplink
from .part.part import Part
from .record import digest


class Role(str, Enum):
    """What a domain of devicevm's is."""

    DEVICE_VM = "device-vm"
    CLIENT = "client"


@dataclass(frozen=True)
class Channel:
    """How one device reaches its front end, named the same at both ends.

    `address` is the unix socket's path on the host, `port` the virtio-serial port in the device VM; of a link, the
    hardware address of the device VM's NIC. A region's address is the file that is its memory, of `size` bytes, and its
    port the name of the class whose devices share it.
    """

    kind: str
    address: str
    port: str
    size: int = 0


@dataclass(frozen=True)
class Secret:
    """What an emulator alone may know. `name` is what the device VM calls it, `path` the user's file on the host.

    `address` is a copy for the device VM's VMM, which is there only while that starts.
    """

    name: str
    path: str
    address: str


@dataclass(frozen=True)
class Emulator:
    """One device that a device VM emulates, for `client`'s device `name`.

    `command` is complete (no template left). `serial` names what backs a device with content inside
    the device VM: a disk, which is `store` on the host, or without a store `size` bytes of memory.
    """

    client: str
    name: str
    class_: str
    channel: Channel
    command: tuple[str, ...]
    protocol: str = "bytes"
    ready: str = "bytes"
    expect: str = ""
    ask: str = ""
    """What a probe sends for its answer to be `expect`; asked again while there is none."""
    on_exit: str = "restart"
    store: Store | None = None
    serial: str = ""
    size: int = 0
    memory: int = 0
    """Bytes of the device VM's memory that this device accounts for."""
    consumer: Consumer = Consumer.VM
    """Who its client is: nothing but this tells of a client that is no domain."""
    part: Part | None = None
    """The process on the host that stands between its channel and its client, where there is one."""
    base: Store | None = None
    """What the content is a copy of: a second disk, which nobody writes."""
    secrets: tuple[Secret, ...] = ()
    faulty: bool = False
    """It fails on purpose: that it does not answer is no reason to wait."""
    read_only: bool = False
    """Of a region: its client cannot write to it."""

    @property
    def id(self) -> str:
        """`client.device`, unique in an owner and readable in the guest's port names."""
        return f"{self.client}.{self.name}"

    @property
    def disks(self) -> tuple[tuple[str, Store], ...]:
        """Serial numbers of the disks of the host that it has, and what is on them."""
        own = ((self.serial, self.store),) if self.store else ()
        return (*own, (base_serial(self.serial), self.base)) if self.base else own


@dataclass(frozen=True)
class Service:
    """A program that runs once in a device VM, for all devices of the class `name`. `command` is complete."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Attachment:
    """One device as its client sees it: a front end on a channel, and the device VM behind it."""

    name: str
    class_: str
    frontend: str
    channel: Channel
    device_vm: str
    index: int
    """Position among the client's devices: fixes target names and boot order."""
    read_only: bool = False
    mac: str = ""
    """The hardware address of a NIC."""
    path: str = ""
    """Where it appears on the host, for the host as its client."""
    faulty: bool = False
    """What it answers goes to the guest, errors as well."""


@dataclass(frozen=True)
class HostDevice:
    """A device of the host that a domain is given whole. `kind` is pci (a function, virtual ones too) or mdev.

    `address` is as in inventory's NodeDevice: `0000:02:10.7` for PCI, the UUID of a mediated device that is there.
    `bitstream` is what it is programmed with before the domain starts, `clear` what it is cleared by when the domain
    has ended: names below /lib/firmware, or nothing.
    """

    kind: str
    address: str
    bitstream: str = ""
    clear: str = ""


@dataclass(frozen=True)
class CpuPlacement:
    """Where a domain's threads run, and its memory. `vcpus[i]` lists the host CPUs of virtual CPU i, `emulator` those
    of the VMM's own threads; empty = anywhere. `nodes` are the NUMA nodes that its memory comes from (empty = any).
    `dedicated` = nobody else is placed there; `idle` are CPUs that it keeps empty, since they share a core with it.
    `emulator_on` is where the VMM's own threads were asked to run, when not as usual (resources/emulator.py)."""

    vcpus: tuple[tuple[int, ...], ...] = ()
    emulator: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()
    dedicated: bool = False
    unit: str = "thread"
    idle: tuple[int, ...] = ()
    emulator_on: str = ""
    floats: bool = False
    """It may run anywhere, and the pins on threads that nobody asked to pin only keep it off dedicated CPUs."""

    @property
    def cpus(self) -> tuple[int, ...]:
        """Every host CPU that it has, ascending: its virtual CPUs', and that of the VMM's own threads where they have
        one of their own."""
        own = self.emulator if self.emulator_on == "own" else ()
        return tuple(sorted({cpu for pin in (*self.vcpus, own) for cpu in pin})) if self.vcpus or own else ()


class FirmwareKind(str, Enum):
    """What a firmware image is, and so how a machine gets at it."""

    ELF = "elf"
    """A microcontroller's program, or any that the machine loads as its kernel."""
    UEFI = "uefi"
    """An x86_64 UEFI application, which UEFI firmware starts."""
    ROM = "rom"
    """A PC's ROM: what the processor runs first, in place of a BIOS."""


@dataclass(frozen=True)
class Firmware:
    """Emulation code that is a firmware image, with no operating system under it.

    `path` on the host; `digest` is the SHA-256 of the file in hex, or its first digits; empty = not checked.
    """

    kind: FirmwareKind
    path: str
    digest: str = ""


@dataclass(frozen=True)
class DomainSpec:
    """A domain that devicevm makes. `memory` in bytes; `name` is unique on the VMM.

    A device VM has `emulators`, a client has `attachments`; the rest is the same for both. A client that is no VM of
    devicevm's (`consumer`) has its `attachments` and a host, and takes nothing of that.
    """

    name: str
    uuid: str
    role: Role
    owner: str
    host: str
    vcpus: int
    memory: int
    accelerator: str
    arch: str
    machine: str
    boot: Boot
    placement: CpuPlacement = field(default_factory=CpuPlacement)
    emulators: tuple[Emulator, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    control: str = ""
    """Path of the control port's socket (device VMs with an agent)."""
    console: str = ""
    """Path of the console's log file on the host."""
    image: str = ""
    """The device VM image it boots, as NAME-DIGEST."""
    group: str = ""
    """Whose devices a device VM emulates: those of one client, or of one declaration's scope (planner/grouping.py)."""
    trust_domain: str = "default"
    domain_xml: str = ""
    cpu_features: tuple[str, ...] = ()
    """Instruction set extensions that its processor must have, in the VMM's names."""
    page_size: int = 0
    """Bytes of the host's memory pages that it runs on; 0 = the usual ones."""
    host_devices: tuple[HostDevice, ...] = ()
    """Devices of the host that the domain is given: for a device VM, the blocks that its emulators drive."""
    firmware: Firmware | None = None
    """What a device VM without operating system runs: it has no agent, so no `control`, `console`, `image` or `boot`.
    Its serial port n is the channel of `emulators[n]`, and none can be added while it runs."""
    start: Start = Start.APPLY
    """Who starts it. A device VM is started on request when all its clients are."""
    autostart: bool | None = None
    """Whether the VMM starts a client when it starts itself; None = as somebody has set it."""
    services: tuple[Service, ...] = ()
    """What a device VM runs once for all devices of a class, by name."""
    uplink: Uplink | None = None
    """A device VM's NIC on the host's network; its `mac` is set."""
    links: tuple[Channel, ...] = ()
    """A device VM's links, in their order: its emulators have some, and the others are for those that come while it
    runs."""
    regions: tuple[Channel, ...] = ()
    """A device VM's regions, in the order in which it finds them: one for each class whose devices share memory."""
    consumer: Consumer = Consumer.VM
    domain: str = ""
    """The name of the existing domain that has the client's devices; `uuid` is that domain's."""

    @property
    def has_agent(self) -> bool:
        """Whether there is somebody in a device VM to be asked how it is, and told of devices that come and go."""
        return bool(self.control)

    @cached_property
    def digest(self) -> str:
        """Identifies its whole content. Whoever has read it from a domain's metadata knows the digest already, of the
        text as it is written there."""
        return digest(self)


@dataclass(frozen=True)
class Deaths:
    """What became of a device VM that was to run: how often it has died since somebody last started it, when at last
    (seconds since 1970), and why. `returning`: it is being restarted."""

    count: int
    time: float
    reason: str
    returning: bool = False


@dataclass(frozen=True)
class ObservedDomain:
    """A domain of devicevm's as the VMM has it now.

    `spec` is what its metadata says it was made from; None when the metadata cannot be read, and
    `broken` says why. `active_spec` is what a running domain was started or last changed with.
    `drift` lists what differs from `spec` in the domain itself.
    """

    name: str
    uuid: str
    owner: str
    role: Role
    active: bool
    spec: DomainSpec | None
    active_spec: DomainSpec | None = None
    drift: tuple[str, ...] = ()
    live_drift: tuple[str, ...] = ()
    """What differs from `active_spec` in the running domain: only a restart would put it right."""
    broken: str = ""
    stalled: bool = False
    """Whether a running domain was paused by its VMM, because a disk of its failed."""
    away: tuple[str, ...] = ()
    """Of a client that is stalled: the addresses of its channels to which its VMM is not connected. What was behind
    them has died since."""
    failure: str = ""
    """Why a device VM that died is not restarted any more (manager/keeper.py)."""
    ready: bool = True
    """Whether a running device VM has been seen to answer; False when the apply that started it died first."""
    parts: tuple[str, ...] = ()
    """Of a device VM: the ids of the emulators whose host parts run."""
    consumer: Consumer = Consumer.VM
    """For a client: `existing` when the domain is somebody else's, and only the devices in it are devicevm's; `name`
    is the client's then, `uuid` the domain's."""
