"""firmware: emulation code that is a machine's whole content, with no operating system under it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...domain import DomainSpec, Firmware, FirmwareKind
from ...inventory.host import FileFacts
from ...manifest.topology import ResourceRequest
from ..book import Book
from ..code import Code, serial_ports
from .kind import Footing, Misfit
from .microcode import TRANSLATOR

_SHOWN = 12
"""Digits of a digest that a person compares."""


@dataclass(frozen=True)
class FirmwareResource:
    """`options`: kind, file (from the root), arch, machine, memory (bytes; 0 = what the classes need).

    The machine runs on what else the alternative names. It is of the VMM's making: of another architecture than the
    host's, the VMM translates it. A device is a serial port of it.
    """

    name: str = "firmware"

    def fit(self, request: ResourceRequest, book: Book, footing: Footing) -> Misfit | None:
        """The image with its digest, when the VMM has the machine and the machine a port for each device."""
        options = request.options
        arch, machine = options["arch"], options["machine"]
        ports, devices = serial_ports(arch), footing.devices
        if devices > ports:
            plural = "" if ports == 1 else "s"
            return Misfit(
                lambda: f"{devices} devices asked, machine {machine} has {ports} serial port{plural}: share.maxDevices"
            )
        if lacks := _lacks(book, options["kind"], arch, machine):
            return Misfit(lambda: lacks)
        facts = book.host.file(options["file"])
        if facts and facts.problem:
            return Misfit(lambda: f"{options['file']}: {facts.problem}")
        where = f"on machine {machine}, which the VMM translates" if arch != book.host.arch else f"on machine {machine}"
        footing.memory = options["memory"] or footing.memory
        footing.arch = "" if arch == book.host.arch else arch
        footing.machine = machine
        footing.code = self.code(request, book)
        footing.why.append(lambda: f"{options['file']} ({_content(facts)}) {where}")
        return None

    def code(self, request: ResourceRequest, book: Book, running: DomainSpec | None = None) -> Code:
        """The image, with the digest that it has on the host; without, where the host's files were not looked at."""
        facts = book.host.file(request.options["file"])
        kind = FirmwareKind(request.options["kind"])
        return Code(firmware=Firmware(kind, request.options["file"], facts.digest if facts else ""))

    def fulfils(self, request: ResourceRequest, spec: DomainSpec, book: Book) -> bool:
        """It runs this very image on this machine; an image that is gone from the host may go on running."""
        asked, options = self.code(request, book).firmware, request.options
        if spec.firmware is None or asked is None:
            return False
        if not asked.digest:
            asked = replace(asked, digest=spec.firmware.digest)
        memory = options["memory"] in (0, spec.memory)
        return memory and (spec.firmware, spec.arch, spec.machine) == (asked, options["arch"], options["machine"])

    def describe(self, request: ResourceRequest) -> str:
        """`elf firmware thermometer.elf`."""
        return f"{request.options['kind']} firmware {request.options['file'].rpartition('/')[2]}"


def _content(facts: FileFacts | None) -> str:
    return f"SHA-256 {facts.digest[:_SHOWN]}" if facts and facts.digest else "not looked at"


def _lacks(book: Book, kind: str, arch: str, machine: str) -> str:
    """What of the machine the VMM does not have; empty when it has all, or does not tell."""
    host = book.host
    there = [one for one in host.guests if one.arch == arch]
    if arch != host.arch and not any(TRANSLATOR in one.accelerators for one in there):
        return f"the VMM has no translator for {arch}"
    machines = {name for one in there for name in one.machines}
    if machines and machine not in machines:
        return f"the VMM has no machine {machine} for {arch}, but {len(machines)} others"
    support = [one for one in host.support if one.arch == arch]
    if kind == FirmwareKind.UEFI.value and support and not any("efi" in one.firmwares for one in support):
        return f"the VMM has no UEFI for {arch}: install it (Debian: ovmf)"
    return ""


KIND = FirmwareResource()
