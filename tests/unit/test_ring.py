"""Rings in shared memory: the C program and the Python module read what the other writes, in a file as on a host."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.ring import Reader, Writer, map_region
from rings import SOURCES, built, read_by_c

SIZE = 16384


@pytest.fixture
def file() -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="dvm-ring-", dir="/dev/shm") as made:
        made.truncate(SIZE)
        yield Path(made.name)


@pytest.fixture
def producer(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program of a device VM, at 5000 frames a second."""
    command = [built(SOURCES / "ring.c"), "samples", file, "500000", "200"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        yield process
        process.kill()
        assert process.stderr and process.stderr.read() == b""


def opened(file: Path) -> Reader:
    memory = map_region(file)
    end = time.monotonic() + 10
    while True:
        try:
            return Reader(memory)
        except DevicevmError:
            assert time.monotonic() < end
            time.sleep(0.01)


def listen(reader: Reader, count: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    end = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < end
        if frame := reader.read():
            found[frame[0]] = frame[1]
    return found


def test_python_reads_what_c_writes(file: Path, producer: subprocess.Popen[bytes]) -> None:
    found = listen(opened(file), 500)
    for number, frame in found.items():
        first = number * 100
        assert frame == b"".join((n * (n >> 9) & 0xFFFF).to_bytes(2, "little") for n in range(first, first + 100))


def test_a_producer_that_died_goes_on_where_it_was(file: Path, producer: subprocess.Popen[bytes]) -> None:
    reader = opened(file)
    last = max(listen(reader, 10))
    producer.kill()
    producer.wait(10)
    command = [built(SOURCES / "ring.c"), "samples", file, "500000", "200"]
    with subprocess.Popen(command) as again:
        found = listen(reader, 100)
        again.kill()
    assert min(found) > last


def test_c_reads_what_python_writes(file: Path) -> None:
    writer = Writer(map_region(file, writable=True), 100)
    frames = [bytes([number]) * (number % 101) for number in range(writer.slots + 50)]
    for frame in frames:
        writer.write(frame)
    found = read_by_c(file, len(frames))
    wanted = [(number, len(frame), zlib.crc32(frame), 50) for number, frame in enumerate(frames)][50:]
    assert found == wanted


def test_both_programs_say_the_same(file: Path, producer: subprocess.Popen[bytes]) -> None:
    opened(file)
    said = [
        subprocess.run([*command, file, "2000"], capture_output=True, text=True, check=True, timeout=60).stdout
        for command in ([sys.executable, "-m", "devicevm.ring"], [built(SOURCES / "ring.c"), "follow"])
    ]
    found = [dict(re.findall(r"frame (\d+): 200 bytes, crc32 ([0-9a-f]{8})", text)) for text in said]
    assert [len(one) for one in found] == [2000, 2000]
    # One after the other: what is the same is how each frame's checksum follows from its number.
    for one in found:
        for number, crc in list(one.items())[::100]:
            first = int(number) * 100
            frame = b"".join((n * (n >> 9) & 0xFFFF).to_bytes(2, "little") for n in range(first, first + 100))
            assert int(crc, 16) == zlib.crc32(frame)


def test_a_slow_reader_is_told_what_it_lost() -> None:
    memory = bytearray(64 + 4 * 64)
    writer, reader = Writer(memory, 48), Reader(bytearray(memory))
    assert (writer.slots, writer.largest) == (4, 48) and reader.slots == 4
    reader = Reader(memory)
    for number in range(11):
        writer.write(str(number).encode())
    assert [reader.read() for _ in range(5)] == [*((number, str(number).encode()) for number in range(7, 11)), None]
    assert reader.lost == 7


def test_a_writer_of_another_shape_begins_anew_and_its_readers_go_with_it() -> None:
    memory = bytearray(4096)
    first = Writer(memory, 48)
    for _ in range(100):
        first.write(b"old")
    reader = Reader(memory)
    Writer(memory, 100).write(b"new")
    assert Reader(memory).slots < reader.slots
    assert reader.read() == (0, b"new") and reader.read() is None
    again = Reader(memory)
    assert (again.next, again.copy(0)) == (1, b"new")


def test_a_frame_that_is_being_written_is_not_there_yet() -> None:
    memory = bytearray(64 + 64)
    writer = Writer(memory, 48)
    reader = Reader(memory)
    writer.write(b"first")
    words = memoryview(memory).cast("Q")
    words[8] = 3  # frame 1 is being written over it
    assert reader.read() is None and reader.lost == 1


@pytest.mark.parametrize(("size", "largest"), [(64, 48), (4096, 0), (4096, 4096), (32, 8)])
def test_what_does_not_fit_is_refused(size: int, largest: int) -> None:
    with pytest.raises(DevicevmError):
        Writer(bytearray(size), largest)


def test_a_frame_that_is_too_long_is_refused() -> None:
    writer = Writer(bytearray(4096), 48)
    with pytest.raises(DevicevmError, match="49 bytes is too long: 48"):
        writer.write(bytes(49))


@pytest.mark.parametrize("field", ["sequence", "length", "checksum", "byte"])
def test_a_frame_that_is_not_as_it_was_written_does_not_come(file: Path, field: str) -> None:
    memory = map_region(file, writable=True)
    writer = Writer(memory, 48)
    for frame in (b"left alone", b"written over"):
        writer.write(frame)
    place = 64 + 64 + {"sequence": 0, "length": 8, "checksum": 12, "byte": 16}[field]
    assert (Reader(memory).copy(0), Reader(memory).copy(1)) == (b"left alone", b"written over")
    memory[place] ^= 0x80
    assert (Reader(memory).copy(0), Reader(memory).copy(1)) == (b"left alone", None)
    assert [number for number, *_rest in read_by_c(file, 3) or ()] == [0]
