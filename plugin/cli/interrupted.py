"""Ctrl-C in the middle of work that changes something."""

from __future__ import annotations

from ..errors import DevicevmError


class Interrupted(DevicevmError):
    """The user stopped a command; the message says what state is left. Exit status 130."""
