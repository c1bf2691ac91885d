"""The health of domains and devices as people read it."""

from __future__ import annotations

from datetime import datetime, timezone

from ..domain import Role
from ..health import DeviceHealth, DomainHealth, Health
from ..inventory.cpuset import format_cpuset
from . import output


def show_health(health: Health, uri: str, owner: str = "") -> None:
    """Tables of device VMs, clients and devices on standard output."""
    if not health.domains:
        output.line(f"Nothing of {f'owner {owner}' if owner else 'devicevm'}'s is on {uri}.")
        return
    for heading, role in (("Device VMs", Role.DEVICE_VM), ("Clients", Role.CLIENT)):
        _show_domains(heading, [domain for domain in health.domains if domain.role == role.value])
    _show_devices(list(health.devices))


def _show_domains(heading: str, domains: list[DomainHealth]) -> None:
    if not domains:
        return
    output.line(heading, "bold")
    rows = [
        (
            f"{domain.name} (domain {domain.domain})" if domain.domain else domain.name,
            domain.owner,
            domain.state,
            age(domain.since),
            "its own" if domain.domain else format_cpuset(domain.cpus) or "any",
            "its own" if domain.domain else output.size(domain.memory),
            "; ".join(domain.drift) or "none",
        )
        for domain in domains
    ]
    output.table(("name", "owner", "state", "for", "cpus", "memory", "drift"), rows)
    for domain in domains:
        if domain.detail:
            output.line(f"{domain.name}: {domain.detail}", "red" if domain.state == "failed" else "yellow")
    output.line()


def _show_devices(devices: list[DeviceHealth]) -> None:
    if not devices:
        return
    output.line("Devices", "bold")
    rows = [
        (
            f"{item.client}/{item.device}",
            item.class_,
            item.device_vm,
            item.state,
            age(item.since),
            str(item.restarts),
            f"{item.channel} {item.address}",
            item.detail,
        )
        for item in devices
    ]
    if not any(item.detail for item in devices):
        rows = [row[:-1] for row in rows]  # type: ignore[misc]
    headings = ("device", "class", "device vm", "state", "for", "restarts", "channel", "detail")
    output.table(headings[: len(rows[0])], rows)


def age(since: str) -> str:
    """How long ago a moment was that `status` tells: 12s, 5m, 3h or 2d; nothing when it is not known."""
    if not since:
        return ""
    seconds = (datetime.now(timezone.utc) - datetime.strptime(since, "%Y-%m-%dT%H:%M:%S%z")).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(seconds, 0) // 1:.0f}s"
