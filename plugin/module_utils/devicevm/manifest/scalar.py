"""What a YAML scalar without quotes means, and where YAML's versions disagree about it."""

from __future__ import annotations

import math
import re

MAX_INTEGER = 2**63 - 1
"""What every JSON reader, libvirt and C program downstream can hold."""

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(form for word in ("true", "yes", "on") for form in (word, word.capitalize(), word.upper()))
_FALSE = frozenset(form for word in ("false", "no", "off") for form in (word, word.capitalize(), word.upper()))
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# YAML 1.1 reads 010 as 8 and 1_000 as 1000; YAML 1.2 reads 10 and the text "1_000".
_AMBIGUOUS = re.compile(
    r"[-+]?0[0-9_]+|0o[0-7]+|[-+]?[0-9]+_[0-9_]*|[-+]?0b[01_]+|[-+]?0x[0-9a-fA-F]*_[0-9a-fA-F_]*", re.ASCII
)


class BadScalar(ValueError):
    """The scalar has no meaning here; the arguments are the message and the hint."""


def resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar; BadScalar for one that has no place in JSON or means two things.

    `yes`, `on`... are booleans as everywhere in Kubernetes' world; dates, times and sexagesimal
    numbers (a MAC address can look like one) stay text.
    """
    if text in _NULLS:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _AMBIGUOUS.fullmatch(text):
        raise BadScalar(f"{text[:40]} is a different number to different readers of YAML", _ambiguity(text))
    if _NO_NUMBER.fullmatch(text):
        raise BadScalar(f"{text} is no number that JSON can hold", "write a finite number, or quote it")
    if _INTEGER.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return finite(float(text), text)
    return text


def _ambiguity(text: str) -> str:
    if re.fullmatch(r"0[0-7]{1,12}", text):
        return f"write {int(text, 8)} or {int(text)}; quote it when it is text"
    return "write it in plain decimal; quote it when it is text"


def _integer(text: str) -> int:
    # The length first: int() of a million digits takes its time, or refuses.
    number = int(text, 16 if text.startswith("0x") else 10) if len(text) <= 40 else MAX_INTEGER + 1
    return bounded(number, text)


def bounded(number: int, text: str = "") -> int:
    """The integer itself; BadScalar when it does not fit 64 bits."""
    if abs(number) > MAX_INTEGER:
        raise BadScalar(
            f"{(text or str(number))[:40]} is too large a number", "64 bits are the limit; quote it when it is text"
        )
    return number


def finite(number: float, text: str = "") -> int | float:
    """The number as JSON means it: 2.0 is the integer 2; BadScalar for NaN and infinities."""
    if not math.isfinite(number):
        raise BadScalar(f"{(text or str(number))[:40]} is no finite number", "write a finite number, or quote it")
    return bounded(int(number), text) if number.is_integer() else number
