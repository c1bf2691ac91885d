"""Readiness of a device VM: each emulator has answered a question, through the channel its client will use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import DevicevmError
from ..guest.control import Control
from ..guest.probe import PROBES
from ..planner.domain import DomainSpec, Emulator
from ..vmm.driver import Driver

T = TypeVar("T")

# Short enough not to add to a boot of two seconds, long enough to leave the host's CPU to the guest.
_PAUSE = 0.05


class NotReady(DevicevmError):
    """A device VM did not come up in time; the message holds its last words."""


def wait_ready(driver: Driver, spec: DomainSpec, emulators: tuple[Emulator, ...], deadline: float) -> None:
    """Return once every one of `emulators` in the running device VM `spec` answers its probe.

    `deadline` is a `time.monotonic()` value. NotReady tells which did not answer, why, and what
    the guest last wrote to its console.
    """
    try:
        _wait_running(driver, spec, emulators, deadline)
        for emulator in emulators:
            _wait_answer(driver, spec, emulator, deadline)
    except DevicevmError as error:
        lines = driver.console_tail(spec, 12)
        tail = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
        raise NotReady(
            f"device VM {spec.name}: {error.message}\n  its console's last lines:\n{tail}", hint=error.hint
        ) from error


def _wait_running(driver: Driver, spec: DomainSpec, emulators: tuple[Emulator, ...], deadline: float) -> None:
    """Wait until the guest's own supervisor sees every emulator waiting for its peer."""
    wanted = {emulator.id for emulator in emulators}
    with _patiently(driver, spec, deadline, lambda: Control(spec.control, timeout=_left(deadline))) as control:
        while True:
            states = {device.name: device for device in control.status().devices}
            failed = sorted(name for name in wanted if name in states and states[name].state == "failed")
            if failed:
                raise DevicevmError(
                    f"the emulation code of {', '.join(failed)} does not stay up", hint="its output is below"
                )
            waiting = sorted(name for name in wanted if name not in states or states[name].state != "running")
            if not waiting:
                return
            _pause(driver, spec, deadline, f"{', '.join(waiting)} did not come up")


def _wait_answer(driver: Driver, spec: DomainSpec, emulator: Emulator, deadline: float) -> None:
    probe = PROBES[emulator.ready]
    _patiently(driver, spec, deadline, lambda: probe(emulator.channel.address, _left(deadline), emulator.expect))


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
