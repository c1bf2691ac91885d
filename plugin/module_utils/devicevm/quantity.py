"""Quantities: bytes as Kubernetes writes them (`64MiB`, `2Gi`, `500M`, `1048576`), and seconds to wait."""

from __future__ import annotations

import re
from decimal import Decimal

from .errors import DevicevmError

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_UNITS = {
    "": 1,
    "B": 1,
    **_BINARY,
    **{f"{unit}B": size for unit, size in _BINARY.items()},
    **_DECIMAL,
    **{f"{unit}B": size for unit, size in _DECIMAL.items()},
}
# Eighteen digits bound the arithmetic: a quantity of any length must not cost any time.
_FORM = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([A-Za-z]{0,3})", re.ASCII)

MAX_SECONDS = 7 * 24 * 3600.0
"""The longest wait that can be asked for: a week. C's types for times end somewhere."""

PATTERN = r"^[0-9]{1,18}(\.[0-9]{1,9})?([KMGTP]i|[kMGTP])?B?$"


def parse_bytes(text: str | int) -> int:
    """The number of bytes a quantity stands for; DevicevmError when it is none."""
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise DevicevmError(f"{text} is no size", hint="sizes are not negative")
        return text
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if not match or match[2] not in _UNITS:
        raise DevicevmError(f"{text!r} is no size", hint="write a number and a unit, such as 64MiB, 2Gi or 500M")
    size = Decimal(match[1]) * _UNITS[match[2]]
    if size != size.to_integral_value():
        raise DevicevmError(f"{text!r} is no whole number of bytes", hint="use a smaller unit, such as Mi for Gi")
    return int(size)


def check_seconds(name: str, seconds: float, *, least: float = 0.0) -> None:
    """DevicevmError unless `seconds` is a time that can be waited for: not too short, not endless, and a number."""
    # A comparison with nan is never true.
    if not least <= seconds <= MAX_SECONDS:
        raise DevicevmError(
            f"{name} is {seconds}, which is no time to wait", hint=f"give {least:g} to {MAX_SECONDS:g} seconds"
        )


def format_bytes(size: int) -> str:
    """The shortest exact form: 67108864 -> `64MiB`."""
    for unit in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        if size and size % _BINARY[unit] == 0:
            return f"{size // _BINARY[unit]}{unit}B"
    return f"{size}B"
