"""What a domain has on its host beside libvirt: boot configuration, overlay, sockets, console log."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

from ...errors import DevicevmError
from ...manifest.topology import Store
from ...planner.domain import DomainSpec
from .. import stores
from ..places import Places
from .device_vm_xml import config_path, config_text


def write_config(spec: DomainSpec, places: Places) -> None:
    """Write a device VM's boot configuration, whole or not at all: QEMU reads it when the device VM starts."""
    for directory in (places.state, places.configs):
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    path = Path(config_path(spec, str(places.configs)))
    text = config_text(spec)
    with contextlib.suppress(FileNotFoundError):
        if path.read_text(encoding="utf-8") == text:
            return
    # A new file in place of the old: libvirt may have given the old one to QEMU's user.
    half = path.with_suffix(".new")
    half.write_text(text, encoding="utf-8")
    half.chmod(0o644)
    half.rename(path)


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
    for source in domain.iterfind("devices/channel/source[@mode='bind']"):
        remove_socket(source.get("path", ""), places)
    for log in domain.iterfind("devices/serial/log"):
        _remove_inside(log.get("file", ""), places.runtime, stat.S_ISREG)
    if "/" not in name:
        for directory, suffix in ((places.configs, "json"), (places.overlays, "qcow2")):
            _remove_inside(f"{directory}/{name}.{suffix}", directory, stat.S_ISREG)


def remove_socket(address: str, places: Places) -> None:
    """Remove a channel's socket, which libvirt leaves behind. Idempotent."""
    _remove_inside(address, places.runtime, stat.S_ISSOCK)


def _remove_inside(path: str, directory: Path, kind: Callable[[int], bool]) -> None:
    if not path or os.path.dirname(path) != str(directory):
        return
    with contextlib.suppress(FileNotFoundError):
        if kind(os.lstat(path).st_mode):
            os.unlink(path)
