"""The kinds of host parts. A new one is a file of its own and one line here."""

from __future__ import annotations

from ..errors import DevicevmError
from .fifo import FIFO
from .file import FILE
from .mount import MOUNT
from .part import Kind
from .region import REGION
from .tap import TAP
from .terminal import PTY
from .tpm import TPM

KINDS: dict[str, Kind] = {kind.name: kind for kind in (FIFO, FILE, MOUNT, PTY, REGION, TAP, TPM)}


def kind_named(name: str) -> Kind:
    """The kind of that name; DevicevmError names the known ones."""
    if name not in KINDS:
        raise DevicevmError(f"host part {name!r} is unknown", hint=f"known: {', '.join(sorted(KINDS))}")
    return KINDS[name]
