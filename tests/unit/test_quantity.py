from __future__ import annotations

import re

import pytest
from devicevm.errors import DevicevmError
from devicevm.quantity import PATTERN, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 2**20),
        ("512B", 512),
        ("64MiB", 64 * 2**20),
        ("64Mi", 64 * 2**20),
        ("2Gi", 2 * 2**30),
        ("500M", 500 * 10**6),
        ("1kB", 1000),
        ("1.5GiB", 3 * 2**29),
        ("0.5Ki", 512),
        (4096, 4096),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 64MiB",
        "64 MiB",
        "64mib",
        "64K",
        "MiB",
        "-1",
        "1e3",
        ".5Gi",
        "1.MiB",
        "64MiB\n",
        "٣Mi",
        "1" * 19,
        "0.3Ki",
        "64Mb",
    ],
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(DevicevmError):
        parse_bytes(text)


@pytest.mark.parametrize("value", [-1, True, None, 1.5, [], b"1"])
def test_no_sizes_at_all(value: object) -> None:
    with pytest.raises(DevicevmError):
        parse_bytes(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 512, 1000, 1024, 1025, 3 * 2**29, 2**50, 2**60])
def test_formatted_sizes_are_read_back(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == size


def test_shortest_form() -> None:
    assert [format_bytes(size) for size in (0, 64 * 2**20, 1536, 1000)] == ["0B", "64MiB", "1536B", "1000B"]


@pytest.mark.parametrize(
    "unit", ["", "B", "k", "kB", "K", "KB", "Ki", "KiB", "m", "M", "Mi", "MiB", "GB", "Pi", "Ei", "Bi"]
)
def test_pattern_of_the_schemas_knows_the_same_units(unit: str) -> None:
    try:
        parse_bytes(f"1{unit}")
    except DevicevmError:
        assert not re.search(PATTERN, f"1{unit}")
    else:
        assert re.search(PATTERN, f"1{unit}")
