"""Which driver serves which URI. A new VMM is one new driver and one line here."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import DevicevmError
from .driver import Driver
from .managed import ManagedDriver
from .places import default_embed_root, is_managed, places_of

SYSTEM = "qemu:///system"


def open_driver(
    uri: str | None = None, *, images: Path | None = None, accelerator: str = "auto", wait: float = 0.0
) -> Driver:
    """A connection to the VMM at `uri`; without one, see `default_uri`.

    `images`: the image store, by default the host's. `accelerator`: auto, kvm or tcg. `wait`: seconds to wait for an
    embedded VMM that another process has open. VmmError with libvirt's words when it cannot be reached.
    """
    # Here, for the core must load where libvirt's Python binding is not.
    from .libvirt.qemu import QemuDriver
    from .libvirt.test import TestDriver

    drivers = {"qemu": QemuDriver, "test": TestDriver}
    places = places_of(uri or default_uri(), images)
    if is_managed(places):
        return ManagedDriver(places, accelerator=accelerator)
    kind = urlsplit(places.uri).scheme.partition("+")[0]
    if kind not in drivers:
        raise DevicevmError(f"no driver for {places.uri}", hint=f"known: {', '.join(sorted(drivers))}")
    return drivers[kind](places, accelerator=accelerator, wait=wait)


def default_uri() -> str:
    """LIBVIRT_DEFAULT_URI, else the system's QEMU if libvirt answers there, else the user's embedded VMM."""
    from .libvirt.connection import answers

    named = os.environ.get("LIBVIRT_DEFAULT_URI", "")
    if named:
        return named
    return SYSTEM if answers(SYSTEM) else f"qemu:///embed?root={default_embed_root()}"
