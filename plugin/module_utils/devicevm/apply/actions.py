"""What each step does: a table from (action, subject) to a function that asks the driver. Nothing is decided here."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..domain import DomainSpec, Emulator, Role
from ..errors import DevicevmError
from ..guest.boot_config import device_config, service_config
from ..guest.control import Control
from ..inventory.supports import GUESTS
from ..planner.difference import EmulatorChanges, compare_emulators
from ..planner.plan import Action, Plan, Step, Subject, Until
from ..vmm.driver import Driver
from ..vmm.secrets import read_secret
from .ready import wait_ready
from .rejoin import rejoin_clients


@dataclass
class Context:
    """What the steps of one apply share. `timeout` in seconds, for each device VM to become ready."""

    plan: Plan
    driver: Driver
    guests: bool
    timeout: float
    created: set[str] = field(default_factory=set)
    """Ids of the store steps that created something."""
    stalled: dict[str, DevicevmError] = field(default_factory=dict)
    """Why clients of a device VM that answers do not go on, by the step's id: no reason to undo the step."""

    def wanted(self, step: Step) -> DomainSpec:
        """What the step's domain is to be."""
        return next(spec for spec in self.plan.domains if spec.name == step.name)

    def change(self, step: Step) -> tuple[DomainSpec, DomainSpec]:
        """What the domain of an update was, and what it is to be."""
        before = self.before(step)
        if before is None:
            raise DevicevmError(f"{step.id}: the plan does not say what {step.name} was", hint="make the plan anew")
        return before, self.wanted(step)

    def before(self, step: Step) -> DomainSpec | None:
        """What the step's domain was."""
        return next((spec for spec in self.plan.previous if spec.name == step.name), None)

    def returning(self, name: str) -> frozenset[str]:
        """Ids of a device VM's emulators whose clients run on and connect again by themselves."""
        steps = (step for step in self.plan.steps if (step.kind, step.name) == (Subject.DEVICE_VM, name))
        felt = [felt for step in steps for felt in step.felt]
        back = {client for one in felt if one.until is Until.ANSWERED for client in one.clients}
        known = {emulator.id for spec in self.plan.previous if spec.name == name for emulator in spec.emulators}
        wanted = (spec for spec in self.plan.domains if spec.name == name)
        return frozenset(
            emulator.id
            for spec in wanted
            for emulator in spec.emulators
            if emulator.id in known and emulator.client in back
        )


def make_context(plan: Plan, driver: Driver, supports: tuple[str, ...], timeout: float) -> Context:
    """A context for one apply."""
    return Context(plan, driver, GUESTS in supports, timeout)


def perform(context: Context, step: Step) -> None:
    """Do one step."""
    _DO[step.action, step.kind](context, step)


def revert(context: Context, step: Step) -> None:
    """Undo one step, whether it was done or only begun."""
    undo = _UNDO.get((step.action, step.kind))
    if undo:
        undo(context, step)


def _define(context: Context, step: Step) -> None:
    context.driver.define(context.wanted(step))


def _undo_define(context: Context, step: Step) -> None:
    before = context.before(step)
    if before:
        context.driver.define(before)
    else:
        context.driver.stop(step.name)
        context.driver.undefine(step.name)


def _start_client(context: Context, step: Step) -> None:
    ended = threading.Event()

    def end() -> None:
        # QEMU waits for its devices' first words without a limit of its own, and libvirt for QEMU.
        ended.set()
        context.driver.stop(step.name)

    watch = threading.Timer(context.timeout, end)
    watch.start()
    try:
        context.driver.start(step.name)
    except DevicevmError as error:
        if not ended.is_set():
            raise
        raise DevicevmError(
            f"client {step.name} did not start within {context.timeout:g} s: a device VM of its does not answer",
            hint=f"see 'devicevm status', or give it more time with --timeout; {error.message}",
        ) from error
    finally:
        watch.cancel()


def _start_device_vm(context: Context, step: Step) -> None:
    spec = context.wanted(step)
    context.driver.start(step.name)
    if context.guests:
        wait_ready(context.driver, spec, time.monotonic() + context.timeout, context.returning(step.name))
    context.driver.mark(spec)
    _rejoin(context, step, spec)


