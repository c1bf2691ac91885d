"""The blocks of a domain: programmed before it starts, cleared when it has ended.

A note in the VMM's private directory says which domain a block was programmed for, and how it is cleared: a device VM
may end by itself, and whoever comes later must not clear what is somebody else's by now. A reboot, which makes the
notes vanish, takes the circuits away too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from ..domain import DomainSpec, HostDevice
from ..errors import DevicevmError
from ..whole import write_whole
from . import fpga

_MAX_NOTE = 4096


@dataclass(frozen=True)
class Programmer:
    """What programs the host's blocks. `notes` is its folder; the others are the kernel's, but for tests."""

    notes: Path
    sysfs: Path = fpga.SYSFS
    firmware: Path = fpga.FIRMWARE
    write: fpga.Write = fpga.write_attribute

    def check(self, spec: DomainSpec) -> None:
        """DevicevmError when a bitstream that a domain will need is not there."""
        for device in _programmed(spec):
            for name in (device.bitstream, device.clear):
                fpga.check_bitstream(name, self.firmware)

    def load(self, spec: DomainSpec) -> None:
        """Program the blocks of a domain that is about to start: while it runs, they are VFIO's and have no manager."""
        self.check(spec)
        for device in _programmed(spec):

            def put(path: Path, text: str, device: HostDevice = device) -> None:
                # Before anything of it can be in the block.
                self._note(device, spec.uuid)
                self.write(path, text)

            self._program(device.address, device.bitstream, put)

    def unload(self, uuid: str, spec: DomainSpec | None = None) -> None:
        """Clear what was programmed for a domain that has ended. DevicevmError when a block cannot be cleared, or when
        a note on a block of `spec`, which it was defined by, cannot be read: then it is not to be given to anybody."""
        own = {device.address for device in _programmed(spec)} if spec else set()
        for path, clear in self._notes_of(uuid, own):
            try:
                self._program(path.name, clear, self.write)
            except DevicevmError as error:
                hint = f"{error.hint}; when you have cleared it yourself, remove {path}"
                raise DevicevmError(f"block {path.name} could not be cleared: {error.message}", hint=hint) from error
            path.unlink(missing_ok=True)

    def _program(self, address: str, bitstream: str, write: fpga.Write) -> None:
        manager = fpga.manager_of(address, self.sysfs)
        fpga.program(manager.id, bitstream, sysfs=self.sysfs, firmware=self.firmware, write=write)

    def _note(self, device: HostDevice, uuid: str) -> None:
        self.notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps({"domain": uuid, "clear": device.clear})
        # What it does not say, nobody would clear.
        write_whole(self.notes / device.address, text, mode=0o600)

    def _notes_of(self, uuid: str, own: Set[str]) -> Iterator[tuple[Path, str]]:
        """(note, blank bitstream) of each block that was programmed for the domain last; `own` are those it has."""
        for path in sorted(self.notes.glob("[!.]*")):
            try:
                with path.open("rb") as file:
                    data = json.loads(file.read(_MAX_NOTE))
                mine, clear = data["domain"] == uuid, str(data["clear"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                if path.name not in own:
                    continue
                raise DevicevmError(
                    f"{path} does not say whose block it was programmed for: {error}",
                    hint="clear the block yourself, then remove the file",
                ) from error
            if mine:
                yield path, clear


def _programmed(spec: DomainSpec) -> list[HostDevice]:
    return [device for device in spec.host_devices if device.bitstream]
