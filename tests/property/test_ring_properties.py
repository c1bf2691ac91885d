"""Rings whose memory says anything: whoever shares it may write what it likes, and a reader stays within it, comes to
an end, and gives out nothing but what has its checksum."""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

from devicevm.errors import DevicevmError
from devicevm.ring import MAGIC, Reader
from hypothesis import given, settings
from hypothesis import strategies as st
from rings import read_by_c

ODD = st.sampled_from([0, 1, 2, 49, 63, 64, 65, 127, 128, 2**16, 2**31, 2**32 - 1])
WORD = st.one_of(st.integers(0, 40), st.sampled_from([2**63, 2**64 - 1, 2**64 - 3]))
FRAME = 48


def mostly(right: int, wrong: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    return st.integers(0, 7).flatmap(lambda number: wrong if number == 0 else st.just(right))


@st.composite
def memories(draw: st.DrawFn) -> bytes:
    """A ring with a few frames in it, of which any number may be another one."""
    count = draw(st.integers(1, 8))
    body = b""
    for index in range(count):
        frame = draw(st.binary(max_size=FRAME))
        length = draw(mostly(len(frame), ODD))
        sequence = draw(mostly(2 * index + 2, WORD))
        crc = draw(mostly(zlib.crc32(frame), st.integers(0, 2**32 - 1)))
        body += struct.pack("<QII", sequence, length, crc) + frame.ljust(FRAME, b"\0")
    slots, size = draw(mostly(count, ODD)), draw(mostly(FRAME + 16, ODD))
    magic, head = draw(mostly(MAGIC, st.just(0))), draw(mostly(count, WORD))
    whole = struct.pack("<QIIQ", magic, slots, size, head).ljust(64, b"\0") + body
    return whole[: draw(mostly(len(whole), st.integers(1, len(whole))))]


def read_by_python(memory: bytes, reads: int) -> list[tuple[int, int, int, int]] | None:
    try:
        reader = Reader(bytearray(memory))
    except DevicevmError:
        return None
    reader.next = 0
    found = []
    for _ in range(reads):
        if (one := reader.read()) is not None:
            found.append((one[0], len(one[1]), zlib.crc32(one[1]), reader.lost))
            assert one[1] in memory and len(one[1]) <= reader.largest
    return found


@given(memories())
@settings(max_examples=150, deadline=None)
def test_c_and_python_make_the_same_of_any_memory(memory: bytes) -> None:
    with tempfile.NamedTemporaryFile(prefix="dvm-ring-", dir="/dev/shm") as file:
        file.write(memory)
        file.flush()
        assert read_by_c(Path(file.name), 30) == read_by_python(memory, 30)
