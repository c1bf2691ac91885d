"""How the devices are: what the VMM says of the domains, and what the device VMs say of themselves.

A device VM is not trusted: what it says is shown as its word, and never acted on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone

from .channel.registry import channel_kind
from .domain import Deaths, DomainSpec, Emulator, ObservedDomain, Role
from .errors import DevicevmError
from .guest.channel_socket import has_peer
from .guest.control import Control, DeviceState, DeviceStatus, GuestStatus
from .inventory.supports import GUESTS
from .manifest.topology import Consumer
from .vmm.driver import Driver

_SECONDS = 3.0
_MAX_WORDS = 500


@dataclass(frozen=True)
class DeviceHealth:
    """One device: who has it, who emulates it, and how it is.

    `state`: connected (its client uses it), reconnecting (its client runs and is not connected: the device VM is being
    restarted, or the client has not come back to it yet), ready (nobody uses it), starting, failed, stopped (its
    device VM does not run), part stopped (the process on the host between the two does not run), running (nobody
    uses it, and no agent is in the device VM to be asked how it is), unknown (the device VM does not answer, or the
    VMM runs no guests).

    `since` is when it came to be so (ISO 8601, UTC), as the device VM or the manager tells; empty where neither does.
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
    since: str = ""


@dataclass(frozen=True)
class DomainHealth:
    """One domain of devicevm's: `running`, `stopped`, `stalled` (paused by its VMM, since a disk of its failed), or
    `failed` (the manager has given it up, and `detail` says why). One that runs and has died before says so in
    `detail`. `since`: of a device VM, when it was started, as its guest tells, or when it died, as the manager does.

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
    since: str = ""


@dataclass(frozen=True)
class Health:
    """Everything of an owner's (or of all owners') on one VMM."""

    domains: tuple[DomainHealth, ...]
    devices: tuple[DeviceHealth, ...]


@dataclass(frozen=True)
class _Word:
    """What is known of one device, `since` in seconds since 1970."""

    state: str
    detail: str = ""
    restarts: int = 0
    since: float | None = None


@dataclass(frozen=True)
class _Words:
    """What a device VM says: of its emulators, by id; since when it runs; or why it says nothing."""

    devices: Mapping[str, _Word] = field(default_factory=dict)
    booted: float | None = None
    silent: str = ""


def check_health(driver: Driver, supports: tuple[str, ...], owner: str = "") -> Health:
    """Ask the VMM, its manager if it has one, and every running device VM; `owner` empty = all owners."""
    observed = [domain for domain in driver.observe() if not owner or domain.owner == owner]
    deaths = driver.deaths()
    awake = frozenset((one.owner, one.name) for one in observed if one.role is Role.CLIENT and one.active)
    device_vms = [domain for domain in observed if domain.role is Role.DEVICE_VM]
    with ThreadPoolExecutor(max_workers=8) as pool:
        heard = list(pool.map(_ask if GUESTS in supports else _ask_nobody, device_vms))
    words = dict(zip((domain.uuid for domain in device_vms), heard, strict=True))
    devices = [
        _device(domain, spec, emulator, words[domain.uuid], deaths.get(domain.name), awake)
        for domain in device_vms
        if (spec := domain.active_spec or domain.spec)
        for emulator in spec.emulators
    ]
    return Health(
        domains=tuple(_domain(one, words.get(one.uuid, _Words()), deaths.get(one.name)) for one in observed),
        devices=tuple(sorted(devices, key=lambda item: (item.client, item.device))),
    )


def _domain(domain: ObservedDomain, words: _Words, deaths: Deaths | None) -> DomainHealth:
    spec = domain.active_spec or domain.spec
    cpus = spec.placement.cpus if spec else ()
    drift = (*domain.drift, *(f"running: {text}" for text in domain.live_drift))
    drift = drift or ((domain.broken,) if domain.broken else ())
    running = "stalled" if domain.stalled else "running"
    state = running if domain.active else "failed" if domain.failure else "stopped"
    memory, name = (spec.memory, spec.domain) if spec else (0, "")
    since = words.booted if domain.active else deaths.time if deaths else None
    return DomainHealth(
        domain.name,
        domain.role.value,
        domain.owner,
        state,
        cpus,
        memory,
        drift,
        name,
        detail=domain.failure or (_describe(deaths) if deaths else ""),
        since=_moment(since),
    )


def _describe(deaths: Deaths) -> str:
    times = "" if deaths.count == 1 else f" {deaths.count} times, at last"
    now = ", and is being restarted" if deaths.returning else ""
    return f"it died{times} at {_moment(deaths.time)}{now}: {deaths.reason}"


def _device(
    domain: ObservedDomain,
    spec: DomainSpec,
    emulator: Emulator,
    words: _Words,
    deaths: Deaths | None,
    awake: frozenset[tuple[str, str]],
) -> DeviceHealth:
    word = words.devices.get(emulator.id) or _Word("unknown")
    missed = (domain.owner, emulator.client) in awake and channel_kind(emulator.channel.kind).has_port
    if not domain.active and deaths:
        state = "failed" if domain.failure else "reconnecting" if deaths.returning and missed else "stopped"
        word = _Word(state, since=deaths.time)
    elif not domain.active:
        word = _Word("stopped")
    elif emulator.part and emulator.id not in domain.parts:
        word = _Word("part stopped")
    elif missed and word.state in ("ready", "starting"):
        word = _Word("reconnecting", word.detail, word.restarts, word.since)
    return DeviceHealth(
        client=emulator.client,
        device=emulator.name,
        class_=emulator.class_,
        device_vm=spec.name,
        channel=emulator.channel.kind,
        address=emulator.channel.address,
        state=word.state,
        detail=words.silent or word.detail,
        restarts=word.restarts,
        consumer=emulator.consumer,
        since=_moment(word.since),
    )


def _moment(seconds: float | None) -> str:
    """`2026-01-31T12:00:00Z`; empty when it is not known."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ask_nobody(_domain: ObservedDomain) -> _Words:
    return _Words()


