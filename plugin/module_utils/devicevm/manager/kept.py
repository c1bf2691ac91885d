"""What the keeper knows of one device VM, and for how long it is worth trying to have it run."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from ..domain import Deaths, DomainSpec
from .identity import clients_of

MAX_DEATHS = 5
WINDOW = 120.0
"""A device VM that dies more than MAX_DEATHS times within so many seconds is left as it is."""
MAX_TRIES = 5
"""So is one that did not come up so many times in a row, however long each took."""
_LONGEST_PAUSE = 60.0


@dataclass
class Kept:
    """A device VM. `lock` is held by whoever starts, stops or changes it; `wanted`: it is to run."""

    spec: DomainSpec
    wanted: bool = False
    ready: bool = False
    """It has been seen to answer: itself, and not each of its emulators."""
    served: set[str] = field(default_factory=set)
    """The clients all of whose emulators have been seen to answer since it was started."""
    failure: str = ""
    recent: deque[float] = field(default_factory=deque)
    """When it died, by the monotonic clock, as far as that counts for whether it is restarted."""
    deaths: Deaths | None = None
    returning: bool = False
    """Somebody is at work to have it run again."""
    stopped: bool = False
    """The command line has stopped it, maybe to change it: until it starts it again, or lets go of the VMM, nobody else
    does."""
    touched: float = -math.inf
    """When the command line last began to change it, by the monotonic clock."""
    stuck: str = ""
    """Why the VMM has paused it, as it was last told."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def begin_anew(self) -> None:
        """Somebody asks for it: whatever was before, it is tried again."""
        self.wanted, self.stopped, self.failure, self.deaths = True, False, "", None
        self.recent.clear()

    def seen_to_answer(self) -> None:
        """The command line has seen that all of it answers."""
        self.ready = True
        self.served = clients_of(self.spec)

    def count_death(self) -> None:
        """It has died once more."""
        now = time.monotonic()
        self.recent.append(now)
        while self.recent[0] < now - WINDOW:
            self.recent.popleft()

    def why_left(self, tries: int) -> str:
        """Why it is not tried again, after so many tries in a row in which it did not come up; empty when it is."""
        if len(self.recent) > MAX_DEATHS:
            return f"it died {len(self.recent)} times within {WINDOW:g} s"
        return f"it did not come up {tries} times in a row" if tries >= MAX_TRIES else ""

    def pause(self, tries: int, first: float) -> float:
        """Seconds until it is tried again: at once after one death, then `first`, then twice as long each time."""
        count = len(self.recent) + tries
        return min(first * 2 ** (count - 2), _LONGEST_PAUSE) if count > 1 else 0.0
