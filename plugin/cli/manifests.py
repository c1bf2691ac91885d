"""The user's manifests, read with the schemas and device classes that come with devicevm."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

from ..errors import Problem
from ..manifest.read import check, read_images, read_topology
from ..manifest.topology import Topology
from .data import data


def read(paths: Sequence[str]) -> Topology:
    """What the manifests declare; InvalidManifest with every problem."""
    return read_topology(paths, schemas=data("schemas"), classes=data("classes"), stdin=_stdin())


def find_problems(paths: Sequence[str]) -> list[Problem]:
    """Everything that is wrong with the manifests, sorted by place."""
    return check(paths, schemas=data("schemas"), classes=data("classes"), stdin=_stdin())


def read_recipes(paths: Sequence[str]) -> list[dict[str, Any]]:
    """The Image documents among the manifests, checked, as plain data."""
    return read_images(paths, schemas=data("schemas"), stdin=_stdin())


def _stdin() -> BinaryIO | None:
    return getattr(sys.stdin, "buffer", None)