def _ask(domain: ObservedDomain) -> _Words:
    """What a device VM says of itself, when it runs."""
    spec = domain.active_spec or domain.spec
    if spec is None or not domain.active:
        return _Words()
    if domain.stalled:
        return _Words(
            silent="its VMM has paused the device VM, since a disk of its failed; 'devicevm apply' resumes it"
        )
    if not spec.has_agent:
        return _look_at(spec, ready=domain.ready)
    try:
        with Control(spec.control, timeout=_SECONDS) as control:
            return _words(control.status(), time.time())
    except DevicevmError as error:
        return _Words(silent=error.message[:_MAX_WORDS])
    except Exception as error:
        # Whatever one of them says, it is not the others' failure.
        return _Words(silent=f"what it says is not understood: {type(error).__name__}: {error}"[:_MAX_WORDS])


def _words(status: GuestStatus, now: float) -> _Words:
    devices = {device.name: _word(device, status, now) for device in status.devices}
    return _Words(devices, booted=now - status.uptime if status.uptime <= now else None)


def _word(device: DeviceStatus, status: GuestStatus, now: float) -> _Word:
    idle = device.state in (DeviceState.RUNNING, DeviceState.WAITING)
    state = ("connected" if device.connected else "ready") if idle else device.state.value
    # A guest that tells of what is to come, or of what was before it, is not believed.
    told = device.changed is not None and 0 <= device.changed <= status.uptime <= now
    since = now - (status.uptime - (device.changed or 0.0)) if told else None
    return _Word(state, restarts=device.restarts, since=since)


def _look_at(spec: DomainSpec, *, ready: bool) -> _Words:
    """The same where there is no agent to ask. Nobody is disturbed: a question could be answered to the client."""
    nobody = f"{'firmware' if spec.firmware else 'its image'} has no agent to ask"
    idle = _Word("running", nobody) if ready else _Word("starting", "it has not answered yet")
    taken = _Word("connected", f"{nobody}: that it hangs would not be noticed")
    return _Words({emulator.id: taken if has_peer(emulator.channel.address) else idle for emulator in spec.emulators})
