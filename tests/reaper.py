"""reaper.py COMMAND...: runs a command, and reaps at once whatever it leaves behind.

A process whose parent has ended belongs to the machine's first one, which in a container may reap only now and then:
libvirt, which waits for a guest to be gone, was seen to wait two seconds for each.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> int:
    """The command's exit status, as a shell tells it."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become a reaper")
    command = os.fork()
    if not command:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
    # A terminal interrupts both; this one ends when the command has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _frame: os.kill(command, number))
    while True:
        ended, status = os.wait()
        if ended == command:
            return os.waitstatus_to_exitcode(status) % 256


if __name__ == "__main__":
    sys.exit(main())
