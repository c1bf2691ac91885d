"""What libvirt's drivers have in common: domains defined, started, observed and forgotten through its API.

The rule that nothing of another owner's is touched is kept here: every change looks the domain up first, and
reads whose it is from its metadata.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from ...channel.registry import channel_kind
from ...domain import DomainSpec, Emulator, ObservedDomain
from ...inventory.host import Host
from ...manifest.topology import Consumer, Store
from .. import console
from ..driver import Driver, VmmError
from ..places import Places, make_logs, make_runtime
from . import attached, attaching, files, hotplug, inventory, observation, pinning, rejoin, volumes
from .connection import binding, close_connection, define_validated, open_connection, vmm_words
from .domain_xml import domain_xml
from .element import element, parse, to_text
from .metadata import NAMESPACE, PREFIX, find, ready_mark

if TYPE_CHECKING:
    import libvirt


class LibvirtDriver(Driver):
    """One libvirt connection. `accelerator` is what the user wants: auto, kvm or tcg."""

    undefine_flags: tuple[str, ...] = ()
    """Names of libvirt's constants: what goes with a domain when it is forgotten."""

    def __init__(self, places: Places, *, accelerator: str = "auto", wait: float = 0.0) -> None:
        self.places = places
        self.accelerator = accelerator
        self._closed = False
        self.libvirt = binding()
        self.connection: libvirt.virConnect = open_connection(places, wait=wait)

    @property
    def supports(self) -> tuple[str, ...]:
        """What this driver can do, in the words of inventory/supports.py."""
        return ()

    def host(self) -> Host:
        return inventory.host(self)

    def observe(self) -> tuple[ObservedDomain, ...]:
        with vmm_words("cannot list domains"):
            found = observation.observe(self.connection, str(self.places.state))
        return tuple(self._with_parts(domain) for domain in found)

    def domain_names(self) -> frozenset[str]:
        with vmm_words("cannot list domains"):
            return frozenset(domain.name() for domain in self.connection.listAllDomains(0))

    def render(self, spec: DomainSpec) -> str:
        if spec.consumer is Consumer.EXISTING:
            devices = element("devices")
            devices.extend(item for items in attached.devices_of(spec, ()).values() for item in items)
            return to_text(devices, pretty=True)
        return to_text(domain_xml(spec, str(self.places.state)), pretty=True)

    def define(self, spec: DomainSpec) -> None:
        text = to_text(domain_xml(spec, str(self.places.state)))
        named = self._lookup(spec.name)
        self._refuse_foreign(spec.name, named, spec.owner)
        self._refuse_other_identity(spec, named)
        self.prepare(spec)
        with vmm_words(f"cannot define {spec.name}"):
            if named is not None and spec.autostart is None and self._kept_autostart(named):
                # It is not asked for any more; first of all, for the new definition does not know that it was.
                named.setAutostart(0)
            made = define_validated(self.connection, text)
            if spec.autostart is not None and bool(made.autostart()) != spec.autostart:
                made.setAutostart(int(spec.autostart))

    def start(self, name: str) -> None:
        domain = self._ours(name)
        if domain is None:
            raise VmmError(f"cannot start {name}: no such domain")
        with vmm_words(f"cannot start {name}"):
            if domain.isActive():
                return
        spec = self._defined(domain)
        handed: AbstractContextManager[None] = nullcontext()
        if spec is not None:
            self.prepare(spec)
            self.load(spec)
            handed = self.hand_over(spec)
        with vmm_words(f"cannot start {name}"), handed:
            try:
                domain.create()
            except self.libvirt.libvirtError:
                if not domain.isActive():  # somebody else was faster
                    raise

    def stop(self, name: str) -> None:
        domain = self._ours(name)
        if domain is None:
            return
        spec = self._defined(domain)
        with vmm_words(f"cannot stop {name}"):
            try:
                if domain.isActive():
                    domain.destroy()
            except self.libvirt.libvirtError:
                if self._lookup(name) is not None and domain.isActive():
                    raise
            uuid = domain.UUIDString()
        self.unload(uuid, spec)

    def rejoin(self, uuid: str, owner: str, addresses: tuple[str, ...]) -> None:
        domain = self._lookup_uuid(uuid)
        if domain is None:
            return
        with vmm_words(f"cannot let {domain.name()} go on"):
            if not domain.isActive():
                return
            tree = self.xml_of(domain, live=False)
            if not any(mark.get("owner") == owner and mark.get("uuid") == uuid for mark in attached.marks(tree)):
                self._refuse_foreign(domain.name(), domain, owner)
            self.connect_disks(domain, addresses)
            rejoin.go_on(domain)

    def resume(self, name: str) -> bool:
        domain = self._lookup(name)
        with vmm_words(f"cannot let {name} go on"):
            if domain is None or not rejoin.is_stalled(domain):
                return False
            self._refuse_foreign(name, domain, None)
            return rejoin.try_again(domain)

    def connect_disks(self, domain: libvirt.virDomain, addresses: tuple[str, ...]) -> None:
        """Have the VMM connect again to the disks at these addresses; the base driver's guests have none."""

    def undefine(self, name: str) -> None:
        domain = self._ours(name)
        if domain is None:
            return
        with vmm_words(f"cannot undefine {name}"):
            if domain.isActive():
                raise VmmError(f"cannot undefine {name}: it runs")
            uuid = domain.UUIDString()
        # Until its blocks are cleared it holds them: nobody else is given what this domain has left in them.
        self.unload(uuid, self._defined(domain))
        with vmm_words(f"cannot undefine {name}"):
            tree = self.xml_of(domain, live=False)
            flags = sum(getattr(self.libvirt, flag) for flag in self.undefine_flags)
            domain.undefineFlags(flags)
            self._end_late_start(domain)
        files.remove(tree, name, self.places)

    def is_active(self, name: str) -> bool:
        domain = self._lookup(name)
        with vmm_words(f"cannot see whether {name} runs"):
            return domain is not None and bool(domain.isActive())

    def attach_emulator(self, name: str, emulator: Emulator) -> None:
        domain = self._running(name)
        self.prepare_runtime()
        with vmm_words(f"cannot attach {emulator.id} to {name}"):
            for device in hotplug.missing(self.xml_of(domain, live=True), emulator):
                domain.attachDeviceFlags(to_text(device), self.libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def detach_emulator(self, name: str, emulator: Emulator) -> None:
        domain = self._running(name)
        with vmm_words(f"cannot detach {emulator.id} from {name}"):
            for device in hotplug.present(self.xml_of(domain, live=True), emulator):
                domain.detachDeviceFlags(to_text(device), self.libvirt.VIR_DOMAIN_AFFECT_LIVE)
            hotplug.wait_until_gone(lambda: self.xml_of(domain, live=True), emulator, name)
        if channel_kind(emulator.channel.kind).has_port:  # else it is there as long as the device VM runs
            files.remove_socket(emulator.channel.address, self.places)

    def open_ports(self, name: str) -> frozenset[str]:
        targets = self.xml_of(self._running(name), live=True).iterfind("devices/channel/target[@state='connected']")
        return frozenset(target.get("name", "") for target in targets)

    def pin(self, spec: DomainSpec) -> None:
        domain = self._running(spec.name)
        with vmm_words(f"cannot pin {spec.name}"):
            count = pinning.cpu_count(self.connection)
            pins = spec.placement.vcpus or ((),) * spec.vcpus
            for number, cpus in enumerate(pins):
                self.pin_vcpu(domain, number, pinning.cpu_map(cpus, count), live=True)
            emulator = pinning.cpu_map(spec.placement.emulator, count)
            self.pin_emulator(domain, emulator, live=True)

    def repin(self, name: str, uuid: str, cpus: tuple[int, ...], owner: str) -> None:
        domain = self._lookup(name)
        if domain is None:
            return
        if domain.UUIDString() != uuid:
            raise VmmError(f"domain {name} is another one than when the plan was made", hint="make the plan anew")
        with vmm_words(f"cannot move {name}"):
            pinning.repin(self, domain, cpus, owner)

    def live_xml(self, domain: libvirt.virDomain) -> str:
        """The XML of a running domain as it is now."""
        return str(domain.XMLDesc(0))

    def pin_vcpu(self, domain: libvirt.virDomain, number: int, cpus: tuple[bool, ...], *, live: bool) -> None:
        """Pin one virtual CPU of a running domain, or of a definition."""
        flag = self.libvirt.VIR_DOMAIN_AFFECT_LIVE if live else self.libvirt.VIR_DOMAIN_AFFECT_CONFIG
        domain.pinVcpuFlags(number, cpus, flag)

    def pin_iothread(self, domain: libvirt.virDomain, number: int, cpus: tuple[bool, ...], *, live: bool) -> None:
        """Pin one I/O thread of a running domain, or of a definition."""
        flag = self.libvirt.VIR_DOMAIN_AFFECT_LIVE if live else self.libvirt.VIR_DOMAIN_AFFECT_CONFIG
        domain.pinIOThread(number, cpus, flag)

    def pin_emulator(self, domain: libvirt.virDomain, cpus: tuple[bool, ...], *, live: bool) -> None:
        """Pin the VMM's own threads of a running domain, or of a definition."""
        flag = self.libvirt.VIR_DOMAIN_AFFECT_LIVE if live else self.libvirt.VIR_DOMAIN_AFFECT_CONFIG
        domain.pinEmulator(cpus, flag)

    def mark(self, spec: DomainSpec) -> None:
        domain = self._running(spec.name)
        with vmm_words(f"cannot write the metadata of {spec.name}"):
            self.set_metadata(domain, ready_mark(spec), PREFIX, NAMESPACE, self.libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def attach_client(self, spec: DomainSpec) -> None:
        domain = self._lookup_uuid(spec.uuid)
        name = domain.name() if domain is not None else None
        if domain is None or name != spec.domain:
            now = f"it is called {name} now" if name else "it is gone"
            raise VmmError(
                f"cannot attach {spec.name}: domain {spec.domain} has changed: {now}", hint="make the plan anew"
            )
        with vmm_words(f"cannot attach {spec.name} to domain {name}"):
            attaching.attach(self, domain, spec)

    def detach_client(self, client: str, owner: str, uuid: str) -> None:
        domain = self._lookup_uuid(uuid)
        if domain is not None:
            with vmm_words(f"cannot detach {client} from domain {domain.name()}"):
                attaching.detach(self, domain, owner, client)

    def change_definition(self, domain: libvirt.virDomain, change: attached.Change) -> None:
        """Add devices to, and remove devices from, the definition of an existing domain."""
        attaching.change_definition(self, domain, change)

    def set_metadata(
        self, domain: libvirt.virDomain, tree: Element | None, prefix: str, namespace: str, state: int
    ) -> None:
        """Write an element of a namespace into a domain's metadata, or with None take it out; `state` is libvirt's
        word for the definition or what runs."""
        kind = self.libvirt.VIR_DOMAIN_METADATA_ELEMENT
        text = None if tree is None else to_text(tree)
        domain.setMetadata(kind, text, prefix if text else None, namespace, state)

    def ensure_store(self, store: Store) -> bool:
        if store.kind == "volume":
            return volumes.ensure_volume(self.connection, store)
        return files.ensure_store(store)

    def delete_store(self, store: Store) -> None:
        if store.kind == "volume":
            volumes.delete_volume(self.connection, store)
        else:
            files.delete_store(store)

    def console_tail(self, spec: DomainSpec, lines: int) -> tuple[str, ...]:
        return console.tail(spec.console, lines)

    def close(self) -> None:
        if not self._closed:
            close_connection(self.connection, self.places)
        self._closed = True

    def prepare(self, spec: DomainSpec) -> None:
        """Put on the host what the domain needs there; the base driver needs nothing."""

    def load(self, spec: DomainSpec) -> None:
        """Program the blocks of a domain that is about to start; the base driver leaves them as they are."""

    def hand_over(self, spec: DomainSpec) -> AbstractContextManager[None]:
        """Let the VMM have the domain's secrets while it starts; the base driver's guests have no use for them."""
        return nullcontext()

    def unload(self, uuid: str, spec: DomainSpec | None) -> None:
        """Clear the blocks that were programmed for the domain of this UUID, which has ended; `spec` is its
        definition's, if that has one. Idempotent."""

    def prepare_runtime(self) -> None:
        """Make the directory of the sockets, which a reboot of the host removes, and that of the logs."""
        make_runtime(self.places, self.qemu_user())
        make_logs(self.places)

    def qemu_user(self) -> tuple[int, int] | None:
        """Whom the VMM's processes run as; None for the caller."""
        return None

    def _defined(self, domain: libvirt.virDomain) -> DomainSpec | None:
        """The specification of a definition; None when it has none that can be read."""
        with vmm_words(f"cannot read domain {domain.name()}"):
            kept = observation.kept_in(domain.XMLDesc(self.libvirt.VIR_DOMAIN_XML_INACTIVE))
        return kept.spec if kept else None

    def _with_parts(self, domain: ObservedDomain) -> ObservedDomain:
        """Which of a device VM's host parts run, that has any."""
        spec = domain.active_spec or domain.spec
        parts = [(one.id, one.part) for one in spec.emulators if one.part] if spec else []
        if not parts:
            return domain
        keeper = self.parts
        return replace(domain, parts=tuple(name for name, part in parts if keeper.is_running(part)))

    def _lookup(self, name: str) -> libvirt.virDomain | None:
        with vmm_words(f"cannot look up {name}"):
            try:
                return self.connection.lookupByName(name)
            except self.libvirt.libvirtError as error:
                if error.get_error_code() == self.libvirt.VIR_ERR_NO_DOMAIN:
                    return None
                raise

    def _lookup_uuid(self, uuid: str) -> libvirt.virDomain | None:
        with vmm_words(f"cannot look up {uuid}"):
            try:
                return self.connection.lookupByUUIDString(uuid)
            except self.libvirt.libvirtError as error:
                # What is no UUID at all is for the definition to refuse, in libvirt's words.
                if error.get_error_code() in (self.libvirt.VIR_ERR_NO_DOMAIN, self.libvirt.VIR_ERR_INVALID_ARG):
                    return None
                raise

    def _kept_autostart(self, domain: libvirt.virDomain) -> bool:
        """Whether a domain was declared to start with its VMM."""
        kept = observation.kept_in(domain.XMLDesc(self.libvirt.VIR_DOMAIN_XML_INACTIVE))
        return bool(kept and kept.spec and kept.spec.autostart)

    def _end_late_start(self, domain: libvirt.virDomain) -> None:
        """Stop a domain that runs although it was undefined.

        A start that a killed process had asked for may have waited in the daemon until now: an undefined domain
        that runs goes on until it is stopped, and nobody would know it any more.
        """
        late = self._lookup_uuid(domain.UUIDString())
        try:
            if late is not None and late.isActive():
                late.destroy()
        except self.libvirt.libvirtError:
            if self._lookup_uuid(domain.UUIDString()) is not None:
                raise

    def _ours(self, name: str) -> libvirt.virDomain | None:
        domain = self._lookup(name)
        self._refuse_foreign(name, domain, None)
        return domain

    def _running(self, name: str) -> libvirt.virDomain:
        domain = self._ours(name)
        if domain is None or not self.is_active(name):
            raise VmmError(f"{name} does not run")
        return domain

    def _refuse_foreign(self, name: str, domain: libvirt.virDomain | None, owner: str | None) -> None:
        """VmmError for a domain that is not devicevm's or, with `owner`, another owner's."""
        if domain is None:
            return
        tree = self.xml_of(domain, live=False)
        ours = find(tree) if tree is not None else None
        if ours is None:
            raise VmmError(
                f"domain {name} is not devicevm's, and is left alone",
                hint="choose another name, or declare it as an existing client",
            )
        if owner is not None and ours.get("owner") != owner:
            raise VmmError(
                f"domain {name} belongs to owner {ours.get('owner')!r}, not to {owner!r}, and is left alone",
                hint="choose another name, or apply with --owner",
            )

    def _refuse_other_identity(self, spec: DomainSpec, named: libvirt.virDomain | None) -> None:
        """VmmError when the name and the UUID of what is to be defined are not one domain's, or nobody's."""
        if named is not None and named.UUIDString() != spec.uuid:
            raise VmmError(
                f"cannot define {spec.name}: the domain of this name has UUID {named.UUIDString()}, not {spec.uuid}",
                hint=f"it was made by other means: rename it (virsh domrename) or undefine it (virsh undefine "
                f"{spec.name}), then apply again",
            )
        other = None if named is not None else self._lookup_uuid(spec.uuid)
        if other is not None:
            name = other.name()
            raise VmmError(
                f"cannot define {spec.name}: domain {name} has its UUID {spec.uuid}",
                hint=f"if it was renamed, rename it back (virsh domrename {name} {spec.name}, while it is off); if it "
                f"is not needed, undefine it (virsh undefine {name})",
            )

    def xml_of(self, domain: libvirt.virDomain, *, live: bool, flags: int = 0) -> Element:
        """A domain's XML: its definition's, or its running self's; `flags` are libvirt's, of a definition."""
        with vmm_words(f"cannot read domain {domain.name()}"):
            inactive = flags | self.libvirt.VIR_DOMAIN_XML_INACTIVE
            text = self.live_xml(domain) if live else domain.XMLDesc(inactive)
        return parse(text, f"the XML of domain {domain.name()}")