def _rejoin(context: Context, step: Step, spec: DomainSpec) -> None:
    try:
        rejoin_clients(context.driver, spec.owner, spec.emulators)
    except DevicevmError as error:
        context.stalled[step.id] = error


def _resume(context: Context, step: Step) -> None:
    wanted = context.wanted(step)
    addresses = tuple(one.channel.address for one in wanted.attachments if not one.faulty)
    context.driver.rejoin(wanted.uuid, wanted.owner, addresses)


def _resume_device_vm(context: Context, step: Step) -> None:
    context.driver.resume(step.name)


def _stop(context: Context, step: Step) -> None:
    context.driver.stop(step.name)


def _undo_stop(context: Context, step: Step) -> None:
    context.driver.start(step.name)
    before = context.before(step)
    if step.kind is Subject.DEVICE_VM and before:
        if context.guests:
            wait_ready(context.driver, before, time.monotonic() + context.timeout)
        context.driver.mark(before)
        _rejoin(context, step, before)


def _undefine(context: Context, step: Step) -> None:
    context.driver.undefine(step.name)


def _undo_undefine(context: Context, step: Step) -> None:
    before = context.before(step)
    if before:
        context.driver.define(before)


def _update(context: Context, step: Step) -> None:
    before, wanted = context.change(step)
    _change(context, step, before, wanted)


def _undo_update(context: Context, step: Step) -> None:
    before, wanted = context.change(step)
    _change(context, step, wanted, before)


def _change(context: Context, step: Step, old: DomainSpec, new: DomainSpec) -> None:
    """Move a running domain to other processors; add and remove emulators of a running device VM.

    The definition is written first and the live mark last: if this process dies in between, the
    two differ, and the next plan does it again from `old`. Everything between is idempotent.
    """
    changes = compare_emulators(old, new)
    if changes and not (old.has_agent and new.has_agent):
        raise DevicevmError(
            f"{new.name} has no agent: its devices cannot change while it runs",
            hint=f"have it made anew: 'virsh destroy {new.name}', then apply again",
        )
    context.driver.define(new)
    if old.placement != new.placement:
        context.driver.pin(new)
    if changes or old.services != new.services:
        _change_programs(context, changes, old, new)
    if new.role is Role.DEVICE_VM and context.guests:
        wait_ready(context.driver, new, time.monotonic() + context.timeout, context.returning(new.name))
    context.driver.mark(new)
    _rejoin(context, step, new)


def _change_programs(context: Context, changes: EmulatorChanges, old: DomainSpec, new: DomainSpec) -> None:
    before = {emulator.id: emulator for emulator in old.emulators}
    with Control(new.control, timeout=context.timeout) as control:
        for emulator in (*changes.removed, *(before[emulator.id] for emulator in changes.changed)):
            control.remove(emulator.id)
            context.driver.detach_emulator(new.name, emulator)
        for name in {service.name for service in old.services} - {service.name for service in new.services}:
            control.remove(name)
        for service in set(new.services) - set(old.services):
            # One of that name is replaced.
            control.add(service_config(service))
        for emulator in (*changes.added, *changes.changed):
            context.driver.attach_emulator(new.name, emulator)
            control.add(_with_secrets(device_config(emulator), emulator))


def _with_secrets(config: dict[str, Any], emulator: Emulator) -> dict[str, Any]:
    """A device that is added to a running device VM brings its secrets along: its VMM reads them at its start only."""
    found = {secret.name: base64.b64encode(read_secret(secret.path)).decode("ascii") for secret in emulator.secrets}
    return {**config, "secrets": found} if found else config


def _attach(context: Context, step: Step) -> None:
    context.driver.attach_client(context.wanted(step))


def _undo_attach(context: Context, step: Step) -> None:
    wanted, before = context.wanted(step), context.before(step)
    if before is None or before.uuid != wanted.uuid:
        context.driver.detach_client(wanted.name, wanted.owner, wanted.uuid)
    if before:
        context.driver.attach_client(before)


