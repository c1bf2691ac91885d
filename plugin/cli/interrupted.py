"""Ctrl-C and SIGTERM: what becomes of work in the middle of which they come."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ..errors import DevicevmError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], None]


class Interrupted(DevicevmError):
    """The user stopped a command; the message says what state is left. Exit status 130."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal's handler: SIGTERM does what Ctrl-C does."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM is treated as Ctrl-C: what was begun is ended in order, and said."""
    with _handled((signal.SIGTERM,), interrupt):
        yield


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM are put off with a word: an impatient second one must not leave half of it behind.

    Handlers, not signal masks: a mask is one thread's, and Python runs handlers whichever thread the signal came to.
    """
    with _handled(_SIGNALS, _put_off):
        yield


def _put_off(number: int, frame: FrameType | None) -> None:
    """Says so, by the system's own write: the signal may have come into the middle of another line, and neither
    Python's streams nor rich are made for being entered a second time from there."""
    with contextlib.suppress(OSError):
        os.write(2, b"still cleaning up\n")


@contextlib.contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Handler) -> Iterator[None]:
    """Within, `handler` is called for these signals; nothing happens outside the main thread, which gets them all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
