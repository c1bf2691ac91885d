"""Shared memory between a device VM, clients and the host, as the example declares it: judged by checksums that each
end works out by itself, and by what a client's own kernel makes of a write."""

from __future__ import annotations

import re
import stat
import sys
import zlib
from pathlib import Path

import pytest
from stage import Shell, Stage, run, shell_port
from stage_collection import REPO

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LARGE = 64 * 2**20
SAMPLES = 480
DEVICE = "/sys/bus/pci/devices/0000:00:18.0"
SOUND = "    - {name: sound, class: samples}\n"


def manifest(stage: Stage, *changes: tuple[str, str]) -> Path:
    """The example, with 64 MiB of memory and a shell in the client."""
    text = (REPO / "examples" / "region.yaml").read_text()
    boot = "    boot: {guestImage: client}\n"
    port = f'    domainXML: "{shell_port(stage.folder / "listener.shell")}"\n'
    for old, new in (("size: 1MiB", "size: 64MiB"), (boot, boot + port), *changes):
        assert old in text
        text = text.replace(old, new)
    path = stage.folder / "region.yaml"
    path.write_text(text)
    return path


def expected(number: int) -> int:
    """The CRC-32 of a frame, from what its samples are said to be."""
    first = number * SAMPLES
    return zlib.crc32(b"".join((n * (n >> 9) & 0xFFFF).to_bytes(2, "little") for n in range(first, first + SAMPLES)))


def followed(said: str) -> dict[int, int]:
    found = re.findall(r"^frame (\d+): 960 bytes, crc32 ([0-9a-f]{8})$", said, re.MULTILINE)
    return {int(number): int(crc, 16) for number, crc in found}


def heard_by_host(stage: Stage, count: int) -> dict[int, int]:
    path = stage.folder / "sound"
    return followed(run(sys.executable, "-m", "devicevm.ring", path, str(count)))


def heard_by_client(shell: Shell, count: int) -> dict[int, int]:
    return followed(shell.run(f"/usr/lib/devicevm/ring follow {DEVICE}/resource2 {count}"))


def right(frames: dict[int, int], count: int) -> bool:
    return len(frames) == count and all(crc == expected(number) for number, crc in frames.items())


def memory_of(stage: Stage) -> Path:
    """The file that is the region, as libvirt tells what QEMU maps."""
    (path,) = re.findall(r"mem-path=(/dev/shm/[^,]+),", stage.virsh("dumpxml", "lab"))
    return Path(path)


def poke(shell: Shell, value: int) -> str:
    """Write to the client's BAR past its driver; what is then read there."""
    shell.run(f"echo 1 >{DEVICE}/enable")
    address = int(shell.run(f"sed -n 3p {DEVICE}/resource").split()[0], 16) + LARGE - 4
    return shell.run(f"devmem {address:#x} 32 {value:#x}; devmem {address:#x} 32").strip()


def test_all_members_see_the_same_and_who_may_only_read_cannot_write(stage: Stage) -> None:
    path = manifest(stage)
    stage.devicevm("apply", path)
    memory = memory_of(stage)
    found = memory.stat()
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (LARGE, 0o600)
    shell = Shell(stage.folder / "listener.shell")
    assert right(heard_by_client(shell, 20), 20) and right(heard_by_host(stage, 20), 20)

    # The guest's write is dropped; on the host nobody can open it for writing, root included.
    assert poke(shell, 0x11223344) == "0x00000000"
    with memory.open("rb") as opened:
        opened.seek(LARGE - 4)
        assert opened.read() == bytes(4)
    with pytest.raises(OSError, match="Read-only"):
        (stage.folder / "sound").open("r+b")

    # The client dies: all others go on. Its device VM dies: the memory stays, and the count of frames goes on.
    stage.kill("listener")
    assert right(heard_by_host(stage, 5), 5)
    shell.close()
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "listener.shell")
    last = max(heard_by_client(shell, 1))
    stage.kill("lab")
    stage.devicevm("apply", path)
    again = heard_by_client(shell, 5)
    assert right(again, 5) and min(again) > last and right(heard_by_host(stage, 5), 5)
    assert stage.json("plan", path).get("steps", []) == []

    # Its restart is what gives a client the right to write.
    path = manifest(stage, (SOUND, SOUND.replace("}", ", parameters: {readOnly: false}}")))
    shell.close()
    stage.devicevm("apply", path)
    shell = Shell(stage.folder / "listener.shell")
    assert poke(shell, 0x11223344) == "0x11223344"
    with memory.open("rb") as opened:
        opened.seek(LARGE - 4)
        assert opened.read() == bytes.fromhex("44332211")
    assert right(heard_by_client(shell, 5), 5)
    shell.close()

    stage.devicevm("destroy", path)
    assert not memory.exists() and not (stage.folder / "sound").exists()
