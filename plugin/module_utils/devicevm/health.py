"""How the devices are: what the VMM says of the domains, and what the device VMs say of themselves.

A device VM is not trusted: what it says is shown as its word, and never acted on.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .domain import DomainSpec, ObservedDomain, Role
from .errors import DevicevmError
from .guest.channel_socket import has_peer
from .guest.control import Control, DeviceState
from .inventory.supports import GUESTS
from .manifest.topology import Consumer
from .vmm.driver import Driver

_SECONDS = 3.0


@dataclass(frozen=True)
class DeviceHealth:
    """One device: who has it, who emulates it, and how it is.

    `state`: connected (its client uses it), ready (nobody does), starting, failed, stopped (its device VM
    does not run), part stopped (the process on the host between the two does not run), running (nobody uses it, and no
    agent is in the device VM to be asked how it is), unknown (the device VM does not answer, or the VMM runs no
    guests).
    """

    client: str
    device: str
    class_: str
    device_vm: str
    channel: str
    address: str
    state: str
    detail: str = ""
    restarts: int = 0
    consumer: Consumer = Consumer.VM
    """Who the client is: of the VMM's, `address` is where any domain can have the device."""


@dataclass(frozen=True)
class DomainHealth:
    """One domain of devicevm's: `running`, `stopped`, `stalled` (paused, since a disk of its does not answer), or
    `failed` (the manager has given it up, and `detail` says why).

    `drift` is what differs from what was asked for. Of a client that is an existing `domain`, only its devices are
    devicevm's."""

    name: str
    role: str
    owner: str
    state: str
    cpus: tuple[int, ...]
    memory: int
    drift: tuple[str, ...] = ()
    domain: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Health:
    """Everything of an owner's (or of all owners') on one VMM."""

    domains: tuple[DomainHealth, ...]
    devices: tuple[DeviceHealth, ...]


def check_health(driver: Driver, supports: tuple[str, ...], owner: str = "") -> Health:
    """Ask the VMM and every running device VM; `owner` empty = all owners."""
    observed = [domain for domain in driver.observe() if not owner or domain.owner == owner]
    device_vms = [
        (domain, spec)
        for domain in observed
        if domain.role is Role.DEVICE_VM and (spec := domain.active_spec or domain.spec)
    ]
    with ThreadPoolExecutor(max_workers=8) as pool:
        devices = list(pool.map(lambda found: _devices_of(*found, guests=GUESTS in supports), device_vms))
    return Health(
        domains=tuple(_domain(domain) for domain in observed),
        devices=tuple(
            sorted((item for group in devices for item in group), key=lambda item: (item.client, item.device))
        ),
    )


def _domain(domain: ObservedDomain) -> DomainHealth:
    spec = domain.active_spec or domain.spec
    cpus = spec.placement.cpus if spec else ()
    drift = (*domain.drift, *(f"running: {text}" for text in domain.live_drift))
    drift = drift or ((domain.broken,) if domain.broken else ())
    running = "stalled" if domain.stalled else "running"
    state = running if domain.active else "failed" if domain.failure else "stopped"
    memory, name = (spec.memory, spec.domain) if spec else (0, "")
    return DomainHealth(
        domain.name, domain.role.value, domain.owner, state, cpus, memory, drift, name, detail=domain.failure
    )


def _devices_of(domain: ObservedDomain, spec: DomainSpec, *, guests: bool) -> list[DeviceHealth]:
    words: dict[str, tuple[str, str, int]] = {}
    if domain.active and guests:
        words = _look_at(spec, ready=domain.ready) if not spec.has_agent else _ask(spec)
    result = []
    for emulator in spec.emulators:
        state, detail, restarts = words.get(emulator.id, ("unknown", "", 0))
        if not domain.active:
            state = "stopped"
        elif emulator.part and emulator.id not in domain.parts:
            state = "part stopped"
        result.append(
            DeviceHealth(
                client=emulator.client,
                device=emulator.name,
                class_=emulator.class_,
                device_vm=spec.name,
                channel=emulator.channel.kind,
                address=emulator.channel.address,
                state=state,
                detail=words.get("", ("", "", 0))[1] or detail,
                restarts=restarts,
                consumer=emulator.consumer,
            )
        )
    return result


def _look_at(spec: DomainSpec, *, ready: bool) -> dict[str, tuple[str, str, int]]:
    """The same where there is no agent to ask. Nobody is disturbed: a question could be answered to the client."""
    who = "firmware" if spec.firmware else "its image"
    idle = ("running", f"{who} has no agent to ask") if ready else ("starting", "it has not answered yet")
    return {
        emulator.id: ("connected", "", 0) if has_peer(emulator.channel.address) else (*idle, 0)
        for emulator in spec.emulators
    }


def _ask(spec: DomainSpec) -> dict[str, tuple[str, str, int]]:
    """(state, detail, restarts) by emulator id; the reason under the empty id when it does not answer."""
    try:
        with Control(spec.control, timeout=_SECONDS) as control:
            status = control.status()
    except DevicevmError as error:
        return {"": ("unknown", error.message, 0)}
    result = {}
    for device in status.devices:
        idle = device.state in (DeviceState.RUNNING, DeviceState.WAITING)
        state = ("connected" if device.connected else "ready") if idle else device.state.value
        result[device.name] = (state, "", device.restarts)
    return result
