"""Observing: libvirt's domains as devicevm's. Three lists, then one XML document for each domain and one more
for each that runs: no round trip besides, but for domains that are paused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from ...domain import DomainSpec, ObservedDomain, Role
from ...errors import DevicevmError
from ...guest.channel_socket import has_peer
from . import attached, fragment
from .connection import binding
from .domain_xml import base_xml
from .drift import drift
from .element import parse
from .metadata import NAMESPACE, Kept, find, is_ready, read, says_the_same
from .rejoin import is_stalled

if TYPE_CHECKING:
    import libvirt


def observe(connection: libvirt.virConnect, state: str) -> tuple[ObservedDomain, ...]:
    """Every domain with devicevm's metadata, by name."""
    found = []
    paused = connection.listAllDomains(binding().VIR_CONNECT_LIST_DOMAINS_PAUSED)
    stalled = {domain.UUIDString() for domain in paused if is_stalled(domain)}
    by_itself = connection.listAllDomains(binding().VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
    autostart = {domain.UUIDString() for domain in by_itself}
    for domain in connection.listAllDomains(0):
        texts = _texts(domain)
        # Most domains of a busy host are somebody else's: they are not even parsed.
        if texts and NAMESPACE in texts[0]:
            seen = observed(domain.name(), domain.UUIDString(), texts[0], texts[1], state)
            if seen:
                drift = (*seen.drift, *_autostart_drift(seen.spec, seen.uuid in autostart))
                found.append(replace(_stalled(seen, stalled), drift=drift))
        elif texts and attached.NAMESPACE in texts[0]:
            clients = _clients_in(domain.name(), domain.UUIDString(), texts[0], texts[1])
            found += [_stalled(seen, stalled) for seen in clients]
    # Clients of two owners that are existing domains may be called alike.
    return tuple(sorted(found, key=lambda seen: (seen.name, seen.owner)))


def _stalled(seen: ObservedDomain, stalled: set[str]) -> ObservedDomain:
    """A domain, and if it is one of the stalled ones (UUIDs), who is away from it."""
    spec = seen.active_spec or seen.spec
    if seen.uuid not in stalled or spec is None:
        return replace(seen, stalled=seen.uuid in stalled)
    addresses = [attachment.channel.address for attachment in spec.attachments]
    return replace(seen, stalled=True, away=tuple(address for address in addresses if not has_peer(address)))


def observed(name: str, uuid: str, inactive: str, live: str, state: str) -> ObservedDomain | None:
    """A domain from its XML documents; `live` is empty for one that does not run. None when it is not devicevm's."""
    tree = parse(inactive, f"the XML of domain {name}")
    ours = find(tree)
    if ours is None:
        return None
    kept = read(ours, name, uuid)
    active_spec, ready = None, True
    live_drift: tuple[str, ...] = ()
    if live:
        running = parse(live, f"the live XML of domain {name}")
        held = find(running)
        if held is not None:
            active_spec = kept.spec if says_the_same(ours, held) else read(held, name, uuid).spec
        live_drift = _drift(active_spec, running, state, live=True)
        ready = kept.role is not Role.DEVICE_VM or (held is not None and is_ready(held))
    return ObservedDomain(
        name=name,
        uuid=uuid,
        owner=kept.owner,
        role=kept.role,
        active=bool(live),
        spec=kept.spec,
        active_spec=active_spec,
        drift=_drift(kept.spec, tree, state),
        live_drift=live_drift,
        broken=kept.broken,
        ready=ready,
    )


def _autostart_drift(spec: DomainSpec | None, is_on: bool) -> tuple[str, ...]:
    if spec is None or spec.autostart in (None, is_on):
        return ()
    return ("autostart is on, declared off" if is_on else "autostart is off, declared on",)


def _clients_in(name: str, uuid: str, inactive: str, live: str) -> list[ObservedDomain]:
    running = parse(live, f"the live XML of domain {name}") if live else None
    return attached.observed_clients(uuid, parse(inactive, f"the XML of domain {name}"), running)


def kept_in(text: str) -> Kept | None:
    """What the metadata in a domain's XML says; None for a domain that is not devicevm's."""
    tree = parse(text, "a domain's XML")
    ours = find(tree)
    if ours is None:
        return None
    return read(ours, tree.findtext("name", ""), tree.findtext("uuid", ""))


def declared(spec: DomainSpec, state: str) -> Element:
    """What of the rendered domain can be checked for drift: all that the user's own fragment leaves alone."""
    tree = base_xml(spec, state)
    if spec.domain_xml:
        fragment.without_overridden(tree, fragment.parse_fragment(spec.domain_xml, spec.name))
    return tree


def _drift(spec: DomainSpec | None, actual: Element, state: str, *, live: bool = False) -> tuple[str, ...]:
    if spec is None:
        return ()
    try:
        return drift(declared(spec, state), actual, live=live)
    except DevicevmError as error:
        return (f"its specification cannot be rendered: {error.message}",)


def _texts(domain: libvirt.virDomain) -> tuple[str, str] | None:
    """The inactive and the live XML; None when the domain has gone meanwhile."""
    libvirt = binding()
    try:
        # ID() is known from the list; isActive() would be a round trip.
        live = domain.XMLDesc(0) if domain.ID() != -1 else ""
        return domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), live
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
