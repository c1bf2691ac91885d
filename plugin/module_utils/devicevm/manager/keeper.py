"""What the manager does with device VMs: up when a client asks for them, down when nobody does, back when they die.

It knows nothing of sockets, and asks nothing but the VMM that the device VMs are on: whoever waits for it may be the
clients' VMM itself. Clients are known as `identity` says, not by their domains' names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from ..apply.ready import wait_ready, wait_up
from ..domain import Deaths, DomainSpec, ObservedDomain, Role
from ..errors import DevicevmError, in_our_words
from ..guest.control import Control, DeviceState
from ..guest.lastwords import last_words
from ..manifest.topology import Start
from ..planner.difference import content_stays
from ..vmm.driver import Driver
from .identity import client_id, clients_of, for_client, name_of
from .kept import Kept

_QUESTIONS = 8
"""Device VMs that are asked at once whether they answer."""
_TRIES = 3
"""Questions in the time after which one that does not answer hangs."""
_PAUSE = 0.1
_ROUND = 10.0
"""Seconds at most between two looks at what is to run."""
_CONSOLE = 60
"""Lines of a console in which a kernel's last words are: behind them stands what it was at."""


Tell = Callable[[str], None]


@dataclass(frozen=True)
class Times:
    """Seconds: that a device VM may take to answer, that it outlives its last client, that one which has answered may
    be silent (0: for ever), and the first of the pauses between two restarts, each twice the one before (the first
    restart comes at once)."""

    ready: float = 60.0
    grace: float = 10.0
    silence: float = 30.0
    pause: float = 1.0


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
        self._hear, self._returned = tell, returned
        self._changing = changing
        self.times = times or Times()
        self.guests = guests
        self._boots = threading.BoundedSemaphore(max(1, boots))
        self._kept: dict[str, Kept] = {}
        self._users: set[str] = set()
        self._ended: set[str] = set()
        """Who has ended since this manager began, as long as it does not know who ran then."""
        self._counted = False
        """Whether it is known who uses what: until then nothing is stopped."""
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
            kept = self._kept[seen.name] = Kept(seen.spec, wanted=wanted)
            if seen.active and seen.ready:
                kept.seen_to_answer()
        # Looked at once more: one that ends while all this is read is not known yet to whoever hears of it.
        for name, kept in list(self._kept.items()):
            if kept.wanted and not self.driver.is_active(name):
                self.died(name, "it ended while the manager did not run")

    def observe(self) -> tuple[ObservedDomain, ...]:
        """What the VMM says of its device VMs, and why one was given up."""
        failures = {name: kept.failure for name, kept in list(self._kept.items())}
        return tuple(replace(seen, failure=failures.get(seen.name, "")) for seen in self.driver.observe())

    def deaths(self) -> dict[str, Deaths]:
        """As the driver's: what was seen of them since this manager began."""
        kept = list(self._kept.items())
        return {name: replace(one.deaths, returning=one.returning) for name, one in kept if one.deaths}

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
            if client not in clients_of(kept.spec):
                raise DevicevmError(
                    f"device VM {name} has no devices for this domain",
                    hint="devicevm apply; if it is a copy of a client, declare it as one of its own",
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
            self._ended.discard(client)

    def release(self, client: str) -> None:
        """A client has ended, or has not started. Its device VMs that nobody uses by then stop after a while."""
        with self._state:
            self._users.discard(client)
            if not self._counted:
                self._ended.add(client)
        self._part(name for name, kept in list(self._kept.items()) if client in clients_of(kept.spec))

    def found_running(self, clients: Iterable[str]) -> None:
        """What clients run, or ran a moment ago, according to their VMM. Of what a manager before this one has left,
        their device VMs are to run, and the rest may stop."""
        with self._state:
            # What was heard meanwhile is newer.
            self._users.update(set(clients) - self._ended)
            self._counted = True
            used = [kept for kept in list(self._kept.values()) if clients_of(kept.spec) & self._users]
        for kept in used:
            kept.wanted = kept.wanted or not (kept.stopped or kept.failure)
            self._look_after(kept)
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
        if kept is None or self._closing.is_set() or not self._counted:
            return
        with kept.lock:
            idle = not (clients_of(kept.spec) & self._users)
            if idle and kept.wanted and kept.spec.start is Start.REQUEST:
                try:
                    self._stop(name, kept)
                except Exception as error:
                    # The next release, or the next manager, tries again.
                    kept.wanted = True
                    self._tell(f"{name}: nobody uses it any more, but: {in_our_words(error).message}")
                else:
                    self._tell(f"{name}: nobody uses it any more, it is stopped")

    def _bring_up(self, name: str, client: str) -> None:
        kept = self._kept[name]
        self._wait_for_change(name, kept)
        with kept.lock:
            others = (clients_of(kept.spec) & self._users) - {client}
            up = kept.wanted and kept.ready and self.driver.is_active(name)
            try:
                if not up:
                    kept.begin_anew()
                    self._boot(name, kept, asked=client)
                    up = True
                    if others:
                        self._returned(kept.spec)
                if client not in kept.served:
                    self._serve(kept, client)
                return
            except Exception as error:
                failure = in_our_words(error)
                self._tell(f"{name}: {name_of(client, kept.spec)} cannot start: {failure.message}")
            if up:
                # An emulator of that client's alone: the others go on.
                raise failure
            with suppress(Exception):
                self._stop(name, kept)
            # That one client cannot start is no reason to leave the others without it.
            kept.wanted = bool(others) or not self._counted
        self._lost(name, failure.message, hangs=False)
        raise failure

    def _wait_for_change(self, name: str, kept: Kept) -> None:
        end = time.monotonic() + self.times.ready
        while kept.stopped and self._changing():
            if time.monotonic() >= end:
                raise DevicevmError(f"device VM {name} is being changed", hint="try again when the apply has ended")
            time.sleep(0.05)

    def _boot(self, name: str, kept: Kept, asked: str = "") -> None:
        """Start a device VM, and have it answer. An emulator or host part of its that fails is told, and takes it from
        nobody else. `asked` is the client whose emulators are asked next: nobody is to come before."""
        if not self.driver.is_active(name):
            self._take_blank_away(name, kept)
        wrong: dict[str, str] = {}
        with self._boots:
            self.driver.start(name)
            if self.guests:
                # Clients that run connect again as soon as it is there: they must not be asked over.
                wrong = wait_up(self.driver, kept.spec, time.monotonic() + self.times.ready)
            self.driver.mark(kept.spec)
        kept.ready, kept.served = True, set()
        for emulator in kept.spec.emulators:
            if emulator.part and client_id(kept.spec, emulator) != asked:
                try:
                    self.driver.parts.start(emulator.part)
                except Exception as error:
                    wrong.setdefault(emulator.id, in_our_words(error).message)
        for device, reason in wrong.items():
            self._tell(f"{name}: {device}: {reason}; its other devices go on")

    def _take_blank_away(self, name: str, kept: Kept) -> None:
        """Before a device VM starts whose memory is gone: what the host has mounted of that must not go on upon an
        empty disk, which would take all that is written and have none of what it belongs to."""
        for emulator in kept.spec.emulators:
            if emulator.part and not content_stays(emulator, emulator):
                if self.driver.parts.is_running(emulator.part):
                    self._tell(f"{name}: {emulator.id}: its content was in the device VM's memory, and is gone")
                self.driver.parts.stop(emulator.part)

    def _serve(self, kept: Kept, client: str) -> None:
        """See that all that a client has of a device VM answers. DevicevmError tells what does not: that is one
        client's affair."""
        mine = for_client(kept.spec, client)
        if self.guests:
            wait_ready(self.driver, mine, time.monotonic() + self.times.ready)
        for emulator in mine.emulators:
            if emulator.part:
                self.driver.parts.start(emulator.part)
        kept.served.add(client)

    # What the command line asks: the driver's operations

    def define(self, spec: DomainSpec) -> None:
        """As the driver's."""
        kept = self._kept.get(spec.name)
        if kept is None:
            self.driver.define(spec)
            self._kept[spec.name] = Kept(spec)
            return
        with kept.lock:
            kept.touched = time.monotonic()
            self.driver.define(spec)
            kept.spec = spec

    def start(self, name: str) -> None:
        """As the driver's; whoever asks sees to it that it answers, and marks it then."""
        kept = self._known(name)
        with kept.lock:
            kept.begin_anew()
            kept.touched = time.monotonic()
            try:
                self.driver.start(name)
            except Exception:
                kept.wanted = False
                raise

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
        self._known(spec.name).seen_to_answer()

    # What the VMM tells, and what it does not

    def died(self, name: str, reason: str) -> None:
        """A device VM has ended, as the VMM tells. One that was to run is restarted, by a thread of its own."""
        self._lost(name, reason, hangs=False)

    def watch(self) -> None:
        """Until `close`, ask the device VMs that have answered whether they still do, and restart those that do not;
        and those whose end nobody has told.

        Nobody else would notice: a guest that hangs, or whose VMM does, goes on as far as the VMM can tell.
        """
        asks = self.guests and self.times.silence > 0
        pause = min(_ROUND, self.times.silence / _TRIES) if asks else _ROUND
        with ThreadPoolExecutor(max_workers=_QUESTIONS) as pool:
            while not self._closing.wait(pause):
                try:
                    if asks:
                        self._ask_all(pool)
                    for kept in list(self._kept.values()):
                        self._look_after(kept)
                except Exception as error:
                    # Whatever it is: there is nobody else who watches.
                    self._tell(f"cannot look after device VMs, and tries again: {in_our_words(error).message}")

    def _ask_all(self, pool: ThreadPoolExecutor) -> None:
        asked = [name for name, kept in list(self._kept.items()) if kept.ready and kept.spec.control]
        for name, answers in zip(asked, list(pool.map(self._answers, asked)), strict=True):
            if not answers and not self._is_stuck(name, self._kept[name]):
                self._lost(name, f"it has not answered for {self.times.silence:g} s", hangs=True)

    def _look_after(self, kept: Kept) -> None:
        """Restart a device VM that is to run and does not; let one go on that its VMM has paused."""
        name, reason = kept.spec.name, "it does not run, though it is to"
        # Who has the lock is at work on it, and sees to it.
        if kept.lock.acquire(blocking=False):
            try:
                if self._is_deserted(kept):
                    kept.wanted, kept.stopped = True, False
                    reason = "it was stopped to be changed, and whoever did that has ended"
                missing = kept.wanted and not self.driver.is_active(name)
                if kept.ready and not missing:
                    self._is_stuck(name, kept)
            finally:
                kept.lock.release()
            if missing:
                self._lost(name, reason, hangs=False)

    def _is_deserted(self, kept: Kept) -> bool:
        """Whether an apply that was killed has left a device VM stopped that somebody needs: what an apply means to
        leave so is undefined by it, or has no clients that run."""
        if not kept.stopped or self._changing():
            return False
        return kept.spec.start is not Start.REQUEST or bool(clients_of(kept.spec) & self._users)

    def _is_stuck(self, name: str, kept: Kept) -> bool:
        """Whether a device VM was paused by its VMM, for a disk that failed. It does not hang, then, and what is in its
        memory stays: it is let go on, now or as soon as that helps."""
        try:
            stuck = "its VMM had paused it, for a disk that failed; it goes on" if self.driver.resume(name) else ""
        except Exception as error:
            stuck = f"{in_our_words(error).message}; it is tried again"
        if stuck and stuck != kept.stuck:
            self._tell(f"{name}: {stuck}")
        kept.stuck = stuck
        return bool(stuck)

    def _answers(self, name: str) -> bool:
        """Whether a device VM answers, within the time that it may be silent. One that is being started, stopped or
        changed is not asked any more: it is in somebody's hands, who sees to it."""
        kept = self._kept.get(name)
        end = time.monotonic() + self.times.silence
        while kept and kept.ready and not (self._in_hand(kept) or self._closing.is_set()):
            try:
                # Anew each time: a question may be lost when the port is opened.
                with Control(kept.spec.control, timeout=self.times.silence / _TRIES) as control:
                    failed = {one.name for one in control.status().devices if one.state is DeviceState.FAILED}
                # Who has one of these is asked for when he starts the next time.
                kept.served -= {client_id(kept.spec, one) for one in kept.spec.emulators if one.id in failed}
                return True
            except Exception:
                # Whatever it says instead, it is no answer.
                if time.monotonic() >= end:
                    return False
                self._closing.wait(_PAUSE)
        return True

    def _in_hand(self, kept: Kept) -> bool:
        """Whether an apply changes a device VM, and has its control port. Not for ever: the apply itself may hang."""
        return time.monotonic() < kept.touched + 2 * self.times.ready and self._changing()

    def _lost(self, name: str, reason: str, *, hangs: bool) -> None:
        kept = self._kept.get(name)
        with self._state:
            if kept is None or not kept.wanted or kept.returning or self._closing.is_set():
                return
            kept.returning = True
            kept.deaths = Deaths(kept.deaths.count + 1 if kept.deaths else 1, time.time(), reason)
        arguments = (name, kept, reason, hangs)
        try:
            threading.Thread(target=self._bring_back, args=arguments, name=f"back-{name}", daemon=True).start()
        except RuntimeError as error:
            # No thread is to be had: `watch` tries again.
            kept.returning = False
            self._tell(f"{name}: {reason}; {error}")

    def _bring_back(self, name: str, kept: Kept, reason: str, hangs: bool) -> None:
        """Restart a device VM until it stays up, is not wanted any more, or has died too often."""
        try:
            reason = reason if hangs else self._last_words(kept) or reason
            kept.deaths = replace(kept.deaths, reason=reason) if kept.deaths else None
            self._tell(f"{name}: {reason}; it is restarted")
            if hangs:
                self._end(name, kept)
            kept.count_death()
            tries = 0
            while self._may_return(kept, tries, reason):
                try:
                    self._restart(name, kept)
                    break
                except Exception as error:
                    # Whatever it is, it is tried again: there is nobody else who does.
                    reason, tries = in_our_words(error).message, tries + 1
        finally:
            with self._state:
                kept.returning = False
        # It may have died once more just before that, and nobody has looked.
        self._look_after(kept)

    def _last_words(self, kept: Kept) -> str:
        # They are a reason better told, and no more.
        with suppress(Exception):
            return last_words(self.driver.console_tail(kept.spec, _CONSOLE))
        return ""

    def _restart(self, name: str, kept: Kept) -> None:
        with kept.lock:
            if not kept.wanted or self.driver.is_active(name):
                return
            kept.ready = False
            try:
                self._boot(name, kept)
            except Exception:
                with suppress(Exception):
                    self.driver.stop(name)
                raise
        self._returned(kept.spec)

    def _end(self, name: str, kept: Kept) -> None:
        """End a device VM that hangs, unless somebody else has taken it in hand meanwhile."""
        with kept.lock:
            if kept.wanted and kept.ready:
                kept.ready = False
                # If it cannot be ended it still runs, and is asked again.
                with suppress(Exception):
                    self.driver.stop(name)
                    return
                kept.ready = True

    def _may_return(self, kept: Kept, tries: int, reason: str) -> bool:
        """Wait as long as is due after these deaths, and tries in a row that failed; whether it may be tried again."""
        if why := kept.why_left(tries):
            kept.failure = f"{why}, and is left so; at last: {reason}"
            kept.wanted = False
            self._tell(f"{kept.spec.name}: {kept.failure}")
            return False
        return not self._closing.wait(kept.pause(tries, self.times.pause)) and kept.wanted

    def close(self) -> None:
        """Begin nothing more; what runs goes on."""
        self._closing.set()

    def _tell(self, text: str) -> None:
        # That nobody hears is no reason to leave off.
        with suppress(OSError):
            self._hear(text)

    def _stop(self, name: str, kept: Kept) -> None:
        kept.wanted = kept.ready = False
        for emulator in kept.spec.emulators:
            if emulator.part:
                self.driver.parts.stop(emulator.part)
        self.driver.stop(name)

    def _known(self, name: str) -> Kept:
        kept = self._kept.get(name)
        if kept is None:
            raise DevicevmError(f"there is no device VM {name}", hint="devicevm apply makes it")
        return kept
