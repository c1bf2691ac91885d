"""Programming an FPGA through the kernel's FPGA manager.

/sys/class/fpga_manager/fpgaN: `name`, `state` and `status` are the kernel's ABI
(Documentation/ABI/testing/sysfs-class-fpga-manager). Mainline has no file to program by; the vendors' kernels
(linux-xlnx: drivers/fpga/fpga-mgr.c) add `firmware`, which takes the name of a file below /lib/firmware and programs it
before the write returns, and `flags`, hexadecimal. A manager without `firmware` is refused with that reason.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DevicevmError

SYSFS = Path("/sys")
FIRMWARE = Path("/lib/firmware")
OPERATING = "operating"
SECONDS = 30.0
"""For a bitstream to be loaded; the largest devices take some seconds."""

# linux-xlnx copies the name into NAME_MAX bytes and cuts what is longer.
_MAX_NAME = 254
_MAX_TEXT = 4096
_PAUSE = 0.02
_PARTIAL = 1  # FPGA_MGR_PARTIAL_RECONFIG
_MANAGER = re.compile(r"fpga[0-9]{1,4}")
# Managers of reconfigurable regions (dfl-fme-mgr.c): they program a region through an ioctl, never a whole device.
_DFL = "DFL"

Write = Callable[[Path, str], None]


@dataclass(frozen=True)
class FpgaManager:
    """One FPGA manager of this host as it was when looked at. `status` holds the kernel's words for errors, if any.

    `device` is the address or name of the device that it programs (`0000:03:00.0`); empty where the kernel has no link.
    """

    id: str
    name: str
    state: str
    status: str = ""
    device: str = ""


def managers(sysfs: Path = SYSFS) -> tuple[FpgaManager, ...]:
    """The FPGA managers of this host, by number; none where the kernel has no such class."""
    folder = sysfs / "class" / "fpga_manager"
    found = [path.name for path in folder.glob("fpga*") if _MANAGER.fullmatch(path.name)] if folder.is_dir() else []
    return tuple(manager(name, sysfs) for name in sorted(found, key=lambda name: int(name.removeprefix("fpga"))))


def manager(id_: str, sysfs: Path = SYSFS) -> FpgaManager:
    """The manager `fpgaN`; DevicevmError when there is none, with those that there are."""
    folder = _folder(id_, sysfs)
    link = folder / "device"
    return FpgaManager(
        id=id_,
        name=_read(folder / "name"),
        state=_read(folder / "state"),
        status=_read(folder / "status") if (folder / "status").exists() else "",
        device=link.resolve().name if link.is_symlink() else "",
    )


def manager_of(device: str, sysfs: Path = SYSFS) -> FpgaManager:
    """The manager that programs a device (`0000:03:00.0`, or a platform device's name), directly or from below it."""
    found = []
    for each in managers(sysfs):
        link = _folder(each.id, sysfs) / "device"
        if link.is_symlink() and device in link.resolve().parts:
            found.append(each)
    if len(found) != 1:
        said = f" managers: {', '.join(each.id for each in found)}" if found else ""
        raise DevicevmError(
            f"{device} has {'several FPGA' + said if found else 'no FPGA manager'}",
            hint="the device's driver must be loaded: it registers the manager; ls -l /sys/class/fpga_manager/*/device",
        )
    return found[0]


def check_bitstream(name: str, firmware: Path = FIRMWARE) -> None:
    """DevicevmError when `name` is no file below the firmware folder that the kernel would find by that name."""
    parts = name.split("/")
    if not name.isprintable() or name.strip() != name or set(parts) & {"", ".", ".."} or "\\" in name:
        raise DevicevmError(f"{name!r} is no name of a bitstream", hint=f"write its path below {firmware}")
    if len(name.encode()) > _MAX_NAME:
        raise DevicevmError(
            f"the bitstream's name has {len(name.encode())} bytes, the kernel takes {_MAX_NAME}: {name[:60]}..."
        )
    path = firmware / name
    if not path.is_file():
        raise DevicevmError(f"there is no bitstream {path}", hint=f"put it below {firmware}")
    if path.stat().st_size == 0:
        raise DevicevmError(f"the bitstream {path} is empty")


def program(
    id_: str,
    bitstream: str,
    *,
    sysfs: Path = SYSFS,
    firmware: Path = FIRMWARE,
    timeout: float = SECONDS,
    write: Write | None = None,
) -> FpgaManager:
    """Program the whole device with `bitstream`, a name below `firmware`, and wait until it operates; what it is then.

    `timeout` in seconds counts for all of it. DevicevmError with the kernel's state and status when it fails, when it
    takes too long, and for what cannot be programmed here: regions (DFL, OPAE), kernels without `firmware`.
    Programming what is programmed already is done again: the kernel does not tell by what. No manager can erase: a
    device is cleared with a blank bitstream, or the next user would find the last one's circuit and its memory.
    """
    found = manager(id_, sysfs)
    folder = _folder(id_, sysfs)
    _refuse_unable(found, folder)
    check_bitstream(bitstream, firmware)
    deadline = time.monotonic() + timeout
    put = write or write_attribute
    what = f"{id_} ({found.name}): {bitstream} was not loaded"
    try:
        _patiently(lambda: put(folder / "firmware", bitstream), deadline, what)
    except DevicevmError as error:
        raise DevicevmError(f"{error.message}; {_condition(manager(id_, sysfs))}", hint=_hint(error.hint)) from error
    return _wait_operating(id_, sysfs, deadline, what, timeout)


def _refuse_unable(found: FpgaManager, folder: Path) -> None:
    if found.name.upper().startswith(_DFL):
        raise DevicevmError(
            f"{found.id} ({found.name}) programs regions of a device, which is not supported: "
            "partial reconfiguration needs the vendor's tools",
            hint="program it with the vendor's tool (fpgaconf of OPAE), and ask for the device without a bitstream",
        )
    if not (folder / "firmware").exists():
        raise DevicevmError(
            f"{found.id} ({found.name}): this kernel's FPGA manager has no file `firmware` to program it by",
            hint="use the vendor's kernel, or program it with the vendor's tool and ask for it without a bitstream",
        )
    flags = _read(folder / "flags") if (folder / "flags").exists() else "0"
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]{1,16}", flags):
        raise DevicevmError(f"{found.id}: its flags are {flags!r}, which is no number")
    if int(flags, 16) & _PARTIAL:
        raise DevicevmError(
            f"{found.id} ({found.name}) is set to partial reconfiguration (flags {flags}), which is not supported",
            hint=f"if nobody uses it: echo 0 > {folder / 'flags'}",
        )


