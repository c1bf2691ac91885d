"""What a host has and what is taken: the planner's view of a host, as plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field

SCHEMA_VERSION = "devicevm/v1"


@dataclass(frozen=True)
class Cpu:
    """A logical processor. `core` and `socket` are unique on the host; `siblings` share its core."""

    id: int
    core: str
    socket: int
    node: int
    siblings: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """A NUMA node. `memory` in bytes (all of it, as the kernel counts); `huge_pages`: page bytes -> count."""

    id: int
    memory: int
    cpus: tuple[int, ...]
    distances: dict[str, int] = field(default_factory=dict)
    huge_pages: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CacheBank:
    """A cache that its CPUs share. `size` in bytes; `kind`: both, data, code."""

    id: int
    level: int
    kind: str
    size: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class NodeDevice:
    """A device of the host (PCI, mdev, USB...): the attributes the planner can match on.

    `kind` is libvirt's word (pci, usb_device, mdev...), ids are hexadecimal (`0x8086`, class `0x020000`).
    `address` is what holders name it by: `0000:02:10.7`, an mdev's UUID, `usb:BUS:DEVICE`.
    """

    name: str
    kind: str
    parent: str = ""
    vendor: str = ""
    product: str = ""
    class_code: str = ""
    address: str = ""
    driver: str = ""
    iommu_group: int = -1
    node: int = -1
    mdev_types: dict[str, int] = field(default_factory=dict)
    """mdev type -> instances still available."""
    virtual_functions: tuple[str, ...] = ()
    physical_function: str = ""


@dataclass(frozen=True)
class GuestKind:
    """A kind of guest the VMM can run: arch (x86_64), os type (hvm, xen), accelerators, machines."""

    arch: str
    os_type: str
    accelerators: tuple[str, ...]
    emulator: str = ""
    machines: tuple[str, ...] = ()


@dataclass(frozen=True)
class DomainSupport:
    """What domain capabilities say: disk buses, device models, CPU models and features by name."""

    emulator: str = ""
    accelerator: str = ""
    machine: str = ""
    arch: str = ""
    max_vcpus: int = 0
    firmwares: tuple[str, ...] = ()
    disk_buses: tuple[str, ...] = ()
    rng_backends: tuple[str, ...] = ()
    channel_types: tuple[str, ...] = ()
    tpm_models: tuple[str, ...] = ()
    cpu_models: tuple[str, ...] = ()
    host_model: str = ""
    host_features: tuple[str, ...] = ()
    memory_sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageFacts:
    """A device VM image that is on the host: a kernel with its initramfs, or a whole `disk` that `firmware` (bios, efi)
    starts. Paths are the host's. `agent`: devicevm's agent runs in it."""

    name: str
    digest: str
    kernel: str = ""
    initramfs: str = ""
    command_line: str = ""
    arch: str = "x86_64"
    kernel_version: str = ""
    disk: str = ""
    firmware: str = "bios"
    agent: bool = True


@dataclass(frozen=True)
class FileFacts:
    """A file of the host that manifests name as emulation code. `size` in bytes, `digest` is its SHA-256 in hex.

    `problem` reads on from its path: `cannot be read: No such file or directory`.
    """

    path: str
    size: int = 0
    digest: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Holding:
    """What a domain holds of the host, devicevm's or anybody's.

    `cpus` it is pinned to; `floats` = its vCPUs may run anywhere (or on `cpus` without being alone);
    `memory` in bytes, bound to the NUMA nodes `nodes` (empty = from anywhere); `node_devices` are
    addresses as in NodeDevice. A domain that is only defined holds too: it may start at any time.
    """

    domain: str
    uuid: str
    active: bool
    vcpus: int
    memory: int
    cpus: tuple[int, ...] = ()
    floats: bool = True
    dedicated: bool = False
    nodes: tuple[int, ...] = ()
    node_devices: tuple[str, ...] = ()
    owner: str = ""
    page_size: int = 0
    """Bytes of the huge pages that its memory comes from; 0 = usual pages."""
    moved_by: str = ""
    """The owner for whom it was moved off dedicated CPUs; empty = nobody did."""
    moved_to: tuple[int, ...] = ()
    """The CPUs that its floating threads were moved to, when all of them are there."""


@dataclass(frozen=True)
class Vmm:
    """The VMM of a host. `driver`: QEMU, Xen or Test. `supports` names what the driver can do (vmm/driver.py)."""

    uri: str
    driver: str
    version: str = ""
    libvirt_version: str = ""
    supports: tuple[str, ...] = ()
    runtime_dir: str = ""
    """Where channel sockets live on the host: short, root-owned, not user data."""
    log_dir: str = ""
    """Where console logs are; empty: in `runtime_dir`."""


@dataclass(frozen=True)
class Host:
    """One host: its processors, memory, devices, images and what is held of them. Memory in bytes."""

    name: str
    arch: str
    memory: int
    vmm: Vmm
    cpus: tuple[Cpu, ...] = ()
    nodes: tuple[Node, ...] = ()
    caches: tuple[CacheBank, ...] = ()
    cpu_model: str = ""
    cpu_vendor: str = ""
    cpu_features: tuple[str, ...] = ()
    microcode: int = 0
    page_sizes: tuple[int, ...] = ()
    guests: tuple[GuestKind, ...] = ()
    support: tuple[DomainSupport, ...] = ()
    accelerator: str = ""
    """The accelerator that was seen to work (inventory probe): kvm, tcg, xen or test."""
    node_devices: tuple[NodeDevice, ...] = ()
    images: tuple[ImageFacts, ...] = ()
    holdings: tuple[Holding, ...] = ()
    files: tuple[FileFacts, ...] = ()
    """Those that the manifests of one plan name, looked at for it: no part of what the host is."""

    def file(self, path: str) -> FileFacts | None:
        """What is known of a file; None when it was not looked at."""
        return next((facts for facts in self.files if facts.path == path), None)
