"""libvirt's QEMU driver: system, session and embedded."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ...domain import DomainSpec, Role
from ...errors import DevicevmError
from ...inventory.supports import GUESTS, LIVE_DEVICES, STORES, VOLUMES
from ...part.keeper import Parts
from .. import console
from ..firmware import check_firmware
from ..overlay import ensure_overlay, make_overlay
from ..places import Places
from ..programming import Programmer
from ..regions import ensure_region, regions_of
from ..secrets import lent, remove_stale
from ..swtpm import check_swtpm
from . import embed
from .connection import vmm_words
from .driver import LibvirtDriver
from .image_xml import overlay_path
from .rejoin import connect_disks

if TYPE_CHECKING:
    import libvirt


class QemuDriver(LibvirtDriver):
    """Real guests. The embedded driver lacks storage pools."""

    undefine_flags = (
        "VIR_DOMAIN_UNDEFINE_NVRAM",
        "VIR_DOMAIN_UNDEFINE_MANAGED_SAVE",
        "VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA",
        "VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA",
    )

    def __init__(self, places: Places, *, accelerator: str = "auto", wait: float = 0.0) -> None:
        super().__init__(places, accelerator=accelerator, wait=wait)
        remove_stale(places.runtime)
        if places.embed_root:
            console.bound(places.logs)

    @property
    def supports(self) -> tuple[str, ...]:
        return (GUESTS, LIVE_DEVICES, STORES, *(() if self.places.embed_root else (VOLUMES,)))

    def prepare(self, spec: DomainSpec) -> None:
        self.prepare_runtime()
        if spec.role is Role.DEVICE_VM:
            if spec.firmware:
                check_firmware(spec.name, spec.firmware)
            elif not (spec.boot.kernel or spec.boot.image):
                raise DevicevmError(f"{spec.name} has no image to boot", hint="devicevm image build")
            self.programmer.check(spec)
            return
        check_swtpm(spec)
        if spec.boot.image:
            ensure_overlay(self._overlay(spec), spec.boot.image)

    def load(self, spec: DomainSpec) -> None:
        for region in regions_of(spec):
            ensure_region(region, self.qemu_user())
        if spec.role is Role.DEVICE_VM and spec.boot.image:
            make_overlay(self._overlay(spec), spec.boot.image)
        self.programmer.load(spec)

    def _overlay(self, spec: DomainSpec) -> Path:
        return Path(overlay_path(spec, str(self.places.overlays)))

    def hand_over(self, spec: DomainSpec) -> AbstractContextManager[None]:
        return lent(spec, self.qemu_user())

    def unload(self, uuid: str, spec: DomainSpec | None) -> None:
        self.programmer.unload(uuid, spec)

    def undefine(self, name: str) -> None:
        super().undefine(name)
        remove_stale(self.places.runtime)

    def connect_disks(self, domain: libvirt.virDomain, addresses: tuple[str, ...]) -> None:
        connect_disks(domain, addresses)

    @property
    def parts(self) -> Parts:
        user = self.qemu_user()
        return Parts(self.places.state / "parts", (user[0],) if user else ())

    @property
    def programmer(self) -> Programmer:
        """What programs blocks of this host."""
        return Programmer(self.places.private / "blocks")

    def qemu_user(self) -> tuple[int, int] | None:
        if self.places.embed_root is not None:
            return embed.qemu_user(self.places.embed_root)
        with vmm_words("cannot read the capabilities"):
            return _base_label(self.connection.getCapabilities())


def _base_label(capabilities: str) -> tuple[int, int] | None:
    """QEMU's (uid, gid): `<secmodel><model>dac</model><baselabel type='qemu'>+64055:+107</baselabel>`."""
    for model in ET.fromstring(capabilities).iterfind("host/secmodel"):
        if model.findtext("model") == "dac":
            label = re.fullmatch(r"\+?([0-9]+):\+?([0-9]+)", model.findtext("baselabel", ""))
            if label:
                return int(label[1]), int(label[2])
    return None
