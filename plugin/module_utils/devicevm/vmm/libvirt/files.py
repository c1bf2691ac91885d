"""What a domain has on its host beside libvirt: overlay, sockets, console log."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

from ...channel.link import socket_of
from ...channel.region import file_of
from ...domain import Role
from ...errors import DevicevmError
from ...manifest.topology import Store
from .. import stores
from ..places import Places
from ..regions import remove_region
from .device_vm_xml import QEMU_NAMESPACE
from .metadata import find


def ensure_store(store: Store) -> bool:
    """Backing storage of the host's own: a file is created or grown, a block device is looked at."""
    if store.kind == "file":
        return stores.ensure_file(store)
    if store.kind == "block":
        stores.check_block(store)
        return False
    raise DevicevmError(f"store kind {store.kind!r} is unknown", hint="use file, block or volume")


def delete_store(store: Store) -> None:
    """A file is removed with its data; a block device is not devicevm's to wipe."""
    if store.kind == "file":
        stores.delete_file(store)


def remove(domain: Element, name: str, places: Places) -> None:
    """Remove what an undefined domain left. Idempotent.

    Paths come from the domain's XML, and count only inside devicevm's own directories: metadata is anybody's to edit.
    """
    for kind in ("channel", "serial"):
        for source in domain.iterfind(f"devices/{kind}/source[@mode='bind']"):
            remove_socket(source.get("path", ""), places)
    mark = find(domain)
    ours = mark is not None and mark.get("role") == Role.DEVICE_VM.value
    for argument in domain.iterfind(f"{{{QEMU_NAMESPACE}}}commandline/{{{QEMU_NAMESPACE}}}arg"):
        remove_socket(socket_of(argument.get("value", "")), places)
        if ours:  # a region is its device VM's, and other clients may have it
            remove_region(file_of(argument.get("value", "")))
    for log in domain.iterfind("devices/serial/log"):
        _remove_log(log.get("file", ""), places)
    if "/" not in name:
        _remove_inside(f"{places.overlays}/{name}.qcow2", places.overlays, stat.S_ISREG)


def remove_socket(address: str, places: Places) -> None:
    """Remove a channel's socket, which libvirt leaves behind. Idempotent."""
    _remove_inside(address, places.runtime, stat.S_ISSOCK)


def _remove_log(path: str, places: Places) -> None:
    """Remove a console log and what virtlogd has put aside of it: NAME.console.0, NAME.console.1..."""
    directory, name = os.path.split(path)
    if directory not in (str(places.runtime), str(places.logs)) or not name:
        return
    aside = re.compile(rf"{re.escape(name)}(\.[0-9]{{1,4}})?")
    with contextlib.suppress(FileNotFoundError):
        for found in os.listdir(directory):
            if aside.fullmatch(found):
                _remove_inside(f"{directory}/{found}", Path(directory), stat.S_ISREG)


def _remove_inside(path: str, directory: Path, kind: Callable[[int], bool]) -> None:
    if not path or os.path.dirname(path) != str(directory):
        return
    with contextlib.suppress(FileNotFoundError):
        if kind(os.lstat(path).st_mode):
            os.unlink(path)
