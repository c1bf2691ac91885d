"""Clients that are no VM of devicevm's: on which host they are, and why one cannot be had. Pure."""

from __future__ import annotations

from dataclasses import replace

from ..domain import DomainSpec
from ..frontend.registry import FRONTENDS
from ..inventory.host import Holding, Host
from ..manifest.topology import Client, Consumer, Topology
from .plan import Unplaced
from .view import View


def located(topology: Topology, view: View) -> tuple[Topology, list[Unplaced]]:
    """What is declared, with each existing domain on the host where it is, and the clients that cannot be had."""
    if all(client.consumer is Consumer.VM for client in topology.clients):
        return topology, []
    clients, out = [], []
    for client in topology.clients:
        host, reason = _home(client, view)
        clients.append(replace(client, host=host) if host != client.host else client)
        if reason:
            out.append(Unplaced(client.name, "", (reason,)))
    return replace(topology, clients=tuple(clients)), out


def domain_named(host: Host, name: str) -> Holding | None:
    """What is known of a domain of that name on a host, anybody's."""
    return next((holding for holding in host.holdings if holding.domain == name), None)


def _home(client: Client, view: View) -> tuple[str, str]:
    """The host of a client, and why it cannot be had."""
    if client.consumer is Consumer.EXISTING:
        return _home_of_domain(client, view)
    if client.consumer is not Consumer.VM and len(view.hosts) > 1 and not (client.host or client.host_labels):
        names = ", ".join(sorted(host.name for host in view.hosts))
        return "", f"there are {len(view.hosts)} hosts ({names}): host.name or hostSelector says which is meant"
    return client.host, ""


def _home_of_domain(client: Client, view: View) -> tuple[str, str]:
    asked = [host for host in view.hosts if client.host in ("", host.name)]
    homes = [(host, found) for host in asked if (found := domain_named(host, client.domain))]
    if len(homes) > 1:
        names = ", ".join(sorted(host.name for host, found in homes))
        return client.host, f"there is a domain {client.domain} on each of {names}: host says which is meant"
    if homes:
        host, found = homes[0]
        whose = f"domain {client.domain} is one that devicevm has made, of owner {found.owner}: declare that as vm"
        return host.name, whose if found.owner else ""
    where = f"host {client.host} has no domain" if client.host else "there is no domain"
    there = view.mine.get(client.name)
    named = view.uuids.get(there.uuid, {}) if there and there.consumer is Consumer.EXISTING else {}
    now = " and ".join(sorted(set(named.values())))
    renamed = f"; its devices are in {now}: was it renamed? Then declare that name" if now else ""
    return client.host, f"{where} {client.domain}{renamed}"


def plugged(existing: list[DomainSpec]) -> list[DomainSpec]:
    """Existing domains with those of their devices that can be taken out while they run."""
    return [
        replace(spec, attachments=tuple(one for one in spec.attachments if FRONTENDS[one.frontend].live))
        for spec in existing
    ]
