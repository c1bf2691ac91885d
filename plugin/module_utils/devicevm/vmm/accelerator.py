"""Which accelerator really runs guests on this host.

`/dev/kvm` that opens, and a libvirt that reports kvm, are no proof: under some paravirtual hypervisors a stock Linux
kernel hangs after the firmware. So `auto` boots something small once, and remembers what it saw until the host
reboots or QEMU changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DevicevmError
from ..whole import write_whole

# Where the kernel tells one boot of the host from the next.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# More console output than any kernel writes before it is ready.
_MAX_OUTPUT = 2**20


@dataclass(frozen=True)
class ProbeGuest:
    """A small guest and how it shows that it runs.

    It is ready when `expect` (bytes; empty = anything) comes out of the virtio-serial port `port`, or, without a
    port, out of the first ISA serial console. `ask` is sent to it from the start. `memory` in MiB.
    """

    kernel: Path
    initramfs: Path
    command_line: str
    expect: bytes = b""
    port: str = ""
    ask: bytes = b""
    memory: int = 256


def choose_accelerator(
    wanted: str, offered: tuple[str, ...], boots: Callable[[str], bool], cache: Path, key: str
) -> str:
    """The accelerator to use: `wanted`, or for `auto` the best of `offered` that works.

    `boots("kvm")` must boot a guest and tell whether it became ready; it is called at most once per `key`
    (verdict_key), the verdict is kept in the file `cache`. DevicevmError when what is wanted is not offered or does
    not work.
    """
    if wanted != "auto" and wanted not in offered:
        raise DevicevmError(
            f"accelerator {wanted}: the VMM offers {', '.join(offered) or 'none'}", hint="use accelerator: auto"
        )
    if wanted not in ("auto", "kvm"):
        return wanted
    if "kvm" in offered and _verdict(boots, cache, key):
        return "kvm"
    if wanted == "kvm":
        raise DevicevmError(
            "accelerator kvm: the VMM offers it, but a small guest did not become ready with it",
            hint=f"use accelerator: auto or tcg; to probe again, remove {cache}",
        )
    others = [name for name in ("tcg", *offered) if name in offered and name != "kvm"]
    if not others:
        raise DevicevmError(
            f"no accelerator works: the VMM offers {', '.join(offered) or 'none'}", hint="see: virsh capabilities"
        )
    return others[0]


def verdict_key(qemu_version: str, boot_id: Path = BOOT_ID) -> str:
    """What a verdict holds for: this boot of this host, and this QEMU."""
    try:
        return f"{boot_id.read_text(encoding='ascii').strip()} {qemu_version}"
    except OSError as error:
        raise DevicevmError(f"the host's boot id cannot be read: {error}") from error


def boots_with(
    accelerator: str, guest: ProbeGuest, *, emulator: str = "qemu-system-x86_64", timeout: float = 15.0
) -> bool:
    """Whether `guest` becomes ready under `accelerator` (kvm or tcg) within `timeout` seconds.

    Runs a QEMU of its own with neither disk nor network, and always ends it. False when QEMU fails or exits too.
    DevicevmError when there is no emulator, kernel or initramfs to try with: that is no verdict.
    """
    for file in (guest.kernel, guest.initramfs):
        if not file.is_file():
            raise DevicevmError(f"accelerator probe: {file} is not there", hint="build it: devicevm image build")
    command = _qemu_command(accelerator, guest, emulator)
    try:
        # A session of its own: Ctrl-C must reach us first, so that we end it.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise DevicevmError(f"accelerator probe: {emulator} does not start: {error}") from error
    try:
        # Should we be killed ourselves, a guest that spins does not outlive its time by much.
        with contextlib.suppress(OSError):
            seconds = int(timeout) * 4 + 10
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds))
        return _becomes_ready(process, guest, time.monotonic() + timeout)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def _qemu_command(accelerator: str, guest: ProbeGuest, emulator: str) -> list[str]:
    command = [emulator, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", accelerator]
    command += ["-m", str(guest.memory), "-kernel", str(guest.kernel), "-initrd", str(guest.initramfs)]
    command += ["-append", guest.command_line, "-chardev", "stdio,id=ready,signal=off"]
    if not guest.port:
        return [*command, "-serial", "chardev:ready"]
    # QEMU's option syntax doubles commas in values.
    port = guest.port.replace(",", ",,")
    return [*command, "-device", "virtio-serial", "-device", f"virtserialport,chardev=ready,name={port}"]


def _becomes_ready(process: subprocess.Popen[bytes], guest: ProbeGuest, deadline: float) -> bool:
    if process.stdin is None or process.stdout is None:
        return False
    if guest.ask:
        # A pipe takes this much at once; QEMU passes it on when the guest opens the port. One that has ended
        # already is seen below.
        with contextlib.suppress(OSError):
            os.write(process.stdin.fileno(), guest.ask[: select.PIPE_BUF])
    output = b""
    while (left := deadline - time.monotonic()) > 0 and len(output) < _MAX_OUTPUT:
        if not select.select([process.stdout], [], [], left)[0]:
            return False
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            return False
        output += chunk
        if guest.expect in output:
            return True
    return False


def _verdict(boots: Callable[[str], bool], cache: Path, key: str) -> bool:
    known = _read(cache)
    if known.get("key") == key and isinstance(known.get("kvm"), bool):
        return bool(known["kvm"])
    works = boots("kvm")
    # A cache that cannot be written costs the next run a probe, no more.
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, json.dumps({"key": key, "kvm": works}), mode=0o600)
    return works


def _read(cache: Path) -> dict[str, object]:
    try:
        data = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
