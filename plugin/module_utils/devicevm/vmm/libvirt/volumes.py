"""Backing storage in libvirt's pools: volumes, looked up by pool and name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from ...errors import DevicevmError
from ...manifest.topology import Store
from ..stores import refuse_shrink
from .connection import binding, vmm_words
from .element import add, element, to_text

if TYPE_CHECKING:
    import libvirt


def ensure_volume(connection: libvirt.virConnect, store: Store) -> bool:
    """Create the volume, or grow it; True when it was created. The pool must be there and active."""
    pool = _pool(connection, store)
    volume = _volume(pool, store)
    what = f"volume {store.volume} of pool {store.pool}"
    with vmm_words(f"cannot make {what} {store.size} bytes large"):
        if volume is None:
            pool.createXML(to_text(volume_xml(store)), 0)
            return True
        capacity = int(volume.info()[1])
        refuse_shrink(what, capacity, store)
        if capacity < store.size:
            volume.resize(store.size, 0)
        return False


def volume_xml(store: Store) -> Element:
    """A raw volume that takes space as it is written."""
    volume = element("volume")
    add(volume, "name", store.volume)
    add(volume, "capacity", str(store.size), unit="bytes")
    add(volume, "allocation", "0", unit="bytes")
    add(add(volume, "target"), "format", type="raw")
    return volume


def delete_volume(connection: libvirt.virConnect, store: Store) -> None:
    """Delete the volume and its data. Idempotent."""
    volume = _volume(_pool(connection, store), store)
    if volume is not None:
        with vmm_words(f"cannot delete volume {store.volume} of pool {store.pool}"):
            volume.delete(0)


def _pool(connection: libvirt.virConnect, store: Store) -> libvirt.virStoragePool:
    with vmm_words(f"storage pool {store.pool} is not to be had"):
        pool = connection.storagePoolLookupByName(store.pool)
        active = pool.isActive()
    if not active:
        raise DevicevmError(f"storage pool {store.pool} is not active", hint=f"virsh pool-start {store.pool}")
    return pool


def _volume(pool: libvirt.virStoragePool, store: Store) -> libvirt.virStorageVol | None:
    libvirt = binding()
    try:
        return pool.storageVolLookupByName(store.volume)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        with vmm_words(f"volume {store.volume} of pool {store.pool} cannot be looked up"):
            raise
