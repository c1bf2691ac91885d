"""How an apply tells what it does, while it does it."""

from __future__ import annotations

from ..planner.plan import Step


class Progress:
    """Called from worker threads, one call at a time. This one keeps silent; front ends override."""

    def started(self, step: Step) -> None:
        """A step begins."""

    def done(self, step: Step, seconds: float) -> None:
        """A step is done."""

    def failed(self, step: Step, error: Exception) -> None:
        """A step failed."""

    def undone(self, step: Step) -> None:
        """A step that was done, or had begun, has been undone."""

    def note(self, text: str) -> None:
        """Something the user may want to know."""
