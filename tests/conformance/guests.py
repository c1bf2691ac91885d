"""The smallest guest there is, and domains that boot it: drivers are tested without an image."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from devicevm.domain import Attachment, Channel, CpuPlacement, DomainSpec, Emulator, Role
from devicevm.manifest.topology import Boot, Store
from devicevm.planner import naming

if TYPE_CHECKING:
    import libvirt
    from devicevm.vmm.libvirt.driver import LibvirtDriver

GREETING = b"hello from a guest\r\n"
MIB = 2**20
OWNER = "conformance"


def tiny_kernel() -> bytes:
    """A bzImage that writes GREETING to the first serial port and halts.

    A BIOS enters it at the setup code in real mode, qboot at the kernel in protected mode: both do the same.
    Format: Linux, Documentation/arch/x86/boot.rst.
    """
    out = b"".join(b"\xb0" + bytes([char]) + b"\xee" for char in GREETING)  # mov al, char; out dx, al
    halt = b"\xfa\xf4\xeb\xfd"  # cli; hlt; jmp to hlt
    setup = bytearray(1024)
    setup[0x1F1] = 1  # setup sectors
    struct.pack_into("<I", setup, 0x1F4, 32)  # size of the kernel in 16 bytes
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x200:0x202] = b"\xeb\x66"  # jmp to 0x268
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x0204)
    setup[0x211] = 1  # the kernel is loaded high
    struct.pack_into("<I", setup, 0x214, 0x100000)
    real = b"\xba\xf8\x03" + out + halt
    setup[0x268 : 0x268 + len(real)] = real
    return bytes(setup) + (b"\x66\xba\xf8\x03" + out + halt).ljust(512, b"\0")


def emulator(runtime: str, device_vm: str, name: str, store: Store | None = None) -> Emulator:
    """An emulator whose program nobody runs: the tiny guest has no programs."""
    return Emulator(
        client="web",
        name=name,
        class_="disk",
        channel=Channel("stream", naming.channel_address(runtime, OWNER, device_vm, f"web.{name}"), f"web.{name}"),
        command=("nbdkit", "-s", "file", "a,b <&> 'c'"),
        protocol="nbd",
        store=store,
        serial=naming.backing_serial(OWNER, "web", name) if store else "",
    )


def device_vm(
    runtime: str,
    accelerator: str,
    kernel: Path,
    *,
    name: str = "web-dvm",
    emulators: tuple[Emulator, ...] | None = None,
) -> DomainSpec:
    """A device VM with two emulators, pinned to CPU 0."""
    return DomainSpec(
        name=name,
        uuid=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{runtime}/{name}")),
        role=Role.DEVICE_VM,
        owner=OWNER,
        host="h1",
        vcpus=1,
        memory=32 * MIB,
        accelerator=accelerator,
        arch="x86_64",
        machine="pc",
        boot=Boot(kernel=str(kernel), command_line="quiet"),
        placement=CpuPlacement(vcpus=((0,),), emulator=(0, 1)),
        emulators=emulators if emulators is not None else tuple(emulator(runtime, name, n) for n in ("data", "gps")),
        control=naming.control_address(runtime, OWNER, name),
        console=naming.console_log(runtime, name),
    )


def client(runtime: str, accelerator: str, kernel: Path, of: DomainSpec, *, name: str = "web") -> DomainSpec:
    """A client with a serial port for each of the device VM's emulators."""
    return DomainSpec(
        name=name,
        uuid=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{runtime}/{name}")),
        role=Role.CLIENT,
        owner=OWNER,
        host="h1",
        vcpus=1,
        memory=32 * MIB,
        accelerator=accelerator,
        arch="x86_64",
        machine="q35",
        boot=Boot(kernel=str(kernel), command_line="quiet"),
        attachments=tuple(
            Attachment(item.name, item.class_, frontend, item.channel, of.name, index)
            for index, (item, frontend) in enumerate(zip(of.emulators, ("isa-serial", "virtio-rng"), strict=True))
        ),
        console=naming.console_log(runtime, name),
    )


def foreign(driver: LibvirtDriver, inner: str = "") -> libvirt.virDomain:
    """A domain `theirs` that devicevm did not make, with more in its XML."""
    kind = driver.connection.getType().lower()
    return driver.connection.defineXML(
        f"<domain type='{kind}'><name>theirs</name><memory>32768</memory>{inner}"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )
