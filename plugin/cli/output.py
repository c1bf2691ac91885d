"""What users see: results on standard output, everything else on standard error; plain where there is no terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ..record import to_data

if TYPE_CHECKING:
    from rich.console import Console

# Without a terminal nothing is wrapped or cut: other programs read it.
_UNBOUNDED = 100_000


def console(stream: TextIO | None = None) -> Console:
    """A rich console on `stream` (default: standard output) that takes text as it is: no markup, no emoji.

    Colours follow the terminal, NO_COLOR and TERM.
    """
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else _UNBOUNDED
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


def line(text: str = "", style: str = "", *, stream: TextIO | None = None) -> None:
    """One line of the result; `style` in rich's words, for terminals only."""
    stream = stream or sys.stdout
    text = printable(text)
    if style and stream.isatty():
        console(stream).print(text, style=style, soft_wrap=True)
    else:
        print(text, file=stream)


def note(text: str, style: str = "") -> None:
    """One line that is not the result, on standard error."""
    line(text, style, stream=sys.stderr)


def document(value: Any) -> None:
    """A result as JSON; records as `record.to_data` makes them."""
    print(json.dumps(to_data(value), indent=2, ensure_ascii=False))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows in aligned columns without lines around them, as `kubectl` and `virsh` write them."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        made.add_column(heading.upper(), overflow="fold")
    for row in rows:
        made.add_row(*(printable(cell) or "-" for cell in row))
    target = console()
    with target.capture() as capture:
        target.print(made)
    # Columns are filled up with spaces, the last one too.
    print("\n".join(text.rstrip() for text in capture.get().splitlines()))


def error(message: str, hint: str = "") -> None:
    """An error and what to do about it, on standard error."""
    note(f"error: {message}", "bold red")
    if hint:
        note(f"hint: {hint}")


def warning(message: str) -> None:
    """Something that did not stop the work, on standard error."""
    note(f"warning: {message}", "yellow")


def printable(text: str) -> str:
    """Text without what would steer a terminal: names and guests' words are other people's."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def size(count: int) -> str:
    """Bytes as people read them, rounded: `23.5GiB`. Where a number must be exact, quantity.format_bytes has it."""
    number, unit = float(max(count, 0)), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f}".removesuffix(".0") + unit


def interactive() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
