"""What the alternatives of a class or a device VM must keep to beyond their schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import Problem
from .document import Document, Place
from .storage import relative_finding

_CPUS = ("thread", "core", "processor")
_X86 = ("x86_64", "i686")


def resource_problems(document: Document) -> Iterator[Problem]:
    """Every problem of `spec.resources`."""
    for index, alternative in enumerate(document.spec.get("resources", ())):
        place = ("spec", "resources", index)
        named = [kind for kind in _CPUS if kind in alternative]
        if len(named) > 1:
            hint = "make each an alternative of its own, or leave all but one out"
            yield document.problem(place, f"{' and '.join(named)} in one alternative", hint)
        thread = alternative.get("thread", {})
        if "smt" in thread and not thread.get("dedicated"):
            message = "smt says what becomes of a dedicated thread's siblings, and this one is shared"
            yield document.problem((*place, "thread", "smt"), message, "add dedicated: true, or leave smt out")
        if "firmware" in alternative:
            yield from _firmware_problems(document, place, alternative)


def brings_code(alternative: dict[str, Any]) -> bool:
    """Whether an alternative names the emulation code itself, so that the class's program is not needed for it."""
    return "firmware" in alternative


def _firmware_problems(document: Document, place: Place, alternative: dict[str, Any]) -> Iterator[Problem]:
    """Firmware is a machine of its own: its kind says which, and what an operating system would have is not there."""
    firmware = alternative["firmware"]
    here = (*place, "firmware")
    for kind in ("isa", "microcode"):
        if kind in alternative:
            hint = "firmware.arch and firmware.machine say what it runs on" if kind == "microcode" else "leave isa out"
            yield document.problem((*place, kind), f"firmware is not given {kind}", hint)
    for finding in relative_finding((*here, "file"), firmware["file"], document.folder):
        yield document.problem(*finding)
    if firmware["kind"] == "elf":
        if missing := [key for key in ("arch", "machine") if key not in firmware]:
            message = f"{' and '.join(missing)} missing: such a program is for one machine"
            yield document.problem(here, message, "for example arch: armv7l, machine: lm3s6965evb")
        return
    arch = firmware.get("arch", _X86[0])
    if arch not in (_X86 if firmware["kind"] == "rom" else _X86[:1]):
        yield document.problem(
            (*here, "arch"), f"{firmware['kind']} firmware does not run on {arch}", "use elf, or x86_64"
        )
