"""What a kind of resource answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...domain import CpuPlacement
from ...manifest.topology import ResourceRequest
from ..ledger import Ledger


@dataclass(frozen=True)
class Fit:
    """It can be had: where, and why there. `vcpus` is how many virtual CPUs the device VM gets."""

    placement: CpuPlacement
    vcpus: int
    reason: str


@dataclass(frozen=True)
class Misfit:
    """It cannot be had: the numbers."""

    reason: str


class ResourceKind(Protocol):
    """One kind of resource. Pure: it reads the book and writes nothing."""

    @property
    def name(self) -> str:
        """What manifests call it."""

    def fit(self, request: ResourceRequest, ledger: Ledger) -> Fit | Misfit:
        """Where the request can be served on this host, or why not."""

    def fulfils(self, request: ResourceRequest, placement: CpuPlacement, ledger: Ledger) -> bool:
        """Whether a placement made earlier is what is asked for now."""

    def describe(self, request: ResourceRequest) -> str:
        """The request in words: `2 dedicated cores`."""


def words(request: ResourceRequest, noun: str) -> str:
    """`2 dedicated cores`, `1 thread`."""
    dedicated = "dedicated " if request.dedicated else ""
    return f"{request.count} {dedicated}{noun}{'s' if request.count != 1 else ''}"
