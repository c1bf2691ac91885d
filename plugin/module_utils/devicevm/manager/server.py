"""The manager's process: a keeper, the socket on which it is asked, and what its VMM tells it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..apply.rejoin import rejoin_clients
from ..domain import DomainSpec, Emulator
from ..errors import DevicevmError, in_our_words
from ..inventory.supports import GUESTS
from ..planner.difference import content_stays
from ..record import from_data, to_data
from ..vmm import console
from ..vmm.driver import Driver
from ..vmm.libvirt.connection import vmm_words
from ..vmm.libvirt.driver import LibvirtDriver
from ..vmm.libvirt.inventory import domain_documents
from ..vmm.libvirt.qemu import QemuDriver
from ..vmm.lock import is_locked
from ..vmm.places import Places, is_managed, make_logs, make_runtime, managers_places
from . import hook, wire
from .identity import identity
from .keeper import Keeper, Tell, Times

MAX_CALLERS = 256
"""Callers at once: each start of a client is one for as long as its device VMs boot."""
REQUEST_SECONDS = 10.0
LOOK_AGAIN = 5.0
REJOIN_AGAIN = 30.0
"""Seconds after which clients that do not go on are tried again."""
LOGS_AGAIN = 5.0
"""Seconds between two looks at console logs: by what a guest writes meanwhile they may be larger than their bound."""
OPENING = 5.0
"""Seconds that another manager may take to end."""

Answer = Callable[[dict[str, Any]], Any]


class Manager:
    """Answers at the socket `path` for the device VMs on `vmm`; `clients` opens the VMM that their clients are on."""

    def __init__(
        self,
        path: str,
        vmm: LibvirtDriver,
        clients: Callable[[], Driver],
        *,
        boots: int = 0,
        times: Times | None = None,
        tell: Tell = lambda _text: None,
    ) -> None:
        self.path, self.vmm, self.clients = path, vmm, clients
        self.keeper = Keeper(
            vmm,
            boots=boots or os.cpu_count() or 1,
            times=times,
            guests=GUESTS in vmm.supports,
            # The manager's VMM and the clients' have one runtime directory, and so one lock.
            changing=lambda: is_locked(vmm.places),
            tell=tell,
            returned=self._let_go_on,
        )
        self._tell = tell
        self._waiting: dict[str, str] = {}
        """Device VMs that are back, though not all of their clients go on, and why."""
        self._callers = threading.BoundedSemaphore(MAX_CALLERS)
        self._ended = threading.Event()
        self._answers = self._operations()

    def run(self, listening: Callable[[], None]) -> None:
        """Answer until `end` is called; `listening` is called when the socket is there."""
        try:
            self._watch()
            threading.Thread(target=self.keeper.watch, name="watch", daemon=True).start()
            with _listener(self.path) as listener:
                threading.Thread(target=self._see_to_clients, name="clients", daemon=True).start()
                threading.Thread(target=self._bound_logs, name="logs", daemon=True).start()
                listening()
                while not self._ended.is_set():
                    with suppress(TimeoutError):
                        self._take(listener.accept()[0])
        finally:
            self._ended.set()
            self.keeper.close()
            self.vmm.close()

    def end(self) -> None:
        """Have `run` return. Device VMs go on, and the next manager takes them over."""
        self._ended.set()

    def _take(self, peer: socket.socket) -> None:
        if self._callers.acquire(blocking=False):
            threading.Thread(target=self._serve, args=(peer,), name="caller", daemon=True).start()
            return
        with suppress(OSError), peer:
            peer.sendall(wire.error_line(DevicevmError("devicevm's manager is busy", hint="try again")))

    def _watch(self) -> None:
        """Hear of device VMs that end, from here on, and look for those that have ended before."""
        libvirt = self.vmm.libvirt
        words = {
            libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "it powered off",
            libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "it was ended",
            libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "its kernel crashed",
            libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "its QEMU died",
        }

        def heard(_connection: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
            # libvirt's event loop must not wait: what is to be done is done by a thread of its own.
            if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
                self.keeper.died(domain.name(), words.get(detail, "it ended"))

        self.vmm.connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, heard, None)
        self.keeper.take_over(self._died_unseen)

    def _died_unseen(self, name: str) -> bool:
        """Whether libvirt has found, when it opened the VMM, that a domain had ended: of one that did not run it knows
        no reason."""
        libvirt = self.vmm.libvirt
        reason = self.vmm.connection.lookupByName(name).state()[1]
        return bool(reason != libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN)

    def _bound_logs(self) -> None:
        """Device VMs' consoles, for as long as they may write: no virtlogd belongs to an embedded VMM."""
        while not self._ended.wait(LOGS_AGAIN):
            console.bound(self.vmm.places.logs)

    def _see_to_clients(self) -> None:
        """Ask the clients' VMM, as soon as it answers, which of them run; from then on, have those go on that could
        not. In a thread that nobody waits for: the VMM may itself be waiting for us, when it starts clients as it
        starts."""
        known, told = False, ""
        while not self._ended.is_set():
            try:
                if not known:
                    known = self._find_clients()
                for spec in self.keeper.ready:
                    if spec.name in self._waiting:
                        self._rejoin(spec)
            except Exception as error:
                # Nothing is stopped, and nobody else looks, as long as this has not come to its end.
                told, before = in_our_words(error).message, told
                if told != before:
                    self._tell(f"cannot see which clients run, and tries again: {told}")
            self._ended.wait(REJOIN_AGAIN if known else LOOK_AGAIN)

    def _find_clients(self) -> bool:
        """Whether it is known now which clients run. Not while an apply is at work, which starts and stops them."""
        if is_locked(self.vmm.places):
            return False
        with self.clients() as driver:
            running = [seen for seen in driver.observe() if seen.active]
        self.keeper.found_running(map(identity, running))
        if any(seen.stalled for seen in running):
            for spec in self.keeper.ready:
                self._rejoin(spec)
        return True

    def _let_go_on(self, device_vm: DomainSpec) -> None:
        try:
            threading.Thread(target=self._rejoin, args=(device_vm,), daemon=True).start()
        except RuntimeError as error:
            # No thread is to be had: it is tried again.
            self._waiting[device_vm.name] = str(error)

    def _rejoin(self, device_vm: DomainSpec) -> None:
        """Let the clients of a device VM that is back go on. Those of which something is lost are left as they are: a
        guest that went on would write what belongs to it onto what does not."""
        name, emulators = device_vm.name, device_vm.emulators
        lost = {emulator.client for emulator in emulators if not content_stays(emulator, emulator)}
        try:
            with self.clients() as driver:
                rejoin_clients(driver, device_vm.owner, (one for one in emulators if one.client not in lost))
        except Exception as error:
            reason = in_our_words(error).message
            if self._waiting.get(name) != reason:
                self._tell(f"{name}: {reason}; it is tried again")
            self._waiting[name] = reason
        else:
            self._waiting.pop(name, None)

    def _serve(self, peer: socket.socket) -> None:
        try:
            with suppress(OSError), peer:
                peer.sendall(self._answer(peer))
        finally:
            self._callers.release()

    def _answer(self, peer: socket.socket) -> bytes:
        try:
            request = _request(wire.read_line(peer, time.monotonic() + REQUEST_SECONDS))
            if "hook" in request:
                _check_hook(request["hook"])
            else:
                wire.check_caller(request.get("version"))
            answer = self._answers.get(request.get("op", ""))
            if answer is None:
                raise DevicevmError(f"devicevm's manager knows no operation {request.get('op')!r}")
            return wire.result_line(answer(request))
        except DevicevmError as error:
            return wire.error_line(error)
        except (OSError, KeyError, ValueError, TypeError) as error:
            return wire.error_line(DevicevmError(f"devicevm's manager cannot read the request: {error!r}"))
        except Exception as error:
            return wire.error_line(in_our_words(error))

    def _documents(self) -> list[tuple[str, str]]:
        with vmm_words("cannot list the manager's domains"):
            return domain_documents(self.vmm)

    def _operations(self) -> dict[str, Answer]:
        keeper, vmm = self.keeper, self.vmm

        def spec_of(request: dict[str, Any]) -> DomainSpec:
            return from_data(DomainSpec, request["spec"])

        def emulator_of(request: dict[str, Any]) -> Emulator:
            return from_data(Emulator, request["emulator"])

        return {
            "hello": lambda _request: list(vmm.supports),
            "observe": lambda _request: to_data(keeper.observe()),
            "deaths": lambda _request: to_data(keeper.deaths()),
            "names": lambda _request: sorted(vmm.domain_names()),
            "documents": lambda _request: self._documents(),
            "define": lambda request: keeper.define(spec_of(request)),
            "start": lambda request: keeper.start(str(request["name"])),
            "stop": lambda request: keeper.stop(str(request["name"])),
            "undefine": lambda request: keeper.undefine(str(request["name"])),
            "active": lambda request: vmm.is_active(str(request["name"])),
            "attach": lambda request: vmm.attach_emulator(str(request["name"]), emulator_of(request)),
            "detach": lambda request: vmm.detach_emulator(str(request["name"]), emulator_of(request)),
            "ports": lambda request: sorted(vmm.open_ports(str(request["name"]))),
            "resume": lambda request: vmm.resume(str(request["name"])),
            "mark": lambda request: keeper.mark(spec_of(request)),
            "pin": lambda request: vmm.pin(spec_of(request)),
            "prepare": lambda request: keeper.prepare(
                str(request["client"]), str(request["owner"]), [str(name) for name in request["deviceVMs"]]
            ),
            "use": lambda request: keeper.use(str(request["client"])),
            "release": lambda request: keeper.release(str(request["client"])),
        }


def _request(line: bytes) -> dict[str, Any]:
    data = json.loads(line)
    if not isinstance(data, dict):
        raise DevicevmError("a request is a JSON object")
    return data


def _check_hook(version: object) -> None:
    if version != hook.VERSION:
        raise DevicevmError("the hook is another version's than devicevm's manager", hint="devicevm manager install")


def open_manager(places: Places, *, boots: int, times: Times, tell: Tell) -> Manager:
    """The manager of the VMM at `places`, on the VMM of its own."""
    if not is_managed(places):
        raise DevicevmError(f"{places.uri} has no manager", hint="devicevm manager install")
    own = managers_places(places)
    make_runtime(own, None)
    make_logs(own)
    vmm = QemuDriver(own, wait=OPENING)
    return Manager(wire.socket_path(places), vmm, lambda: QemuDriver(places), boots=boots, times=times, tell=tell)


@contextmanager
def _listener(path: str) -> Iterator[socket.socket]:
    """The socket, for root alone. One that a manager has left which was killed is replaced: who runs holds the VMM."""
    with socket.socket(socket.AF_UNIX) as listener:
        Path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(MAX_CALLERS)
        listener.settimeout(0.5)
        try:
            yield listener
        finally:
            Path(path).unlink(missing_ok=True)
