"""Readiness of a device VM: each emulator has answered a question, through the channel its client will use."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import suppress

from ..channel.registry import channel_kind
from ..domain import DomainSpec, Emulator
from ..errors import DevicevmError
from ..guest.channel_socket import has_peer
from ..guest.control import Control, DeviceState, DeviceStatus
from ..guest.features import missing_features
from ..guest.probe import PROBES, probe_answer, probe_bytes
from ..vmm.driver import Driver

# Short enough not to add to a boot of two seconds, long enough to leave the host's CPU to the guest.
_PAUSE = 0.05
# A program that cannot wait itself is started when its peer connects: `waiting`.
# Seconds of the first question: then whoever else waits for the channel has it, and that is seen.
_ATTEMPT = 2.0
# Longer than QEMU takes to notice that a peer has left, on a host that is overloaded.
_LINGER = 1.0
# The guest sees a peer leave in less, unless the next one came at once.
_UNSEEN = 2.0
_GOOD = {DeviceState.RUNNING, DeviceState.WAITING}


class NotReady(DevicevmError):
    """A device VM did not come up in time; the message holds its last words."""


def wait_ready(driver: Driver, spec: DomainSpec, deadline: float, returning: frozenset[str] = frozenset()) -> None:
    """Return once every emulator in the running device VM `spec` has answered its probe, and the clients of those in
    `returning` (ids), which run and lost their peer to a change, are connected again.

    One that has its client connected is not probed: a channel has one peer, and it is not us.
    `deadline` is a `time.monotonic()` value. NotReady tells which did not answer, why, and what
    the guest last wrote to its console.
    """
    try:
        if not spec.has_agent:
            _wait_without_agent(driver, spec, deadline, returning)
            return
        seen = {emulator.id for emulator in spec.emulators if channel_kind(emulator.channel.kind).has_port}
        with _Guest(driver, spec, deadline) as guest:
            before = guest.wait_running()
            guest.check_features()
            asked = [one for one in spec.emulators if not before[one.id].connected and _asks(one)]
            probed = [emulator for emulator in asked if _wait_answer(driver, spec, emulator, deadline)]
            guest.wait_restarted({emulator.id: before[emulator.id].restarts for emulator in probed}, returning)
            guest.wait_connected(returning & seen)
    except DevicevmError as error:
        if spec.firmware:
            raise NotReady(f"device VM {spec.name}: {error.message}", hint=error.hint) from error
        lines = driver.console_tail(spec, 12)
        tail = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
        raise NotReady(
            f"device VM {spec.name}: {error.message}\n  its console's last lines:\n{tail}", hint=error.hint
        ) from error


def wait_up(driver: Driver, spec: DomainSpec, deadline: float) -> dict[str, str]:
    """Return once the agent of the running device VM `spec` has seen every emulator wait for its peer, or have it, or
    fail; what is wrong with those that are not up by then, or by the deadline, by name.

    For one that comes back to clients that run on: a question through a channel would come between them, and one's
    broken emulator is no reason to take theirs from the others. Where there is no agent to ask, its programs have to
    have their ports open; firmware has to run, and that is all. NotReady when the device VM itself does not come up.
    """
    try:
        if not spec.has_agent:
            if not driver.is_active(spec.name):
                raise DevicevmError("it has stopped by itself", hint=_why_stopped(spec))
            _wait_open(driver, spec, deadline)
            return {}
        with _Guest(driver, spec, deadline) as guest:
            return guest.wait_settled()
    except DevicevmError as error:
        raise NotReady(f"device VM {spec.name}: {error.message}", hint=error.hint) from error


def _wait_without_agent(driver: Driver, spec: DomainSpec, deadline: float, returning: frozenset[str]) -> None:
    """Firmware, or an image without agent, has nobody beside the emulators to ask: what these answer is all there is.

    What one said before the probe came is lost, and so it would be for its client: it is asked (`ask`), or listened to
    when it talks by itself. One of which nothing is expected is ready when its port is open, firmware when it runs.
    """
    _wait_open(driver, spec, deadline)
    for emulator in spec.emulators:
        while _asks(emulator) and not _is_taken(emulator.channel.address):
            try:
                _probe(emulator, min(_left(deadline), _ATTEMPT))
                break
            except DevicevmError as error:
                _pause(driver, spec, deadline, f"{emulator.id}: {error.message}")
    # The machine sees the probe leave before the next peer comes. A program may end then, and be started anew.
    time.sleep(_PAUSE)
    _wait_open(driver, spec, deadline, for_=_LINGER)
    for emulator in spec.emulators:
        while emulator.id in returning and not has_peer(emulator.channel.address):
            _pause(driver, spec, deadline, f"the client of {emulator.id} has not come back")
    if not driver.is_active(spec.name):
        raise DevicevmError("it has stopped by itself", hint=_why_stopped(spec))


def _wait_open(driver: Driver, spec: DomainSpec, deadline: float, *, for_: float = 0.0) -> None:
    """Wait until a program has each emulator's port open, and all of them have been so `for_` seconds. Of
    firmware, whose ports are serial ones, nobody can tell."""
    if spec.firmware:
        return
    names = {one.channel.port: one.id for one in spec.emulators if channel_kind(one.channel.kind).has_port}
    since = time.monotonic()
    while True:
        if not driver.is_active(spec.name):
            raise DevicevmError("it has stopped by itself", hint=_why_stopped(spec))
        closed = sorted(names.keys() - driver.open_ports(spec.name))
        if closed:
            since = time.monotonic()
            _pause(driver, spec, deadline, f"no program has opened /dev/virtio-ports/{closed[0]}")
        elif time.monotonic() - since >= for_:
            return
        else:
            time.sleep(_PAUSE)


def _is_taken(address: str) -> bool:
    """Whether somebody else has the channel. A machine that is busy closes a probe's end some time after the probe has
    left: only who stays is somebody else."""
    end = time.monotonic() + _LINGER
    while has_peer(address):
        if time.monotonic() >= end:
            return True
        time.sleep(_PAUSE)
    return False


class _Guest:
    """What the guest's own supervisor says of its emulators, asked over one connection: a port that is opened anew
    time and again may lose some."""

    def __init__(self, driver: Driver, spec: DomainSpec, deadline: float) -> None:
        self.driver, self.spec, self.deadline = driver, spec, deadline
        self._control: Control | None = None

    def __enter__(self) -> _Guest:
        return self

    def __exit__(self, *_args: object) -> None:
        if self._control:
            self._control.close()

    def wait_running(self) -> dict[str, DeviceStatus]:
        """Wait until every emulator waits for its peer, or has one; what is said of each then, by id."""
        while True:
            devices = self._ask()
            failed, missing = _not_up(self.spec, devices.values())
            if failed:
                raise DevicevmError(f"the emulation code of {', '.join(failed)} does not stay up")
            if not missing:
                return devices
            _pause(self.driver, self.spec, self.deadline, f"{', '.join(missing)} did not come up")

    def wait_settled(self) -> dict[str, str]:
        """Wait until every emulator waits for its peer, has one, or has failed; what is wrong with those that are not
        up, at the deadline at last, by name."""
        while True:
            failed, missing = _not_up(self.spec, self._ask().values())
            if not missing or time.monotonic() >= self.deadline:
                wrong = dict.fromkeys(failed, "its emulation code does not stay up")
                return wrong | dict.fromkeys(missing, "its emulation code did not come up in time")
            _pause(self.driver, self.spec, math.inf, f"{', '.join(missing)} did not come up")

    def check_features(self) -> None:
        """See that the guest's processor has the extensions that were asked for: a VMM may drop one silently."""
        if not self.spec.cpu_features or self._control is None:
            return
        if missing := missing_features(self.spec.cpu_features, self._control.cpu().flags):
            raise DevicevmError(
                f"its processor has no {', '.join(missing)}, though the VMM was asked for it",
                hint="leave the extension out of the resources, or choose an accelerator that has it",
            )

    def wait_restarted(self, restarts: dict[str, int], returning: frozenset[str]) -> None:
        """Wait until the emulators that were probed, with how often each had been started, have noticed that the probe
        has left, and wait for their next peer: a client that came before would not be heard. Those in `returning` may
        have it already: their clients do not wait for us."""
        unseen = time.monotonic() + _UNSEEN
        while True:
            devices = self._ask()
            late = [
                name
                for name, count in restarts.items()
                if (device := devices.get(name)) is None
                or device.restarts <= count
                or (device.connected and name not in returning)
                or device.state not in _GOOD
            ]
            if not late:
                return
            if time.monotonic() >= unseen:
                unseen = math.inf
                self._restart(name for name in late if name in devices and devices[name].restarts <= restarts[name])
            _pause(self.driver, self.spec, self.deadline, f"{', '.join(late)} did not come back after its probe")

    def _restart(self, names: Iterable[str]) -> None:
        """Have these started anew: their next peer waited behind the probe, and came at once when it left. An older
        agent cannot be asked for it: what is not back is told in the end."""
        for name in names:
            with suppress(DevicevmError):
                if self._control:
                    self._control.restart(name)

    def wait_connected(self, returning: frozenset[str]) -> None:
        """Wait until these have a peer: what a client says before its VMM has connected again is lost."""
        # An NBD client connects again when it next asks for something.
        lazy = {emulator.id for emulator in self.spec.emulators if emulator.protocol == "nbd"}
        waited = returning - lazy
        while away := sorted(waited - {name for name, device in self._ask().items() if device.connected}):
            _pause(self.driver, self.spec, self.deadline, f"the client of {', '.join(away)} has not come back")

    def _ask(self) -> dict[str, DeviceStatus]:
        while True:
            try:
                if self._control is None:
                    self._control = Control(self.spec.control, timeout=_left(self.deadline))
                return {device.name: device for device in self._control.status().devices}
            except DevicevmError as error:
                if self._control:
                    self._control.close()
                self._control = None
                _pause(self.driver, self.spec, self.deadline, error.message)


