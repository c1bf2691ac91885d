"""A device VM that runs firmware, in libvirt's XML: a bare machine whose serial ports are its emulators' channels."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from ...channel.registry import check_address
from ...domain import DomainSpec, Emulator, Firmware, FirmwareKind
from ...errors import DevicevmError
from .element import add

X86 = ("x86_64", "i686")
PC_SERIAL_PORTS = 4
"""ISA serial ports of a PC (frontend/serial.py)."""


def add_machine(domain: Element, spec: DomainSpec, firmware: Firmware) -> None:
    """The image, in the place where its kind is looked for. It ends with the machine, however that ends.

    A UEFI application is given as the kernel: EDK II starts what QEMU has as kernel (OvmfPkg/QemuKernelLoaderFsDxe), so
    that it needs no disk with a file system.
    """
    _check(spec, firmware)
    uefi = firmware.kind is FirmwareKind.UEFI
    system = add(domain, "os", **({"firmware": "efi"} if uefi else {}))
    add(system, "type", "hvm", arch=spec.arch, machine=spec.machine)
    if uefi:
        # Without this libvirt picks the firmware that boots signed code only.
        add(add(system, "firmware"), "feature", enabled="no", name="secure-boot")
    if firmware.kind is FirmwareKind.ROM:
        add(system, "loader", firmware.path, readonly="yes", type="rom")
    else:
        add(system, "kernel", firmware.path)
    if spec.arch in X86:
        features = add(domain, "features")
        if uefi:
            add(features, "acpi")  # libvirt refuses UEFI without
        add(features, "apic")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        add(domain, event, "destroy")


def add_devices(devices: Element, spec: DomainSpec) -> None:
    """A serial port for each emulator, in their order, and nothing else."""
    add(devices, "controller", type="usb", index="0", model="none")
    for number, emulator in enumerate(spec.emulators):
        _add_serial(devices, spec, emulator, number)
    add(devices, "memballoon", model="none")


def _add_serial(devices: Element, spec: DomainSpec, emulator: Emulator, number: int) -> None:
    serial = add(devices, "serial", type="unix")
    add(serial, "source", mode="bind", path=check_address(emulator.channel.address))
    if spec.arch in X86:
        add(add(serial, "target", type="isa-serial", port=str(number)), "model", name="isa-serial")
    else:
        # What kind of port it is, the machine knows.
        add(serial, "target", port=str(number))


def _check(spec: DomainSpec, firmware: Firmware) -> None:
    """DevicevmError for what a device VM without operating system cannot have."""
    if firmware.kind is not FirmwareKind.ELF and spec.arch not in (
        X86 if firmware.kind is FirmwareKind.ROM else X86[:1]
    ):
        raise DevicevmError(
            f"{spec.name}: {firmware.kind.value} firmware does not run on {spec.arch}",
            hint="use elf, or an x86 machine",
        )
    if spec.control or spec.console:
        what = "control port" if spec.control else "console"
        raise DevicevmError(f"{spec.name} runs firmware, which has no {what}: its serial ports are its devices")
    if spec.cpu_features:
        raise DevicevmError(f"{spec.name} runs firmware, which is not given instruction set extensions")
    for emulator in spec.emulators:
        if emulator.channel.kind != "stream":
            raise DevicevmError(
                f"{emulator.id}: firmware has no {emulator.channel.kind} channel", hint="its serial ports are stream"
            )
        if emulator.store or emulator.command:
            what = "backing storage" if emulator.store else "programs"
            raise DevicevmError(f"{emulator.id}: {spec.name} runs firmware, which has no {what}")
    if not spec.emulators:
        raise DevicevmError(f"{spec.name} runs firmware, and has no serial port to be reached at")
    if spec.arch in X86 and len(spec.emulators) > PC_SERIAL_PORTS:
        raise DevicevmError(
            f"{spec.emulators[PC_SERIAL_PORTS].id} is serial port number {PC_SERIAL_PORTS + 1} of {spec.name}, "
            f"a machine has room for {PC_SERIAL_PORTS}",
            hint="spread the devices over several device VMs: share.maxDevices",
        )
