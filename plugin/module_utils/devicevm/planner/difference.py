"""How two specifications of a domain differ, for the planner and for its words."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

from ..channel.region import REGION
from ..domain import DomainSpec, Emulator
from ..frontend.registry import FRONTENDS
from ..inventory.cpuset import format_cpuset
from ..quantity import format_bytes

# Two values are worth showing while they fit a line of a plan.
_SHORT = 160


@dataclass(frozen=True)
class EmulatorChanges:
    """The emulators that a device VM gets, loses, and runs otherwise (as they are to be).

    `fields` tells for each changed one, by id, in what it changes.
    """

    added: tuple[Emulator, ...]
    removed: tuple[Emulator, ...]
    changed: tuple[Emulator, ...]
    fields: dict[str, str]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        words = [
            f"{verb} {_names(emulators)}"
            for verb, emulators in (("adds", self.added), ("removes", self.removed))
            if emulators
        ]
        words += [
            f"changes {emulator.client}/{emulator.name} ({self.fields[emulator.id]})" for emulator in self.changed
        ]
        return "; ".join(words)


def compare_emulators(old: DomainSpec, new: DomainSpec) -> EmulatorChanges:
    """What must happen to a device VM's emulators to get from `old` to `new`."""
    before = {emulator.id: emulator for emulator in old.emulators}
    after = {emulator.id: emulator for emulator in new.emulators}
    # What is beside the device VM on the host has steps of its own.
    changed = tuple(one for key, one in after.items() if key in before and replace(before[key], part=one.part) != one)
    return EmulatorChanges(
        added=tuple(emulator for key, emulator in after.items() if key not in before),
        removed=tuple(emulator for key, emulator in before.items() if key not in after),
        changed=changed,
        fields={emulator.id: _changed_fields(before[emulator.id], emulator) for emulator in changed},
    )


def content_stays(before: Emulator, after: Emulator) -> bool:
    """Whether who used `before` finds on `after` what was there: it has none, or it is on the same store as before, is
    a copy of the same and opened by the same keys."""
    if after.protocol == "bytes":
        # What is behind a line is the emulation's own affair, a design for instance: its client has read nothing of it.
        return True
    if before.channel.size != after.channel.size:
        return False  # a region of another size is other memory
    if before.base != after.base or before.secrets != after.secrets:
        return False
    if before.store is None or after.store is None:
        return not before.size and not after.size
    kept = replace(before.store, reclaim=after.store.reclaim)
    return kept == after.store


def survives(frontend: str, before: Emulator, after: Emulator) -> bool:
    """Whether a client goes on by itself, with nothing lost, when what emulated its device was away for a while."""
    return FRONTENDS[frontend].reconnects and content_stays(before, after)


def same_but_for_emulators(old: DomainSpec, new: DomainSpec) -> bool:
    """Whether nothing but emulators and services differs: then a running device VM can be changed live, if it has an
    agent."""
    return new.has_agent and replace(old, emulators=new.emulators, services=new.services) == new


def repinned(old: DomainSpec, new: DomainSpec) -> DomainSpec:
    """`old` where `new` runs, as far as that can be while it runs: threads move, memory does not. Who starts it the
    next time changes nothing of what runs either."""
    stays = old.placement.nodes != new.placement.nodes
    return replace(old, placement=old.placement if stays else new.placement, start=new.start, autostart=new.autostart)


def describe_services(old: DomainSpec, new: DomainSpec) -> str:
    """`changes the service of net`; empty when both run the same ones."""
    changed = sorted({service.name for service in {*old.services} ^ {*new.services}})
    return f"changes the service of {', '.join(changed)}" if changed else ""


def describe_pins(old: DomainSpec, new: DomainSpec) -> str:
    """`it runs on CPU 0-3 instead of any`; empty when both run on the same ones."""
    if old.placement == new.placement:
        return ""
    before, after = (describe_cpus(spec) or "any" for spec in (old, new))
    if before == after:
        return f"it stays on CPU {after}; the VMM's own threads, or what the CPUs are to it, change"
    return f"it runs on CPU {after} instead of {before}"


def describe_cpus(spec: DomainSpec) -> str:
    """The host's CPUs that a domain's virtual CPUs are pinned to: `0-1`; empty when they are not."""
    return format_cpuset(cpu for pin in spec.placement.vcpus for cpu in pin)


def difference(old: DomainSpec | None, new: DomainSpec) -> str:
    """In which fields two specifications differ, with the values where they are short."""
    if old is None:
        return "its metadata cannot be read"
    return _changed_fields(old, new)


def _changed_fields(old: DomainSpec | Emulator, new: DomainSpec | Emulator) -> str:
    parts = []
    for name in new.__dataclass_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            if isinstance(after, tuple) and all(isinstance(item, str) for item in (*before, *after)):
                before, after = shlex.join(before), shlex.join(after)
            short = isinstance(after, (int, str)) and len(str(before)) + len(str(after)) < _SHORT
            parts.append(f"{name} {before} -> {after}" if short else f"{name} changes")
    return ", ".join(parts)


def served(spec: DomainSpec) -> str:
    """`web/data (disk), web/gps (serial), web/sound (samples, reads 1MiB of shared memory)`."""
    return ", ".join(f"{one.client}/{one.name} ({one.class_}{_shared(one)})" for one in spec.emulators)


def _shared(emulator: Emulator) -> str:
    if emulator.channel.kind != REGION:
        return ""
    how = "reads" if emulator.read_only else "reads and writes"
    return f", {how} {format_bytes(emulator.channel.size)} of shared memory"


def _names(emulators: tuple[Emulator, ...]) -> str:
    return ", ".join(f"{emulator.client}/{emulator.name}" for emulator in emulators)