def _not_up(spec: DomainSpec, devices: Iterable[DeviceStatus]) -> tuple[list[str], list[str]]:
    """The emulators and services that have failed, and those that do not wait for a peer yet."""
    states = {device.name: device.state for device in devices}
    wanted = sorted([*(emulator.id for emulator in spec.emulators), *(service.name for service in spec.services)])
    failed = [name for name in wanted if states.get(name) is DeviceState.FAILED]
    return failed, [name for name in wanted if states.get(name) not in _GOOD and name not in failed]


def _asks(emulator: Emulator) -> bool:
    """Whether there is a question to ask. A program of which nothing is expected may rightly say nothing before it is
    spoken to: that it waits for its peer, which its supervisor has seen, is all that can be asked of it."""
    return emulator.ready != "bytes" or bool(emulator.expect or emulator.ask)


def _wait_answer(driver: Driver, spec: DomainSpec, emulator: Emulator, deadline: float) -> bool:
    """Probe an emulator until it has answered; False when its client, which runs, has come first: then it has what it
    wants, and the probe would wait behind it."""
    attempt = _ATTEMPT
    while not _is_taken(emulator.channel.address):
        try:
            _probe(emulator, min(_left(deadline), attempt))
            return True
        except DevicevmError as error:
            _pause(driver, spec, deadline, error.message)
        # An emulator that is slow has more time with each attempt: its peer leaves, and it starts anew.
        attempt *= 2
    return False


def _probe(emulator: Emulator, timeout: float) -> None:
    """One question through the emulator's channel, and its answer within `timeout` seconds, or DevicevmError."""
    address, pattern = emulator.channel.address, emulator.expect.encode()
    if emulator.ready != "bytes":
        PROBES[emulator.ready](address, timeout)
    elif emulator.ask:
        probe_answer(address, timeout, ask=emulator.ask.encode(), pattern=pattern)
    else:
        probe_bytes(address, timeout, pattern=pattern)


def _pause(driver: Driver, spec: DomainSpec, deadline: float, reason: str) -> None:
    if not driver.is_active(spec.name):
        raise DevicevmError(f"it has powered off: {reason}", hint=_why_stopped(spec))
    if time.monotonic() >= deadline:
        raise DevicevmError(f"no answer in time: {reason}", hint="give it more time with --timeout, or more memory")
    time.sleep(_PAUSE)


def _why_stopped(spec: DomainSpec) -> str:
    return f"is {spec.firmware.path} for machine {spec.machine}?" if spec.firmware else "see the console's last lines"


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.1)
