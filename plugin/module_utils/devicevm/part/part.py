"""A host part: a process on the host beside a device VM, between its channel and whoever uses the device there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

HOST_KINDS = {"nbd": "file", "egd": "fifo", "bytes": "pty", "ethernet": "tap", "memory": "region"}
"""For each protocol of device classes, the kind of part that shows such a device to the host itself."""

PATIENCE = 20.0
"""Seconds that a part may take until it can be used."""


@dataclass(frozen=True)
class Part:
    """One host part. `name` is unique on the VMM: lock and log are called so.

    `kind` names one of part/registry.py. `channel` is the socket of the device VM, `address` the path at which the
    device is found on the host: a socket, a link, a file. `options` are what only that kind understands.
    """

    kind: str
    name: str
    channel: str
    address: str
    options: dict[str, str] = field(default_factory=dict)


def host_kind(protocol: str, options: dict[str, str]) -> str:
    """The kind of part that shows a device of that protocol to the host; empty where it has none."""
    return "mount" if "mount" in options else HOST_KINDS.get(protocol, "")


class Stage(Protocol):
    """What the process gives the kind that it runs."""

    stop: int
    """A file descriptor that can be read once the part is to end."""
    users: frozenset[int]
    """User ids that may connect to a socket of the part's."""

    def ready(self) -> None:
        """The part can be used: whoever started it goes on."""

    def log(self, text: str) -> None:
        """A line for the part's log."""


def _let_go(part: Part) -> None:
    """Most parts can be ended at any time."""


@dataclass(frozen=True)
class Kind:
    """A kind of part. `serve` opens its address, says that it is ready and serves until `stage.stop`; then nothing of
    it is left. `clean` removes what a part has left at its address that was killed; what is not a part's stays.
    `leave` is asked before a part that runs is ended: DevicevmError when something would be lost, and then it goes on.
    `patience` in seconds, until it is ready."""

    name: str
    serve: Callable[[Part, Stage], None]
    clean: Callable[[Part], None]
    leave: Callable[[Part], None] = _let_go
    patience: float = PATIENCE
