"""What clients lose for a while, or for good, when what emulates their devices changes or has died."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ..domain import DomainSpec, Emulator, ObservedDomain
from ..manifest.topology import Consumer
from .difference import compare_emulators, content_stays, repinned, same_but_for_emulators, survives
from .parts import waits, without_part
from .plan import Effect

LOST = "a disk of its did not answer, and its content is gone"


@dataclass
class Outages:
    """What runs now; `live`: devices can be added to what runs, and taken away."""

    observed: dict[str, ObservedDomain]
    live: bool
    lost: set[str] = field(default_factory=set)
    """The existing domains that are paused for a disk whose content is gone: only their users can start them again."""

    @cached_property
    def stalled(self) -> bool:
        """Whether any domain is paused, since a disk of its failed."""
        return any(domain.stalled for domain in self.observed.values())

    def running(self, name: str) -> DomainSpec | None:
        """What a domain runs now; None when it does not run or is not there."""
        domain = self.observed.get(name)
        return (domain.active_spec or domain.spec) if domain and domain.active else None

    def emulators(self, device_vm: str) -> dict[str, Emulator]:
        """What a device VM emulates, or did when it last ran, by id."""
        domain = self.observed.get(device_vm)
        spec = (domain.active_spec or domain.spec) if domain else None
        return {emulator.id: emulator for emulator in spec.emulators} if spec else {}

    def can_change_live(self, running: DomainSpec, wanted: DomainSpec) -> bool:
        """Whether a domain can be changed to what is wanted while it runs."""
        if running is wanted:
            return True
        moved = repinned(running, wanted)
        return moved == wanted or (self.live and same_but_for_emulators(moved, wanted))

    def interrupted(self, spec: DomainSpec) -> tuple[tuple[Emulator, ...], str]:
        """The emulators that are away for a while when a device VM becomes `spec`, and why."""
        if spec.name not in self.observed:
            return (), ""
        running = self.running(spec.name)
        if running is None:
            return spec.emulators, f"its device VM {spec.name} does not run"
        if running is spec or running == spec:
            return without_part(spec, self.observed[spec.name]), "the process on the host that relays it does not run"
        if not self.can_change_live(running, spec):
            return spec.emulators, f"its device VM {spec.name} is restarted"
        changes = compare_emulators(running, spec)
        return changes.changed, f"what emulates it in {spec.name} changes: {'; '.join(changes.fields.values())}"

    def cut_off(self, device_vms: list[DomainSpec], clients: list[DomainSpec]) -> dict[str, str]:
        """The running ones of these clients that lose a device that does not come back by itself, and why."""
        reasons: dict[str, str] = {}
        found = [(spec, *self.interrupted(spec)) for spec in device_vms]
        if not any(emulators for spec, emulators, reason in found) and not self.stalled:
            return reasons
        frontends = {
            f"{spec.name}.{attachment.name}": attachment.frontend for spec in clients for attachment in spec.attachments
        }
        for spec, emulators, reason in found:
            before = self.emulators(spec.name)
            for emulator in emulators:
                frontend = frontends.get(emulator.id, "")
                stays = not frontend or survives(frontend, before.get(emulator.id, emulator), emulator)
                if not stays and self.running(emulator.client) is not None:
                    reasons.setdefault(emulator.client, reason)
            # Its device VM may be back by somebody else's hand, but not what was in its memory. Who is still connected
            # to it was paused for something else.
            for emulator in spec.emulators:
                domain = self.observed.get(emulator.client)
                if domain is None or emulator.channel.address not in domain.away or content_stays(emulator, emulator):
                    continue
                if domain.consumer is Consumer.VM:
                    reasons.setdefault(emulator.client, LOST)
                elif emulator.id in frontends:
                    # A guest that is paused gives no device back, and one that went on would write to another disk.
                    self.lost.add(emulator.client)
        return reasons

    def reconnects(self, client: str, device_vm: str) -> bool:
        """Whether all that a client has of a device VM comes back by itself when that does."""
        running = self.running(client)
        emulators = self.emulators(device_vm)
        if running is None:
            return self.waits(client, device_vm)
        return all(
            survives(attachment.frontend, emulator, emulator)
            for attachment in running.attachments
            if attachment.device_vm == device_vm and (emulator := emulators.get(f"{client}.{attachment.name}"))
        )

    def waits(self, client: str, device_vm: str) -> bool:
        """Whether the host is that client, and its parts wait for a device VM that has died."""
        domain = self.observed.get(device_vm)
        mine = [one for one in self.emulators(device_vm).values() if one.client == client]
        if domain is None or domain.active or not mine:
            return False
        return all(waits(one) and one.id in domain.parts for one in mine)

    def effect(self, spec: DomainSpec, clients: tuple[str, ...]) -> Effect:
        """What these clients feel of a device VM that is away for a while."""
        if not clients:
            return Effect.NONE
        return Effect.RECONNECT if all(self.reconnects(name, spec.name) for name in clients) else Effect.RESTART
