"""What the alternatives of a class or a device VM must keep to beyond their schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import Problem
from ..inventory.cpuset import format_cpuset
from .build import cpus_named
from .declared import Declared
from .document import Document, Place, shown
from .storage import relative_finding
from .wording import nearest

_CPUS = ("thread", "core", "processor")
_X86 = ("x86_64", "i686")


def resource_problems(document: Document, declared: Declared) -> Iterator[Problem]:
    """Every problem of `spec.resources`."""
    for index, alternative in enumerate(document.spec.get("resources", ())):
        place = ("spec", "resources", index)
        named = [kind for kind in _CPUS if kind in alternative]
        if len(named) > 1:
            hint = "make each an alternative of its own, or leave all but one out"
            yield document.problem(place, f"{' and '.join(named)} in one alternative", hint)
        for kind in named:
            yield from cpu_problems(document, (*place, kind), alternative[kind], kind != "thread")
        if "firmware" in alternative:
            yield from _firmware_problems(document, place, alternative)
        if "block" in alternative:
            yield from _block_problems(document, place, alternative["block"])
        if "program" in alternative:
            yield from _program_problems(document, place, alternative, declared)


def cpu_problems(document: Document, place: Place, request: dict[str, Any], alone: bool = False) -> Iterator[Problem]:
    """What a request for processors asks in two ways at once; `alone` = its kind is always dedicated."""
    dedicated = alone or request.get("dedicated", False)
    if "smt" in request and not dedicated:
        message = "smt says what becomes of a dedicated thread's siblings, and this one is shared"
        yield document.problem((*place, "smt"), message, "add dedicated: true, or leave smt out")
    if request.get("float") and dedicated:
        message = "what floats over the shared pool has no processor to itself"
        yield document.problem((*place, "float"), message, "leave float or dedicated out")
    if request.get("emulator") == "own" and not dedicated:
        message = "the VMM's own threads have a processor of their own only beside dedicated ones"
        yield document.problem((*place, "emulator"), message, "add dedicated: true, or say emulator: shared")
    if request.get("near") == "sibling":
        for key in ("smt", "float", "numaNode"):
            if request.get(key, False) is not False:
                message = f"near: sibling says which threads are meant, and so does {key}"
                yield document.problem((*place, key), message, "leave one of the two out")


def pool_problems(document: Document) -> Iterator[Problem]:
    """A CPU of a Host cannot be left alone and shared."""
    both = set(cpus_named(document.spec.get("reservedCpus", ()))) & set(cpus_named(document.spec.get("sharedCpus", ())))
    if both:
        message = f"CPU {format_cpuset(both)} is reserved as well: reserved CPUs are left alone"
        yield document.problem(("spec", "sharedCpus"), message, "name each CPU in one of the two")


def brings_code(alternative: dict[str, Any]) -> bool:
    """Whether an alternative names the emulation code itself, so that the class's program is not needed for it."""
    simulated = alternative.get("block", {}).get("provider") == "simulated"
    return simulated or "firmware" in alternative or "command" in alternative.get("program", {})


def own_commands(alternatives: Iterable[dict[str, Any]]) -> list[list[str]]:
    """The command lines of alternatives that have programs of their own."""
    return [alternative["program"].get("command", []) for alternative in alternatives if "program" in alternative]


def _firmware_problems(document: Document, place: Place, alternative: dict[str, Any]) -> Iterator[Problem]:
    """Firmware is a machine of its own: its kind says which, and what an operating system would have is not there."""
    firmware = alternative["firmware"]
    here = (*place, "firmware")
    for kind in ("isa", "microcode", "block"):
        if kind in alternative:
            hint = (
                "firmware.arch and firmware.machine say what it runs on" if kind == "microcode" else f"leave {kind} out"
            )
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


def _block_problems(document: Document, place: Place, block: dict[str, Any]) -> Iterator[Problem]:
    """A simulated block is its design; the host's is what it is, and may be programmed when it is had whole."""
    here = (*place, "block")
    simulated = block.get("provider") == "simulated"
    strange = sorted(set(block) - {"provider", "design", "image"} if simulated else set(block) & {"design", "image"})
    for key in strange:
        of = "the host's blocks" if simulated else "a simulated block"
        yield document.problem((*here, key), f"{key} is for {of}", "leave it out, or change provider")
    if simulated and "design" not in block:
        yield document.problem(
            here, "design is missing: it is what a simulator runs", "design: FILE, of Verilog source"
        )
    for finding in relative_finding((*here, "design"), block.get("design", "/"), document.folder):
        yield document.problem(*finding)
    if ("bitstream" in block) != ("clear" in block):
        there, missing = ("bitstream", "clear") if "bitstream" in block else ("clear", "bitstream")
        why = "no FPGA manager can erase: the next user would find this circuit, and its data"
        yield document.problem((*here, there), f"{there} without {missing}: {why}", "name both, or program it yourself")
    for key in ("bitstream", "clear"):
        name = block.get(key, "name")
        # As vmm/fpga.py has it, but before anything is started.
        if {"", ".", ".."}.intersection(name.split("/")) or "\\" in name or name.strip() != name:
            message = f"{name!r} is no name below /lib/firmware"
            yield document.problem((*here, key), message, "write its path below that, as in lab/meter.rbf")
    kind = block.get("kind", "pci")
    if "bitstream" in block and kind != "pci":
        message = "a bitstream is for a whole device, and its other functions belong to others"
        yield document.problem((*here, "bitstream"), message, "use kind: pci, or program it yourself")
    if "type" in block and kind != "mdev":
        yield document.problem(
            (*here, "type"), f"a block of kind {kind} has no type", "use kind: mdev, or leave it out"
        )


def _program_problems(
    document: Document, place: Place, alternative: dict[str, Any], declared: Declared
) -> Iterator[Problem]:
    program = alternative["program"]
    if brings_code({key: value for key, value in alternative.items() if key != "program"}):
        what = "firmware" if "firmware" in alternative else "a simulated block"
        yield document.problem((*place, "program"), f"{what} is all that runs", "leave program out")
    image = program.get("image", "")
    if image and image not in declared.names["Image"]:
        here = (*place, "program", "image")
        yield document.problem(here, f"image {shown(image)} is unknown", nearest(image, declared.names_of("Image")))
