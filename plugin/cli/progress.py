"""Progress on standard error: spinners on a terminal, one plain line per event elsewhere."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from ..apply.progress import Progress
from ..planner.plan import Action, Step
from . import output
from .planview import describe

if TYPE_CHECKING:
    from rich.progress import TaskID

# A guest boots, or is asked whether what was added works.
_SLOW = frozenset({Action.START, Action.UPDATE})


class PlainProgress(Progress):
    """One line per event; also remembers what became of the steps. A context manager, like LiveProgress."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.finished: set[str] = set()

    def started(self, step: Step) -> None:
        """A step begins: worth a line only when it may take a while and there is no spinner to look at."""
        if step.action in _SLOW:
            self.say(f"{describe(step)} ...")

    def done(self, step: Step, seconds: float) -> None:
        """A step is done."""
        self.finished.add(step.id)
        self.say(f"[{len(self.finished)}/{self.total}] {describe(step)}: done in {seconds:.1f} s", "green")

    def failed(self, step: Step, error: Exception) -> None:
        """A step failed; why is told at the end, where it is seen."""
        self.finished.add(step.id)
        self.say(f"{describe(step)}: failed", "red")

    def undone(self, step: Step) -> None:
        """A step has been undone."""
        self.say(f"{describe(step)}: undone", "yellow")

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self.say(text)

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        output.note(text, style)
        sys.stderr.flush()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is on the screen that would have to go."""


class LiveProgress(PlainProgress):
    """Each running step has a spinner and its seconds; lines of what is done scroll by above them."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        from rich.progress import Progress as Display
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        self.display = Display(*columns, console=output.console(sys.stderr), transient=True)
        self.tasks: dict[str, TaskID] = {}
        self.lock = threading.Lock()

    def started(self, step: Step) -> None:
        """A step begins: a spinner."""
        with self.lock:
            self.tasks[step.id] = self.display.add_task(output.printable(describe(step)), total=None)

    def done(self, step: Step, seconds: float) -> None:
        """A step is done: its spinner becomes a line."""
        self._forget(step)
        super().done(step, seconds)

    def failed(self, step: Step, error: Exception) -> None:
        """A step failed."""
        self._forget(step)
        super().failed(step, error)

    def say(self, text: str, style: str = "") -> None:
        """One line above the spinners."""
        self.display.console.print(output.printable(text), style=style, soft_wrap=True)

    def __enter__(self) -> LiveProgress:
        self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.display.stop()

    def _forget(self, step: Step) -> None:
        with self.lock:
            if step.id in self.tasks:
                self.display.remove_task(self.tasks.pop(step.id))


def make_progress(total: int) -> PlainProgress:
    """The progress that suits standard error; `total` is the number of steps."""
    return LiveProgress(total) if sys.stderr.isatty() else PlainProgress(total)
