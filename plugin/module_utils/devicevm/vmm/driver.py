"""What devicevm needs of a VMM: one interface, one conformance suite (tests/conformance).

What a driver may be able to do beyond that is in inventory/supports.py.

A driver is dumb: the planner has decided, the driver asks the VMM. Each method does one thing,
is idempotent where it says so, and raises VmmError with the VMM's own words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

from ..domain import Deaths, DomainSpec, Emulator, ObservedDomain
from ..errors import DevicevmError
from ..inventory.host import Host
from ..manifest.topology import Store
from ..part.keeper import NoParts, Parts


class VmmError(DevicevmError):
    """The VMM refused or failed; the message holds its own words."""


class Driver(ABC):
    """One connection to one VMM on one host. A context manager: `with open_driver(uri) as driver`."""

    @abstractmethod
    def host(self) -> Host:
        """The inventory of the host: what it has, what is held of it, which images are there."""

    @abstractmethod
    def observe(self) -> tuple[ObservedDomain, ...]:
        """Every domain that carries devicevm's metadata, of any owner, sorted by name; and for every client that has
        devices in an existing domain one more, by the client's name."""

    @abstractmethod
    def domain_names(self) -> frozenset[str]:
        """The names of all domains, anybody's."""

    @abstractmethod
    def render(self, spec: DomainSpec) -> str:
        """The domain's definition in the VMM's own language; of an existing one, the devices it is given. Pure."""

    @abstractmethod
    def define(self, spec: DomainSpec) -> None:
        """Make the VMM know the domain, or know it anew. Idempotent; a running domain goes on as it is."""

    @abstractmethod
    def start(self, name: str) -> None:
        """Start a defined domain. Idempotent: a running one stays as it is."""

    @abstractmethod
    def stop(self, name: str) -> None:
        """Stop a domain at once. Idempotent; an unknown one is no error."""

    @abstractmethod
    def rejoin(self, uuid: str, owner: str, addresses: tuple[str, ...]) -> None:
        """Connect the disks of the running domain of that UUID again to their device VMs, which answer, at `addresses`;
        and let it go on if its VMM has paused it because one did not: what it had asked for is asked for again.
        Idempotent; what anybody else has paused stays so, and a domain that does not run is no error. One that is
        neither `owner`'s client nor has devices of one is left alone: VmmError."""

    @abstractmethod
    def resume(self, name: str) -> bool:
        """Let a domain go on that its VMM has paused because a disk of its failed, whatever disk: what it had asked for
        is asked again, once. Whether it was paused so. VmmError tells why it is at once again; what anybody else has
        paused stays so, and a domain that does not run, or is not there, is no error."""

    @abstractmethod
    def undefine(self, name: str) -> None:
        """Forget a domain that does not run, with its console log and sockets. Idempotent."""

    @abstractmethod
    def is_active(self, name: str) -> bool:
        """Whether the domain runs; False for an unknown one."""

    @abstractmethod
    def attach_emulator(self, name: str, emulator: Emulator) -> None:
        """Give a running device VM the channel (and backing disk) of one more device. Idempotent."""

    @abstractmethod
    def detach_emulator(self, name: str, emulator: Emulator) -> None:
        """Take a device's channel (and backing disk) from a running device VM. Idempotent."""

    @abstractmethod
    def open_ports(self, name: str) -> frozenset[str]:
        """The names of the ports that programs in a running device VM have open, as far as the VMM knows."""

    @abstractmethod
    def mark(self, spec: DomainSpec) -> None:
        """Write into a running domain's live metadata that it runs `spec`, and is ready: it has been seen to answer."""

    @abstractmethod
    def pin(self, spec: DomainSpec) -> None:
        """Move the threads of a running domain to the processors of `spec.placement`; where it names none, to any."""

    @abstractmethod
    def repin(self, name: str, uuid: str, cpus: tuple[int, ...], owner: str) -> None:
        """Keep the floating threads of a domain that is not devicevm's to `cpus`, now and at its next start; with none,
        let them run anywhere again. What else it has pinned stays, and what was done is kept in it, for `owner`.
        Idempotent; a domain that is gone is no error."""

    @abstractmethod
    def attach_client(self, spec: DomainSpec) -> None:
        """Make an existing domain have the devices of its client `spec`, and no others of that client's: in its
        definition and, while it runs, as far as they can be plugged in. What was asked for is kept in it. Idempotent;
        nothing else of the domain changes, and nothing at all when a running one has no room."""

    @abstractmethod
    def detach_client(self, client: str, owner: str, uuid: str) -> None:
        """Take a client's devices out of the existing domain of that UUID, with what is kept of them. Idempotent; a
        domain that is gone is no error."""

    @abstractmethod
    def ensure_store(self, store: Store) -> bool:
        """Create or grow backing storage; True when it was created. Never shrinks, never overwrites."""

    @abstractmethod
    def delete_store(self, store: Store) -> None:
        """Delete backing storage and the data in it. Idempotent."""

    @abstractmethod
    def console_tail(self, spec: DomainSpec, lines: int) -> tuple[str, ...]:
        """The last lines the guest wrote to its console; bounded, control characters removed."""

    def deaths(self) -> dict[str, Deaths]:
        """The device VMs that have died, by name, where somebody watches over them: a manager."""
        return {}

    @property
    def parts(self) -> Parts:
        """The processes on the host beside its device VMs. Where nothing runs, none of them is needed."""
        return NoParts(Path())

    @abstractmethod
    def close(self) -> None:
        """End the connection; domains go on."""

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
