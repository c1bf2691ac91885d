"""libvirt's test driver: everything but guests' own behaviour, in this process, with no privileges."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.dom import minidom

from ...domain import DomainSpec, Emulator
from ...inventory.cpuset import format_cpuset
from ...inventory.supports import VOLUMES
from ...manifest.topology import Store
from ..driver import VmmError
from .attached import Change
from .driver import LibvirtDriver
from .element import add, parse, to_text

if TYPE_CHECKING:
    import libvirt


class TestDriver(LibvirtDriver):
    """Domains have states and XML but run nothing. Files of the host are left alone."""

    __test__ = False  # pytest: the name is no test's

    @property
    def supports(self) -> tuple[str, ...]:
        return (VOLUMES,)

    def live_xml(self, domain: libvirt.virDomain) -> str:
        # Calls know half of this driver's CPUs only: who is pinned to all of those is pinned to none. Of I/O threads,
        # which cannot be pinned, none runs.
        every = format_cpuset(range(self.connection.getCPUMap(0)[0]))
        tree = parse(super().live_xml(domain), "the live XML of a domain")
        for parent in (tree, *tree.findall("cputune")):
            for child in [
                one for one in parent if one.tag in ("iothreads", "iothreadids") or one.get("cpuset") == every
            ]:
                parent.remove(child)
        return to_text(tree)

    def pin_vcpu(self, domain: libvirt.virDomain, number: int, cpus: tuple[bool, ...], *, live: bool) -> None:
        # Here the call that takes flags takes none.
        if live:
            domain.pinVcpu(number, cpus)
        else:
            self._define_pin(domain, cpus, "vcpupin", vcpu=str(number))

    def pin_iothread(self, domain: libvirt.virDomain, number: int, cpus: tuple[bool, ...], *, live: bool) -> None:
        # There is no call, and nothing that runs.
        if not live:
            self._define_pin(domain, cpus, "iothreadpin", iothread=str(number))

    def pin_emulator(self, domain: libvirt.virDomain, cpus: tuple[bool, ...], *, live: bool) -> None:
        if live:
            super().pin_emulator(domain, cpus, live=True)
        else:
            self._define_pin(domain, cpus, "emulatorpin")

    def _define_pin(self, domain: libvirt.virDomain, cpus: tuple[bool, ...], tag: str, **attributes: str) -> None:
        tree = self.xml_of(domain, live=False)
        tune = tree.find("cputune")
        if tune is None:
            tune = add(tree, "cputune")
        for pin in [one for one in tune if one.tag == tag and attributes.items() <= one.attrib.items()]:
            tune.remove(pin)
        add(tune, tag, **attributes, cpuset=format_cpuset(cpu for cpu, on in enumerate(cpus) if on))
        self.connection.defineXML(to_text(tree))

    def attach_emulator(self, name: str, emulator: Emulator) -> None:
        raise VmmError(f"cannot attach {emulator.id} to {name}: libvirt's test driver has no live devices")

    def detach_emulator(self, name: str, emulator: Emulator) -> None:
        raise VmmError(f"cannot detach {emulator.id} from {name}: libvirt's test driver has no live devices")

    def change_definition(self, domain: libvirt.virDomain, change: Change) -> None:
        # There are no calls for it here, so it is defined anew; this parser keeps the prefixes in others' metadata.
        document = _parsed(domain.XMLDesc(self.libvirt.VIR_DOMAIN_XML_INACTIVE))
        (devices,) = document.getElementsByTagName("devices")
        for item in _elements(devices):
            if any(alias.getAttribute("name") in change.remove for alias in item.getElementsByTagName("alias")):
                devices.removeChild(item)
        for made in change.add:
            for item in _elements(_parsed(to_text(made))):
                devices.appendChild(document.importNode(item, True))
        if change.remove or change.add:
            self.connection.defineXML(document.toxml())

    def ensure_store(self, store: Store) -> bool:
        return super().ensure_store(store) if store.kind == "volume" else False

    def delete_store(self, store: Store) -> None:
        if store.kind == "volume":
            super().delete_store(store)

    def console_tail(self, spec: DomainSpec, lines: int) -> tuple[str, ...]:
        return ()


def _parsed(text: str) -> minidom.Document:
    return minidom.parseString(text)  # noqa: S318 - libvirt's own, or ours


def _elements(parent: minidom.Document | minidom.Element) -> list[minidom.Element]:
    return [child for child in parent.childNodes if isinstance(child, minidom.Element)]
