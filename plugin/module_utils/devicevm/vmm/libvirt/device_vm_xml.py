"""A device VM in libvirt's XML: the least machine that runs emulators, since every device costs boot time."""

from __future__ import annotations

from xml.etree.ElementTree import Element, register_namespace

from ...channel import link, region
from ...channel.registry import channel_kind, check_address
from ...channel.stream import CONTROLLER_PORTS, controllers_for, server_element
from ...domain import DomainSpec, Emulator
from ...errors import DevicevmError
from ...frontend.disk import letters
from ...guest.boot_config import CONTROL_PORT, FW_CFG_NAME, SECRET_NAME, boot_config, device_config, service_config
from ...manifest.topology import Store, Uplink, UplinkKind
from . import firmware_xml
from .element import add, element
from .firmware_xml import X86
from .hostdev_xml import hostdev_elements
from .image_xml import add_image_disk, add_system, overlay_path

QBOOT = "/usr/share/qemu/qboot.rom"
TCG_CPU = {"x86_64": ("qemu64", ("rdrand",)), "aarch64": ("cortex-a53", ())}
"""Model and features for QEMU's translator. x86: the usual model, and an instruction that fills the kernel's entropy
pool at once: without it the first random number takes a second. ARM: QEMU's default is a 32-bit model, which starts no
64-bit kernel, and `max` takes 3 s more to boot, for pointer authentication. Entropy comes with the device tree."""
DISKS = 256
"""Targets of QEMU's virtio-scsi controller."""
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
"""libvirt's for what it has no words of its own for."""
TCG_GLOBALS = ("virtio-serial-pci.ioeventfd=off",)
"""QEMU's translator leaves the guest for each notification anyway. By default it then wakes another thread to send the
emulator's answer; without that, a 4k read from a disk takes 0.35 ms instead of 0.49 ms while the cores are busy."""
register_namespace("qemu", QEMU_NAMESPACE)


def add_machine(domain: Element, spec: DomainSpec) -> None:
    """Firmware, kernel and boot configuration.

    There is no `<acpi/>`, unless a whole disk is booted, whose system may count on it: a PC without it, with qboot and
    a PVH kernel, boots in half the time. So the guest cannot power off; it reboots, and `on_reboot` ends it.
    """
    if spec.firmware:
        firmware_xml.add_machine(domain, spec, spec.firmware)
        return
    system = add_system(domain, spec)
    if spec.arch == "x86_64" and spec.machine == "pc" and not spec.boot.image:
        add(system, "loader", QBOOT, readonly="yes", type="rom")
    add_kernel(system, spec)
    if spec.arch in X86:
        features = add(domain, "features")
        if spec.boot.image:
            add(features, "acpi")
        add(features, "apic")
    _add_cpu(domain, spec)
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        add(domain, event, "destroy")
    config = boot_config([*map(service_config, spec.services), *map(device_config, spec.emulators)])
    items = add(domain, "sysinfo", type="fwcfg")
    add(items, "entry", config, name=FW_CFG_NAME)
    for secret in (secret for emulator in spec.emulators for secret in emulator.secrets):
        # Of that there is nothing in the XML but where it is while the domain starts.
        add(items, "entry", name=f"{SECRET_NAME}{secret.name}", file=secret.address)


def _add_cpu(domain: Element, spec: DomainSpec) -> None:
    """The processor, where it is not libvirt's default, with the extensions that were asked for."""
    features = spec.cpu_features
    if spec.accelerator == "tcg" and spec.boot.image:
        # A distribution may be built for a newer processor than the one that boots fastest.
        cpu = add(domain, "cpu", mode="maximum", check="none")
    elif spec.accelerator == "tcg" and spec.arch in TCG_CPU:
        model, always = TCG_CPU[spec.arch]
        # Not checked: libvirt takes what TCG adds of its own for a fault.
        cpu = add(domain, "cpu", mode="custom", match="exact", check="none")
        add(cpu, "model", model, fallback="forbid")
        features = tuple(sorted({*always, *features}))
    elif features:
        # Anything else than the host's own model would have to name one that has them.
        cpu = add(domain, "cpu", mode="host-model", check="full")
    else:
        return
    for feature in features:
        add(cpu, "feature", policy="require", name=feature)


def add_kernel(system: Element, spec: DomainSpec) -> None:
    """`<kernel>`, `<initrd>` and `<cmdline>`, where given."""
    boot = spec.boot
    for tag, text in (("kernel", boot.kernel), ("initrd", boot.initrd), ("cmdline", boot.command_line)):
        if text:
            add(system, tag, text)


