"""Compiles the programs of plugin/guest, statically, so that they run in any image."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import DevicevmError
from .run import run_tool

_FLAGS = ("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-ffile-prefix-map={folder}=.")
_LIBRARIES = {"<jansson.h>": "-ljansson", "<math.h>": "-lm"}


def sources_of(program: str, sources: Path) -> tuple[Path, ...]:
    """The files of a program: `PROGRAM/*.c`, or `emulators/PROGRAM.c`, with the headers beside them."""
    single = sources / "emulators" / f"{program}.c"
    if single.is_file():
        return (single, *sorted(single.parent.glob("*.h")))
    files = tuple(sorted((sources / program).glob("*.[ch]")))
    if not any(path.suffix == ".c" for path in files):
        raise DevicevmError(f"there is no program {program} in {sources}", hint="check the recipe's guestPrograms")
    return files


def compile_program(program: str, sources: Path, output: Path) -> None:
    """Writes the static executable of `program` to `output`; DevicevmError with what the compiler said."""
    files = [path for path in sources_of(program, sources) if path.suffix == ".c"]
    text = "".join(path.read_text(encoding="utf-8") for path in sources_of(program, sources))
    flags = [flag.format(folder=sources.absolute()) for flag in _FLAGS]
    libraries = [library for header, library in _LIBRARIES.items() if header in text]
    hint = "apt-get install gcc libc6-dev libjansson-dev"
    run_tool(
        ["gcc", *flags, "-o", str(output.absolute()), *(str(path.absolute()) for path in files), *libraries], hint=hint
    )


def toolchain_identity() -> dict[str, str]:
    """What of this machine goes into compiled programs: the compiler and the static libraries."""
    identity = {"gcc": run_tool(["gcc", "--version"]).decode().splitlines()[0]}
    for library in ("libc.a", "libm.a", "libjansson.a"):
        path = Path(run_tool(["gcc", f"-print-file-name={library}"]).decode().strip())
        identity[library] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_absolute() else ""
    return identity