def _detach(context: Context, step: Step) -> None:
    before = context.before(step)
    if before is None:
        raise DevicevmError(f"{step.id}: the plan does not say what {step.name} was", hint="make the plan anew")
    context.driver.detach_client(before.name, before.owner, before.uuid)


def _undo_detach(context: Context, step: Step) -> None:
    before = context.before(step)
    if before:
        context.driver.attach_client(before)


def _create_store(context: Context, step: Step) -> None:
    if step.store and context.driver.ensure_store(step.store):
        context.created.add(step.id)


def _undo_create_store(context: Context, step: Step) -> None:
    # Only what this very apply made, and what no client has therefore written to.
    if step.id in context.created and step.store:
        context.driver.delete_store(step.store)


def _delete_store(context: Context, step: Step) -> None:
    if step.store:
        context.driver.delete_store(step.store)


def _start_part(context: Context, step: Step) -> None:
    if step.part:
        context.driver.parts.start(step.part)


def _stop_part(context: Context, step: Step) -> None:
    if step.part:
        context.driver.parts.stop(step.part)


def _repin(context: Context, step: Step) -> None:
    if step.repin:
        context.driver.repin(step.name, step.repin.uuid, step.repin.cpus, context.plan.owner)


def _undo_repin(context: Context, step: Step) -> None:
    if step.repin:
        context.driver.repin(step.name, step.repin.uuid, step.repin.before, context.plan.owner)


Function = Callable[[Context, Step], None]

_DO: dict[tuple[Action, Subject], Function] = {
    (Action.CREATE, Subject.STORE): _create_store,
    (Action.DELETE, Subject.STORE): _delete_store,
    (Action.START, Subject.PART): _start_part,
    (Action.STOP, Subject.PART): _stop_part,
    (Action.REPIN, Subject.DOMAIN): _repin,
    (Action.DEFINE, Subject.DEVICE_VM): _define,
    (Action.DEFINE, Subject.CLIENT): _define,
    (Action.START, Subject.DEVICE_VM): _start_device_vm,
    (Action.START, Subject.CLIENT): _start_client,
    (Action.UPDATE, Subject.DEVICE_VM): _update,
    (Action.UPDATE, Subject.CLIENT): _update,
    (Action.RESUME, Subject.DEVICE_VM): _resume_device_vm,
    (Action.RESUME, Subject.CLIENT): _resume,
    (Action.STOP, Subject.DEVICE_VM): _stop,
    (Action.STOP, Subject.CLIENT): _stop,
    (Action.UNDEFINE, Subject.DEVICE_VM): _undefine,
    (Action.UNDEFINE, Subject.CLIENT): _undefine,
    (Action.ATTACH, Subject.CLIENT): _attach,
    (Action.DETACH, Subject.CLIENT): _detach,
}

POSSIBLE = frozenset(_DO)
"""Which actions there are on which subjects."""

_UNDO: dict[tuple[Action, Subject], Function] = {
    (Action.CREATE, Subject.STORE): _undo_create_store,
    (Action.START, Subject.PART): _stop_part,
    (Action.STOP, Subject.PART): _start_part,
    (Action.REPIN, Subject.DOMAIN): _undo_repin,
    (Action.DEFINE, Subject.DEVICE_VM): _undo_define,
    (Action.DEFINE, Subject.CLIENT): _undo_define,
    (Action.START, Subject.DEVICE_VM): _stop,
    (Action.START, Subject.CLIENT): _stop,
    (Action.UPDATE, Subject.DEVICE_VM): _undo_update,
    (Action.UPDATE, Subject.CLIENT): _undo_update,
    (Action.STOP, Subject.DEVICE_VM): _undo_stop,
    (Action.STOP, Subject.CLIENT): _undo_stop,
    (Action.UNDEFINE, Subject.DEVICE_VM): _undo_undefine,
    (Action.UNDEFINE, Subject.CLIENT): _undo_undefine,
    (Action.ATTACH, Subject.CLIENT): _undo_attach,
    (Action.DETACH, Subject.CLIENT): _undo_detach,
}