def add_devices(devices: Element, spec: DomainSpec, overlays: str) -> None:
    """Controllers, console, the image's disk, the control port, each emulator's channel and backing disk, and devices
    of the host."""
    if spec.firmware:
        firmware_xml.add_devices(devices, spec)
        return
    add(devices, "controller", type="usb", index="0", model="none")
    for index in range(controllers_for(len(spec.emulators))):
        add(devices, "controller", type="virtio-serial", index=str(index), ports=str(CONTROLLER_PORTS))
    # Without ACPI there is no PCI hot-plug: backing disks come and go on this controller.
    add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    if spec.console:
        add_console(devices, spec)
    if spec.boot.image:
        # What is written to it is gone at the next start: nothing has to reach the host's disk.
        add_image_disk(devices, overlay_path(spec, overlays), cache="unsafe")
    if spec.control:
        devices.append(server_element(check_address(spec.control), CONTROL_PORT))
    taken = 0
    for emulator in spec.emulators:
        devices.extend(channel_elements(emulator))
        for serial, store in emulator.disks:
            devices.append(backing_disk(emulator.id, serial, store, taken))
            taken += 1
    if spec.uplink:
        devices.append(uplink_element(spec.uplink))
    devices.extend(hostdev_elements(spec))
    add(devices, "memballoon", model="none")


def arguments(spec: DomainSpec) -> list[str]:
    """What of a device VM libvirt has no words for, as QEMU's arguments: properties of devices, links and regions."""
    if spec.firmware:
        return []
    words = [word for one in TCG_GLOBALS for word in ("-global", one)] if spec.accelerator == "tcg" else []
    for number, channel in enumerate(spec.links):
        words += link.device_vm_arguments(check_address(channel.address), channel.port, number, pci_bus(spec.machine))
    for number, one in enumerate(spec.regions):
        place = region.place_of(pci_bus(spec.machine), region.DEVICE_VM_SLOT, number)
        words += region.member_arguments(f"region{number}", one.address, one.size, place, read_only=False)
    return words


def add_arguments(domain: Element, words: list[str]) -> None:
    """`<qemu:commandline>`, when there is anything to say."""
    if words:
        line = add(domain, f"{{{QEMU_NAMESPACE}}}commandline")
        for word in words:
            add(line, f"{{{QEMU_NAMESPACE}}}arg", value=word)


def pci_bus(machine: str) -> str:
    """QEMU's name of a machine's own PCI bus."""
    return "pci.0" if machine == "pc" or machine.startswith("pc-i440fx-") else "pcie.0"


def uplink_element(uplink: Uplink) -> Element:
    """A NIC on the host's network."""
    if uplink.kind is UplinkKind.TAP:
        nic = element("interface", type="ethernet")
        add(nic, "mac", address=uplink.mac)
        add(nic, "target", dev=uplink.name, managed="no")
    else:
        nic = element("interface", type="bridge")
        add(nic, "mac", address=uplink.mac)
        add(nic, "source", bridge=uplink.name)
    add(nic, "model", type="virtio")
    add(nic, "rom", enabled="no")
    return nic


def add_console(devices: Element, spec: DomainSpec) -> None:
    """Serial port 0: a pty for people, and a log of all that was written to it.

    A plain file would do for the log, but nobody could type.
    """
    serial = add(devices, "serial", type="pty")
    add(serial, "log", file=spec.console, append="off")
    if spec.arch in X86:
        add(add(serial, "target", type="isa-serial", port="0"), "model", name="isa-serial")


def channel_elements(emulator: Emulator) -> list[Element]:
    """The device VM's end of an emulator's channel; nothing for a kind that libvirt has no words for."""
    kind = channel_kind(emulator.channel.kind)
    address = check_address(emulator.channel.address)
    return [kind.device_vm(address, emulator.channel.port)] if kind.device_vm else []


def backing_disk(emulator: str, serial: str, store: Store, number: int) -> Element:
    """A SCSI disk with data of the device of that id, as declared in `store`; `number` is its target.

    Caching is writeback: the guest sees a volatile cache and flushes it, and its flushes reach the host's disk. What
    fails there is told to the emulator, and so to one client: by default QEMU pauses the guest when there is no room,
    and that is everybody's device VM.
    """
    if number >= DISKS:
        raise DevicevmError(
            f"{emulator} is disk number {number + 1}, a device VM has room for {DISKS}",
            hint="spread the devices over several device VMs: share.maxDevices",
        )
    disk = element("disk", type=store.kind, device="disk")
    add(disk, "driver", name="qemu", type="raw", cache="writeback", error_policy="report", discard="unmap")
    if store.kind == "volume":
        add(disk, "source", pool=store.pool, volume=store.volume)
    elif store.kind in ("file", "block"):
        add(disk, "source", **{"file" if store.kind == "file" else "dev": store.path})
    else:
        raise DevicevmError(f"{emulator}: store kind {store.kind!r} is unknown", hint="use file, block or volume")
    add(disk, "target", dev=f"sd{letters(number)}", bus="scsi")
    if store.read_only:
        add(disk, "readonly")
    add(disk, "serial", serial)
    # libvirt itself would put seven on a target, and the eighth on one more controller, of a model no guest here knows.
    add(disk, "address", type="drive", controller="0", bus="0", target=str(number), unit="0")
    return disk
