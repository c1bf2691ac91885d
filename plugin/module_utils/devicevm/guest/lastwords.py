"""Why a device VM has ended, in its own words: what stands last on its console. Untrusted, bounded as consoles are."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PANIC = re.compile(r"Kernel panic - not syncing: (.+)")
# The agent's: plugin/guest/agent/device_run.c, tell_end.
_PROGRAM = re.compile(
    r"(\S+: (?:killed by signal \d+|exit status \d+) while its peer was connected(?:, out of memory)?)$"
)


def last_words(lines: Iterable[str]) -> str:
    """What a device VM with these last lines on its console died of; empty when they do not tell."""
    words = ""
    for line in lines:
        if panic := _PANIC.search(line):
            words = f"its kernel panicked: {panic[1]}"
        elif program := _PROGRAM.search(line):
            words = program[1]
    return words
