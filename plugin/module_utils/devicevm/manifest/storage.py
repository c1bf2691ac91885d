"""Backing storage that a device's parameters declare."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DevicevmError
from ..quantity import parse_bytes
from .document import Place, shown
from .topology import ClassStorage, Store

SECTOR = 512
"""Bytes: the sector that every front end for disks counts in."""

KINDS = ("file", "block", "volume")

Finding = tuple[Place, str, str]
"""A place below the device's parameters, a message and a hint."""


def class_storage(spec: Mapping[str, Any]) -> ClassStorage | None:
    """The names of a class's storage parameters; None when its devices have no storage."""
    if "storage" not in spec:
        return None
    names = spec["storage"]
    usual = ClassStorage()
    return ClassStorage(
        store=names.get("store", usual.store),
        size=names.get("size", usual.size),
        read_only=names.get("readOnly", usual.read_only),
        within=names.get("within", usual.within),
    )


def declared_storage(names: ClassStorage | None, parameters: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The parameters that declare a device's storage; None when it has none."""
    if names is None:
        return None
    return parameters.get(names.within) if names.within else parameters


def store_of(names: ClassStorage, parameters: Mapping[str, Any], folder: Path | None) -> Store | None:
    """The store that checked parameters (`declared_storage`) declare, or None for content that lives in memory.

    A relative file path starts at `folder`. `size` is 0 for a block device that is taken as it is.
    """
    declared = parameters.get(names.store)
    if declared is None:
        return None
    (kind,) = (kind for kind in KINDS if kind in declared)
    volume = declared[kind] if kind == "volume" else {}
    return Store(
        kind=kind,
        size=parse_bytes(parameters.get(names.size, 0)),
        path="" if volume else absolute(declared[kind], folder),
        pool=volume.get("pool", ""),
        volume=volume.get("name", ""),
        read_only=parameters.get(names.read_only) is True,
        reclaim=declared.get("reclaim", "delete"),
    )


def storage_findings(names: ClassStorage, parameters: Mapping[str, Any], folder: Path | None) -> Iterator[Finding]:
    """What is wrong with the storage that parameters declare, whatever the class's own schema lets pass."""
    declared = parameters.get(names.store)
    if declared is not None:
        yield from _store_findings((names.store,), declared, folder)
    yield from _size_findings(names, parameters)
    read_only = parameters.get(names.read_only, False)
    if not isinstance(read_only, bool):
        yield (names.read_only,), f"true or false expected, {shown(read_only)} found", ""
    elif read_only and declared is None:
        why = "a read-only disk without a store would be empty for ever: it lives in memory and nobody can write to it"
        yield (names.read_only,), why, f"give it a {names.store}, or leave {names.read_only} out"


def absolute(path: str, folder: Path | None) -> str:
    """The path from the root; `folder` is where a relative one starts."""
    return os.path.normpath(os.path.join(folder or "/", path))


def relative_finding(place: Place, path: str, folder: Path | None) -> Iterator[Finding]:
    """The finding that a relative path has nowhere to start, if it is so."""
    if folder is None and not os.path.isabs(path):
        yield place, f"{shown(path)} is relative, and this document came from no file", "write the path from the root"


def _store_findings(place: Place, declared: Any, folder: Path | None) -> Iterator[Finding]:
    form = "{file: PATH}, {block: PATH} or {volume: {pool: NAME, name: NAME}}"
    kinds = [kind for kind in KINDS if isinstance(declared, Mapping) and kind in declared]
    if len(kinds) != 1:
        yield place, f"a store is {form}", ""
        return
    where = declared[kinds[0]]
    here = (*place, kinds[0])
    if kinds[0] == "volume":
        if not isinstance(where, Mapping) or not all(_is_word(where.get(key)) for key in ("pool", "name")):
            yield here, "a volume is {pool: NAME, name: NAME}", ""
    elif not isinstance(where, str) or not where:
        yield here, f"a path expected, {shown(where)} found", ""
    elif kinds[0] == "block" and not os.path.isabs(where):
        yield here, f"{shown(where)} is no path of a block device", "write it from the root, such as /dev/vg0/data"
    else:
        yield from relative_finding(here, where, folder)
    if declared.get("reclaim", "delete") not in ("retain", "delete"):
        yield (*place, "reclaim"), "retain or delete expected", ""


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "/" not in value


def _size_findings(names: ClassStorage, parameters: Mapping[str, Any]) -> Iterator[Finding]:
    declared = parameters.get(names.store)
    if names.size not in parameters:
        if declared is None:
            yield (
                (),
                f"{names.size} is missing",
                f"without a {names.store} the disk lives in memory, which needs its {names.size}",
            )
        elif not isinstance(declared, Mapping) or "block" not in declared:
            yield (), f"{names.size} is missing", "files and volumes are created when they are not there"
        return
    try:
        size = parse_bytes(parameters[names.size])
    except DevicevmError as error:
        yield (names.size,), error.message, error.hint
        return
    if size == 0 or size % SECTOR:
        yield (
            (names.size,),
            f"{size} bytes are no size of a disk",
            f"a disk has sectors of {SECTOR} bytes, one at least",
        )
