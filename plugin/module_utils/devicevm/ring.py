"""Frames in shared memory: one writer, any number of readers, none of whom writes (docs/regions.md).

The same layout as plugin/guest/ring/devicevm_ring.h. Nothing that is read from the memory is trusted: each number is
read once and checked, and a frame comes out whole or not at all. Python has no words for the order in which a processor
writes; where that is not the program's order, as on ARM, a frame's checksum tells what is not whole yet.

    python3 -m devicevm.ring PATH [COUNT]     a line for each new frame: its number, length and CRC-32
"""

from __future__ import annotations

import mmap
import os
import sys
import time
import zlib
from pathlib import Path

from .errors import DevicevmError

MAGIC = int.from_bytes(b"DVMRING1", "little")
HEADER, SLOT_HEADER, ALIGN = 64, 16, 64
TRIES = 16
"""Slots that one call looks at."""

_HALF = 0xFFFFFFFF
_WHOLE = 2**64 - 1
_PAUSE = 0.001


def map_region(path: str | Path, *, writable: bool = False) -> mmap.mmap:
    """All of a region: a file, or the BAR of a PCI device in sysfs (resource2), which is enabled first."""
    path = Path(path)
    if path.name == "resource2":
        path.with_name("enable").write_text("1")
    file = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        if not size:
            raise DevicevmError(f"{path} is empty")
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        return mmap.mmap(file, size, access=access)
    finally:
        os.close(file)


class _Ring:
    """The memory as words, and the shape of the ring: as it was checked once."""

    def __init__(self, memory: mmap.mmap | bytearray | memoryview, shape: int | None = None) -> None:
        self._memory = memoryview(memory).cast("B")
        if sys.byteorder != "little" or len(self._memory) < HEADER:
            raise DevicevmError("no ring can be here: a little-endian machine and 64 bytes are needed")
        # Words are loaded and stored whole.
        self._words = self._memory[: len(self._memory) // 8 * 8].cast("Q")
        if shape is None:
            if self._words[0] != MAGIC:
                raise DevicevmError("there is no ring yet", hint="its writer makes it")
            shape = self._words[1]
        self.slots, self._slot = shape & _HALF, shape >> 32
        room = (len(self._memory) - HEADER) // max(self._slot, 1)
        if not self.slots or self._slot <= SLOT_HEADER or self._slot % ALIGN or room < self.slots:
            raise DevicevmError(f"{self.slots} slots of {self._slot} bytes do not fit {len(self._memory)} bytes")

    @property
    def largest(self) -> int:
        """Bytes of the longest frame."""
        return self._slot - SLOT_HEADER

    def _place(self, number: int) -> int:
        return HEADER + number % self.slots * self._slot


class Writer(_Ring):
    """The one writer. A ring of this shape which is there already goes on. DevicevmError when nothing fits."""

    def __init__(self, memory: mmap.mmap | bytearray | memoryview, largest: int) -> None:
        slot = -(-(largest + SLOT_HEADER) // ALIGN) * ALIGN
        size = len(memoryview(memory).cast("B"))
        shape = min(max(size - HEADER, 0) // slot, _HALF) | slot << 32
        if not 0 < largest <= _HALF - SLOT_HEADER - ALIGN:
            raise DevicevmError(f"no frame has {largest} bytes")
        super().__init__(memory, shape)
        words = self._words
        if (words[0], words[1]) != (MAGIC, shape):
            words[0] = 0
            for number in range(self.slots):
                words[self._place(number) // 8] = 0
            words[1], words[2] = shape, 0
            words[0] = MAGIC
        self.next = words[2]

    def write(self, frame: bytes) -> None:
        """Add a frame."""
        if len(frame) > self.largest:
            raise DevicevmError(f"a frame of {len(frame)} bytes is too long: {self.largest} fit")
        place = self._place(self.next)
        self._words[place // 8] = (2 * self.next + 1) & _WHOLE
        self._words[place // 8 + 1] = len(frame) | zlib.crc32(frame) << 32
        self._memory[place + SLOT_HEADER : place + SLOT_HEADER + len(frame)] = frame
        self._words[place // 8] = (2 * self.next + 2) & _WHOLE
        self.next = (self.next + 1) & _WHOLE
        self._words[2] = self.next


class Reader(_Ring):
    """A reader, from the next frame on. DevicevmError as long as nobody has made a ring that the memory can hold.
    `lost` counts the frames that it came too late for."""

    def __init__(self, memory: mmap.mmap | bytearray | memoryview) -> None:
        super().__init__(memory)
        self.next = self._words[2]
        self.lost = 0

    def read(self) -> tuple[int, bytes] | None:
        """The next frame and its number; None when there is none now."""
        head = self._words[2]
        behind = (head - self.next) & _WHOLE
        if behind > self.slots:  # overtaken; or the writer has begun anew, and so does the count
            start = max(head - self.slots, 0)
            self.lost += max(start - self.next, 0)
            self.next = start
        for _try in range(TRIES):
            if self.next == head:
                return None
            number, self.next = self.next, (self.next + 1) & _WHOLE
            frame = self.copy(number)
            if frame is not None:
                return number, frame
            self.lost += 1
        return None

    def copy(self, number: int) -> bytes | None:
        """Frame `number`, or None when it is not there (any more, or yet)."""
        place = self._place(number)
        whole = (2 * number + 2) & _WHOLE
        if self._words[place // 8] != whole:
            return None
        shape = self._words[place // 8 + 1]
        length = shape & _HALF
        if length > self.largest:
            return None
        frame = bytes(self._memory[place + SLOT_HEADER : place + SLOT_HEADER + length])
        return frame if self._words[place // 8] == whole and zlib.crc32(frame) == shape >> 32 else None


def _follow(path: str, count: int) -> None:
    memory = map_region(path)
    while True:
        try:
            reader = Reader(memory)
            break
        except DevicevmError:
            time.sleep(_PAUSE * 10)
    seen = 0
    while not count or seen < count:
        found = reader.read()
        if found is None:
            time.sleep(_PAUSE)
            continue
        number, frame = found
        sys.stdout.write(f"frame {number}: {len(frame)} bytes, crc32 {zlib.crc32(frame):08x}\n")
        sys.stdout.flush()
        seen += 1


if __name__ == "__main__":
    _follow(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