def _wait_operating(id_: str, sysfs: Path, deadline: float, what: str, timeout: float) -> FpgaManager:
    while True:
        now = manager(id_, sysfs)
        if now.state == OPERATING and not now.status:
            return now
        if now.state.endswith("error") or now.state == OPERATING:
            raise DevicevmError(f"{what}; {_condition(now)}", hint=_hint())
        if time.monotonic() >= deadline:
            raise DevicevmError(f"{what} within {timeout:g} s; {_condition(now)}", hint=_hint())
        time.sleep(_PAUSE)


def _patiently(action: Callable[[], None], deadline: float, what: str) -> None:
    """Do `action` until `deadline`. The kernel programs within the write, which nothing interrupts: hence a thread."""
    failed: list[OSError] = []

    def run() -> None:
        try:
            action()
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(deadline - time.monotonic(), 0))
    if thread.is_alive():
        raise DevicevmError(f"{what}: the kernel is still at it", hint="look into dmesg; the device may be in use")
    if failed:
        raise DevicevmError(f"{what}: {failed[0].strerror}")


def _condition(now: FpgaManager) -> str:
    """`its state is write error, its status reconfig CRC error`."""
    status = ", ".join(now.status.splitlines())
    return f"its state is {now.state or 'not told'}" + (f", its status {status}" if status else "")


def _hint(before: str = "") -> str:
    return before or "look into dmesg; the bitstream must be for this very device"


def _folder(id_: str, sysfs: Path) -> Path:
    folder = sysfs / "class" / "fpga_manager" / id_
    if not _MANAGER.fullmatch(id_) or not folder.is_dir():
        there = ", ".join(path.name for path in sorted((sysfs / "class" / "fpga_manager").glob("fpga*")))
        raise DevicevmError(f"there is no FPGA manager {id_}", hint=f"there are: {there or 'none'}")
    return folder


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TEXT).decode("utf-8", "replace").strip()
    except OSError as error:
        raise DevicevmError(f"{path} cannot be read: {error.strerror}") from error


def write_attribute(path: Path, text: str) -> None:
    """One write of the whole text, as sysfs wants it. No file is made: sysfs has it or has it not."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
