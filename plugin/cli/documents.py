"""JSON documents of devicevm's on disk: plans and inventories, read with bounds and written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..apply.check import check_version
from ..errors import DevicevmError
from ..inventory.host import Host
from ..inventory.sound import check_host
from ..planner.plan import Plan
from ..record import from_data, to_data
from ..whole import write_whole

MAX_BYTES = 64 * 2**20


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as data, what it is first: people read it."""
    return {"apiVersion": plan.api_version, "kind": plan.kind, **to_data(plan)}


def read_plan(paths: Sequence[str]) -> Plan | None:
    """The plan in the one file of `paths` that is a plan document; None when they are manifests."""
    if len(paths) != 1 or not os.path.isfile(paths[0]):
        return None
    with contextlib.suppress(OSError), open(paths[0], "rb") as stream:
        if stream.read(4096).lstrip()[:1] != b"{":
            return None
    data = _read(Path(paths[0]))
    if not isinstance(data, dict) or data.get("kind") != "Plan":
        return None
    # First of all: what another version writes need not have this one's form.
    check_version(data.get("apiVersion"), data["kind"])
    return from_data(Plan, data, paths[0])


def read_inventories(paths: Sequence[Path]) -> tuple[Host, ...]:
    """The hosts of inventory documents, by name; DevicevmError when one makes no sense, two have the same name, or a
    document has none."""
    hosts: dict[str, Host] = {}
    for path in paths:
        data = _read(path)
        if data == []:
            raise DevicevmError(f"{path}: no host is in it", hint="devicevm inventory -o json writes one")
        for item in data if isinstance(data, list) else [data]:
            host = from_data(Host, item, str(path))
            check_host(host, str(path))
            if host.name in hosts:
                raise DevicevmError(
                    f"{path}: there is a host {host.name!r} already",
                    hint="give hosts names of their own: devicevm inventory --name NAME, or edit `name`",
                )
            hosts[host.name] = host
    return tuple(hosts[name] for name in sorted(hosts))


def read_text(path: Path) -> str:
    """The text of a file; DevicevmError when it cannot be read or is too large."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DevicevmError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
        return content.decode()
    except OSError as error:
        raise DevicevmError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise DevicevmError(f"{path}: this is no UTF-8 text") from error


def write_document(path: Path, value: Any) -> None:
    """Write JSON, in place of a file that is there."""
    try:
        write_whole(path, json.dumps(to_data(value), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise DevicevmError(f"{path}: cannot be written: {error.strerror}") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DevicevmError(f"{path}: this is no JSON: {error}") from error
