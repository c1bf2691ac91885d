"""A machine that boots a whole disk image by the image's own boot loader, in libvirt's XML.

The image itself is never written: what the machine writes goes to an overlay.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from ...domain import DomainSpec
from .element import add


def overlay_path(spec: DomainSpec, overlays: str) -> str:
    """The copy-on-write disk of a domain that boots from an image."""
    return f"{overlays}/{spec.name}.qcow2"


def add_system(domain: Element, spec: DomainSpec) -> Element:
    """`<os>` with the machine, and the firmware that starts it; nothing yet of what is booted."""
    efi = spec.boot.firmware == "efi"
    system = add(domain, "os", **({"firmware": "efi"} if efi else {}))
    add(system, "type", "hvm", arch=spec.arch, machine=spec.machine)
    if efi:
        # Without this libvirt picks the firmware that boots signed code only.
        add(add(system, "firmware"), "feature", enabled="no", name="secure-boot")
    return system


def add_image_disk(devices: Element, path: str, cache: str = "writeback") -> None:
    """The overlay at `path` as the first disk, which is booted."""
    disk = add(devices, "disk", type="file", device="disk")
    add(disk, "driver", name="qemu", type="qcow2", cache=cache, discard="unmap")
    add(disk, "source", file=path)
    add(disk, "target", dev="vda", bus="virtio")
    add(disk, "boot", order="1")
