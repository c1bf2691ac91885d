"""The plan document: what will be done, where, why, and what could not be placed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from .. import API_VERSION
from ..domain import DomainSpec
from ..manifest.topology import Store
from ..part.part import Part
from ..record import ALWAYS, digest


class Action(str, Enum):
    """What a step does to its subject."""

    DEFINE = "define"
    START = "start"
    UPDATE = "update"
    STOP = "stop"
    UNDEFINE = "undefine"
    CREATE = "create"
    DELETE = "delete"
    REPIN = "repin"
    ATTACH = "attach"
    """Existing domains get a client's devices, and lose others of that client's."""
    DETACH = "detach"
    RESUME = "resume"


class Subject(str, Enum):
    """What a step is about."""

    DEVICE_VM = "device-vm"
    CLIENT = "client"
    STORE = "store"
    PART = "part"
    """A process on the host between a device VM and its client."""
    DOMAIN = "domain"
    """A domain that is not devicevm's."""


class Phase(str, Enum):
    """What a step is part of. What comes before them all, determining the resources, is the plan's
    `allocations`: it is decided, not done."""

    REQUEST = "request"
    CONFIGURE = "configure"
    CONNECT = "connect"
    RELEASE = "release"


class Effect(str, Enum):
    """What running clients feel, least first."""

    NONE = "none"
    LIVE = "live"
    RECONNECT = "reconnect"
    RESTART = "restart"
    REPLACE = "replace"
    REMOVE = "remove"


class Until(str, Enum):
    """What ends the time in which a client feels a step."""

    ANSWERED = "answered"
    """Its device VM has answered for each of its devices: the step that starts or changes it is done then."""
    BOOTED = "booted"
    """The client has booted: nobody but its user knows how long that takes."""
    RESTARTED = "restarted"
    """Somebody restarts the client, which is not declared here, or its user does."""
    NEVER = "never"
    """It is gone."""


@dataclass(frozen=True)
class Seconds:
    """An estimate, in whole seconds: at least `from_`, and `to` where that is known (0: it is not)."""

    from_: int
    to: int = 0


@dataclass(frozen=True)
class Felt:
    """Who feels a step until when, and for about how long where anything is known of that (planner/felt.py)."""

    clients: tuple[str, ...]
    until: Until
    seconds: Seconds | None = None


@dataclass(frozen=True)
class Repin:
    """Where the floating threads of a domain that is not devicevm's are to run, and where they were moved before;
    empty = anywhere."""

    uuid: str
    host: str
    cpus: tuple[int, ...] = ()
    before: tuple[int, ...] = ()


def step_id(action: Action, kind: Subject, name: str) -> str:
    """The id of the step that does this to that: `start/client/web`."""
    return f"{action.value}/{kind.value}/{name}"


@dataclass(frozen=True)
class Step:
    """One thing to do. `id` is unique in the plan, `after` names the steps that must be done before, and that were for
    nothing when this one fails; `behind` those whose turn is before, and which stay done.

    `affects` names the clients that feel it; `name` is the domain's (or the store's) name.
    """

    id: str
    action: Action
    kind: Subject
    name: str
    phase: Phase
    effect: Effect
    reason: str
    after: tuple[str, ...] = ()
    affects: tuple[str, ...] = ()
    store: Store | None = None
    felt: tuple[Felt, ...] = ()
    """For how long; a client that several steps affect is told with the one that it feels."""
    repin: Repin | None = None
    part: Part | None = None
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """A device (`client/device`) that any domain can be given, and the socket that this connects to."""

    device: str
    address: str


@dataclass(frozen=True)
class Allocation:
    """What runs a device VM's emulation code. `cpus` are the host's logical processors (empty: any);
    `memory` in bytes; `reasons` say why this alternative and why not the better ones."""

    device_vm: str
    host: str
    unit: str
    cpus: tuple[int, ...]
    memory: int
    channel: str
    dedicated: bool = False
    nodes: tuple[int, ...] = ()
    serves: tuple[str, ...] = ()
    """`client/device` of each device it emulates."""
    reasons: tuple[str, ...] = ()
    firmware: str = ""
    """The path of what it runs in place of an operating system."""
    blocks: tuple[str, ...] = ()
    """Addresses of the host's devices that it is given."""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class Unplaced:
    """A device (or, with an empty `device`, a whole client) that cannot be had, and every reason why."""

    client: str
    device: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Rebalance:
    """What is gained by moving what runs, and what it costs; nothing gained, nothing moved.

    `steps` and `without` count the steps by effect, of this plan and of the one that moves nothing; `clients` are those
    that feel this one and would not feel that one; `held` tells what was not considered, and why.
    """

    gains: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()
    steps: dict[str, int] = field(default_factory=dict)
    without: dict[str, int] = field(default_factory=dict)
    clients: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The way from what is to what is declared. `made_from` is the digest of all inputs of the VMM's
    side: applying a plan whose VMM has moved on since is refused."""

    owner: str
    made_from: str
    steps: tuple[Step, ...] = ()
    allocations: tuple[Allocation, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
    domains: tuple[DomainSpec, ...] = ()
    """Every domain that a step defines or updates, in full."""
    previous: tuple[DomainSpec, ...] = ()
    """What the domains that a step updates were before: the way back when the step fails."""
    warnings: tuple[str, ...] = ()
    rebalance: Rebalance | None = None
    """Only where it was asked for."""
    api_version: str = field(default=API_VERSION, metadata=ALWAYS)
    kind: str = field(default="Plan", metadata=ALWAYS)

    @property
    def changes(self) -> int:
        """How many steps there are; each changes something."""
        return len(self.steps)

    @property
    def digest(self) -> str:
        """Identifies the plan's whole content."""
        return digest(self)
