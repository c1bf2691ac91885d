"""Readiness of a device VM: each emulator has answered a question, through the channel its client will use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

from ..domain import DomainSpec, Emulator
from ..errors import DevicevmError
from ..guest.control import Control, DeviceState, DeviceStatus
from ..guest.probe import PROBES, probe_bytes
from ..vmm.driver import Driver

T = TypeVar("T")

# Short enough not to add to a boot of two seconds, long enough to leave the host's CPU to the guest.
_PAUSE = 0.05
# A program that cannot wait itself is started when its peer connects: `waiting`.
_GOOD = {DeviceState.RUNNING, DeviceState.WAITING}


class NotReady(DevicevmError):
    """A device VM did not come up in time; the message holds its last words."""


def wait_ready(driver: Driver, spec: DomainSpec, deadline: float) -> None:
    """Return once every emulator in the running device VM `spec` has answered its probe.

    One that has its client connected is not probed: a channel has one peer, and it is not us.
    `deadline` is a `time.monotonic()` value. NotReady tells which did not answer, why, and what
    the guest last wrote to its console.
    """
    try:
        connected = _wait_running(driver, spec, deadline)
        for emulator in spec.emulators:
            if emulator.id not in connected:
                _wait_answer(driver, spec, emulator, deadline)
    except DevicevmError as error:
        lines = driver.console_tail(spec, 12)
        tail = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
        raise NotReady(
            f"device VM {spec.name}: {error.message}\n  its console's last lines:\n{tail}", hint=error.hint
        ) from error


def _wait_running(driver: Driver, spec: DomainSpec, deadline: float) -> frozenset[str]:
    """Wait until the guest's own supervisor sees every emulator waiting for its peer; those that have one."""
    with contextlib.ExitStack() as stack:
        control: Control | None = None
        while True:
            try:
                # One connection for all questions: a port that is opened anew time and again may lose some.
                control = control or stack.enter_context(Control(spec.control, timeout=_left(deadline)))
                devices = control.status().devices
            except DevicevmError as error:
                control = None
                _pause(driver, spec, deadline, error.message)
                continue
            if missing := _missing(spec, devices):
                _pause(driver, spec, deadline, f"{', '.join(missing)} did not come up")
                continue
            return frozenset(device.name for device in devices if device.connected)


def _missing(spec: DomainSpec, devices: tuple[DeviceStatus, ...]) -> list[str]:
    """The emulators that do not wait for a peer yet; DevicevmError when one never will."""
    states = {device.name: device.state for device in devices}
    wanted = sorted(emulator.id for emulator in spec.emulators)
    failed = [name for name in wanted if states.get(name) is DeviceState.FAILED]
    if failed:
        raise DevicevmError(f"the emulation code of {', '.join(failed)} does not stay up")
    return [name for name in wanted if states.get(name) not in _GOOD]


def _wait_answer(driver: Driver, spec: DomainSpec, emulator: Emulator, deadline: float) -> None:
    address = emulator.channel.address
    if emulator.ready != "bytes":
        _patiently(driver, spec, deadline, lambda: PROBES[emulator.ready](address, _left(deadline)))
    elif emulator.expect:
        pattern = emulator.expect.encode()
        _patiently(driver, spec, deadline, lambda: probe_bytes(address, _left(deadline), pattern=pattern))
    # A program of which nothing is expected may rightly say nothing before it is spoken to: that
    # it waits for its peer, which its supervisor has seen, is all that can be asked of it.


def _patiently(driver: Driver, spec: DomainSpec, deadline: float, attempt: Callable[[], T]) -> T:
    while True:
        try:
            return attempt()
        except DevicevmError as error:
            _pause(driver, spec, deadline, error.message)


def _pause(driver: Driver, spec: DomainSpec, deadline: float, reason: str) -> None:
    if not driver.is_active(spec.name):
        raise DevicevmError(f"it has powered off: {reason}", hint="see the console's last lines")
    if time.monotonic() >= deadline:
        raise DevicevmError(f"no answer in time: {reason}", hint="give it more time with --timeout, or more memory")
    time.sleep(_PAUSE)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.1)
