"""What the manager does with device VMs: up when a client asks for them, down when nobody does, back when they die.

It knows nothing of sockets, and asks nothing but the VMM that the device VMs are on: whoever waits for it may be the
clients' VMM itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ..apply.ready import wait_ready, wait_up
from ..domain import DomainSpec, Emulator, ObservedDomain, Role
from ..errors import DevicevmError
from ..manifest.topology import Start
from ..vmm.driver import Driver

MAX_DEATHS = 5
WINDOW = 120.0
"""A device VM that dies more than MAX_DEATHS times within so many seconds is left as it is."""


Tell = Callable[[str], None]


@dataclass(frozen=True)
class Times:
    """Seconds: that a device VM may take to answer, that it outlives its last client, and the first of the pauses
    between two restarts, each twice the one before (the first restart comes at once)."""

    ready: float = 60.0
    grace: float = 10.0
    pause: float = 1.0


@dataclass
class _Kept:
    """A device VM. `lock` is held by whoever starts, stops or changes it; `wanted`: it is to run."""

    spec: DomainSpec
    wanted: bool = False
    ready: bool = False
    failure: str = ""
    deaths: deque[float] = field(default_factory=deque)
    returning: bool = False
    """Somebody is at work to have it run again."""
    stopped: bool = False
    """The command line has stopped it, maybe to change it: until it starts it again, or lets go of the VMM, nobody else
    does."""
    lock: threading.RLock = field(default_factory=threading.RLock)


class Keeper:
    """The device VMs of one VMM. `boots` is how many guests may boot at once; without `guests` there is nobody to be
    asked whether he answers. `changing` says whether somebody is at work on the VMM, as an apply is; `tell` hears
    what the keeper does by itself, and `returned` of a device VM that was away from clients which run."""

    def __init__(
        self,
        driver: Driver,
        *,
        boots: int,
        times: Times | None = None,
        guests: bool = True,
        changing: Callable[[], bool] = lambda: False,
        tell: Tell = lambda _text: None,
        returned: Callable[[DomainSpec], None] = lambda _spec: None,
    ) -> None:
        self.driver = driver
        self._tell, self._returned = tell, returned
        self._changing = changing
        self.times = times or Times()
        self.guests = guests
        self._boots = threading.BoundedSemaphore(max(1, boots))
        self._kept: dict[str, _Kept] = {}
        self._users: set[str] = set()
        self._state = threading.Lock()
        self._closing = threading.Event()

    # What there is

    def take_over(self, died: Callable[[str], bool]) -> None:
        """Know the device VMs that are there; `died` says of one that does not run whether it ran when it was last
        seen. Those are restarted."""
        for seen in self.driver.observe():
            if seen.spec is None or seen.role is not Role.DEVICE_VM:
                continue
            wanted = seen.active or died(seen.name)
            self._kept[seen.name] = _Kept(seen.spec, wanted=wanted, ready=seen.active and seen.ready)
        # Looked at once more: one that ends while all this is read is not known yet to whoever hears of it.
        for name, kept in list(self._kept.items()):
            if kept.wanted and not self.driver.is_active(name):
                self.died(name, "it ended while the manager did not run")

    def observe(self) -> tuple[ObservedDomain, ...]:
        """What the VMM says of its device VMs, and why one was given up."""
        failures = {name: kept.failure for name, kept in list(self._kept.items())}
        return tuple(replace(seen, failure=failures.get(seen.name, "")) for seen in self.driver.observe())

    # What clients ask

    def prepare(self, client: str, owner: str, device_vms: Iterable[str]) -> None:
        """Have a client's device VMs run and answer. DevicevmError tells why one does not."""
        names = sorted(set(device_vms))
        for name in names:
            kept = self._kept.get(name)
            if kept is None or kept.spec.owner != owner:
                raise DevicevmError(
                    f"it needs device VM {name}, which devicevm's manager does not have", hint="devicevm apply makes it"
                )
        self.use(client)
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            begun = [pool.submit(self._bring_up, name, client) for name in names]
        for one in begun:
            one.result()

    def use(self, client: str) -> None:
        """A client runs, or is about to."""
        with self._state:
            self._users.add(client)

    def release(self, client: str) -> None:
        """A client has ended, or has not started. Its device VMs that nobody uses by then stop after a while."""
        with self._state:
            self._users.discard(client)
        self._part(name for name, kept in list(self._kept.items()) if client in _clients(kept.spec))

    def found_running(self, clients: Iterable[str]) -> None:
        """What clients run, according to their VMM: the rest of what a manager before this one has left may stop."""
        with self._state:
            self._users.update(clients)
        self._part(list(self._kept))

    @property
    def ready(self) -> tuple[DomainSpec, ...]:
        """The device VMs that answer."""
        return tuple(kept.spec for kept in list(self._kept.values()) if kept.ready)

    def _part(self, names: Iterable[str]) -> None:
        for name in names:
            timer = threading.Timer(self.times.grace, self._stop_if_idle, (name,))
            timer.daemon = True
            timer.start()

    def _stop_if_idle(self, name: str) -> None:
        kept = self._kept.get(name)
        if kept is None or self._closing.is_set():
            return
        with kept.lock:
            idle = not (_clients(kept.spec) & self._users)
            if idle and kept.wanted and kept.spec.start is Start.REQUEST:
                # The next release, or the next manager, tries again.
                with suppress(DevicevmError):
                    self._stop(name, kept)
                    self._tell(f"{name}: nobody uses it any more, it is stopped")

    def _bring_up(self, name: str, client: str) -> None:
        kept = self._kept[name]
        self._wait_for_change(name, kept)
        with kept.lock:
            if kept.wanted and kept.ready and self.driver.is_active(name):
                return
            # Somebody asks for it: whatever was before, it is tried again.
            kept.wanted, kept.stopped, kept.failure = True, False, ""
            kept.deaths.clear()
            try:
                # Others that run connect again as soon as it is there: they must not be asked over.
                others = (_clients(kept.spec) & self._users) - {client}
                self._boot(name, kept, wait_up if others else wait_ready)
                if others:
                    self._returned(kept.spec)
            except DevicevmError as error:
                self._tell(f"{name}: {client} cannot start: {error.message}")
                with suppress(DevicevmError):
                    self._stop(name, kept)
                raise

    def _wait_for_change(self, name: str, kept: _Kept) -> None:
        end = time.monotonic() + self.times.ready
        while kept.stopped and self._changing():
            if time.monotonic() >= end:
                raise DevicevmError(f"device VM {name} is being changed", hint="try again when the apply has ended")
            time.sleep(0.05)

    def _boot(self, name: str, kept: _Kept, wait: Callable[[Driver, DomainSpec, float], None]) -> None:
        with self._boots:
            self.driver.start(name)
            if self.guests:
                wait(self.driver, kept.spec, time.monotonic() + self.times.ready)
            self.driver.mark(kept.spec)
        for emulator in kept.spec.emulators:
            if emulator.part:
                self.driver.parts.start(emulator.part)
        kept.ready = True

    # What the command line asks: the driver's operations

    def define(self, spec: DomainSpec) -> None:
        """As the driver's."""
        kept = self._kept.get(spec.name)
        if kept is None:
            self.driver.define(spec)
            self._kept[spec.name] = _Kept(spec)
            return
        with kept.lock:
            self.driver.define(spec)
            kept.spec = spec

    def start(self, name: str) -> None:
        """As the driver's; whoever asks sees to it that it answers, and marks it then."""
        kept = self._known(name)
        with kept.lock:
            kept.wanted, kept.stopped, kept.failure = True, False, ""
            kept.deaths.clear()
            self.driver.start(name)

    def stop(self, name: str) -> None:
        """As the driver's."""
        kept = self._kept.get(name)
        if kept is None:
            self.driver.stop(name)
            return
        # Before the lock: who is at work to have it run again leaves off.
        kept.wanted, kept.stopped = False, True
        with kept.lock:
            self._stop(name, kept)

    def undefine(self, name: str) -> None:
        """As the driver's."""
        self.driver.undefine(name)
        self._kept.pop(name, None)

    def mark(self, spec: DomainSpec) -> None:
        """As the driver's: it has been seen to answer."""
        self.driver.mark(spec)
        self._known(spec.name).ready = True

    def is_active(self, name: str) -> bool:
        """As the driver's."""
        return self.driver.is_active(name)

    def pin(self, spec: DomainSpec) -> None:
        """As the driver's."""
        self.driver.pin(spec)

    def attach_emulator(self, name: str, emulator: Emulator) -> None:
        """As the driver's."""
        self.driver.attach_emulator(name, emulator)

    def detach_emulator(self, name: str, emulator: Emulator) -> None:
        """As the driver's."""
        self.driver.detach_emulator(name, emulator)

    # What the VMM tells

    def died(self, name: str, reason: str) -> None:
        """A device VM has ended, as the VMM tells. One that was to run is restarted, by a thread of its own."""
        kept = self._kept.get(name)
        with self._state:
            if kept is None or not kept.wanted or kept.returning or self._closing.is_set():
                return
            kept.returning = True
        self._tell(f"{name}: {reason}; it is restarted")
        threading.Thread(target=self._bring_back, args=(name, kept, reason), name=f"back-{name}", daemon=True).start()

    def _bring_back(self, name: str, kept: _Kept, reason: str) -> None:
        """Restart a device VM until it stays up, is not wanted any more, or has died too often."""
        try:
            while self._may_return(kept, reason):
                with kept.lock:
                    if not kept.wanted or self.driver.is_active(name):
                        return
                    kept.ready = False
                    try:
                        self._boot(name, kept, wait_up)
                        self._returned(kept.spec)
                        return
                    except DevicevmError as error:
                        reason = error.message
                        with suppress(DevicevmError):
                            self.driver.stop(name)
        finally:
            with self._state:
                kept.returning = False
        # It may have died once more just before that, and nobody has looked.
        if kept.wanted and not self.driver.is_active(name):
            self.died(name, "it ended again")

    def _may_return(self, kept: _Kept, reason: str) -> bool:
        """Wait as long as is due after this many deaths; whether it may be tried again."""
        now = time.monotonic()
        kept.deaths.append(now)
        while kept.deaths[0] < now - WINDOW:
            kept.deaths.popleft()
        count = len(kept.deaths)
        if count > MAX_DEATHS:
            kept.failure = f"it died {count} times within {WINDOW:g} s, and is left so; at last: {reason}"
            kept.wanted = False
            self._tell(f"{kept.spec.name}: {kept.failure}")
            return False
        if count > 1 and self._closing.wait(self.times.pause * 2 ** (count - 2)):
            return False
        return kept.wanted

    def close(self) -> None:
        """Begin nothing more; what runs goes on."""
        self._closing.set()

    def _stop(self, name: str, kept: _Kept) -> None:
        kept.wanted = kept.ready = False
        for emulator in kept.spec.emulators:
            if emulator.part:
                self.driver.parts.stop(emulator.part)
        self.driver.stop(name)

    def _known(self, name: str) -> _Kept:
        kept = self._kept.get(name)
        if kept is None:
            raise DevicevmError(f"there is no device VM {name}", hint="devicevm apply makes it")
        return kept


def _clients(spec: DomainSpec) -> set[str]:
    return {emulator.client for emulator in spec.emulators}
