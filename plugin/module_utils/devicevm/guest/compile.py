"""Compiles the programs of plugin/guest: statically, so that they run in any image, where there are static libraries.

For the build machine's own architecture its gcc does it. For another one, the distribution's cross compiler and the
other architecture's libraries are unpacked into the cache: nothing is installed, and both are pinned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import DevicevmError
from .architecture import Architecture
from .packages import Package, PackageManager, Progress
from .run import run_tool
from .trees import unpacked

_FLAGS = ("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-s", "-ffile-prefix-map={folder}=.")
_LIBRARIES = {"<jansson.h>": ("-ljansson",), "<math.h>": ("-lm",)}
# Debian has these as shared libraries only; the image's packages must bring them.
_SHARED = {"<usbredirhost.h>": ("-I=/usr/include/libusb-1.0", "-lusbredirhost", "-lusb-1.0")}
_TARGET_PACKAGES = ("libc6-dev", "libjansson-dev", "libusb-1.0-0-dev", "libusbredirhost-dev")


class Toolchain(Protocol):
    """Compiles and strips for one architecture."""

    def identity(self) -> dict[str, Any]:
        """What of the toolchain goes into compiled programs, as plain data for a digest."""

    def run(self, tool: str, arguments: Sequence[str]) -> None:
        """Runs `gcc` or `strip`; DevicevmError with what it said when it fails."""


class HostToolchain:
    """The build machine's own gcc."""

    def identity(self) -> dict[str, Any]:
        identity = {"gcc": run_tool(["gcc", "--version"]).decode().splitlines()[0]}
        for library in ("libc.a", "libm.a", "libjansson.a"):
            path = Path(run_tool(["gcc", f"-print-file-name={library}"]).decode().strip())
            identity[library] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_absolute() else ""
        return identity

    def run(self, tool: str, arguments: Sequence[str]) -> None:
        # So that `=` in an option stands for the root here, too.
        sysroot = ["--sysroot=/"] if tool == "gcc" else []
        run_tool([tool, *sysroot, *arguments], hint=f"apt-get install gcc {' '.join(_TARGET_PACKAGES)}")


class CrossToolchain:
    """gcc for `arch`, from the packages `tools` of the build machine's architecture, with `libraries` of `arch`."""

    def __init__(
        self, arch: Architecture, *, tools: PackageManager, libraries: PackageManager, cache: Path, progress: Progress
    ) -> None:
        self._triplet = arch.triplet
        self._tools, self._libraries = tools, libraries
        self._cache, self._progress = cache, progress
        # A C library of its own would not fit the machine's loader; the machine has one.
        compiler = tools.resolve([f"gcc-{arch.triplet.replace('_', '-')}"], progress)
        self._compiler = tuple(package for package in compiler if package.name != "libc6")
        self._target = libraries.resolve(_TARGET_PACKAGES, progress)

    def identity(self) -> dict[str, Any]:
        return {"compiler": _pins(self._compiler), "libraries": _pins(self._target)}

    def run(self, tool: str, arguments: Sequence[str]) -> None:
        root = unpacked(self._compiler, self._cache, self._tools, self._progress)
        program = root / "usr/bin" / f"{self._triplet}-{tool}"
        # The programs' own libraries (mpfr, isl...) are beside them, whatever the machine has.
        folders = [place for name in ("usr/lib", "lib") for place in sorted((root / name).glob("*-linux-gnu"))]
        environment = {"LD_LIBRARY_PATH": ":".join(map(str, folders))}
        if tool == "gcc":
            sysroot = unpacked(self._target, self._cache, self._libraries, self._progress)
            arguments = [f"--sysroot={sysroot}", *arguments]
        run_tool([str(program), *arguments], environment=environment)


def sources_of(program: str, sources: Path) -> tuple[Path, ...]:
    """The files of a program: `PROGRAM/*.c`, or `emulators/PROGRAM.c`, with the headers beside them."""
    single = sources / "emulators" / f"{program}.c"
    if single.is_file():
        return (single, *sorted(single.parent.glob("*.h")))
    files = tuple(sorted((sources / program).glob("*.[ch]")))
    if not any(path.suffix == ".c" for path in files):
        raise DevicevmError(f"there is no program {program} in {sources}", hint="check the recipe's guestPrograms")
    return files


def compile_program(program: str, sources: Path, output: Path, toolchain: Toolchain) -> None:
    """Writes the executable of `program` to `output`; DevicevmError with what the compiler said."""
    files = [path for path in sources_of(program, sources) if path.suffix == ".c"]
    text = "".join(path.read_text(encoding="utf-8") for path in sources_of(program, sources))
    flags = [flag.format(folder=sources.absolute()) for flag in _FLAGS]
    shared = [option for header, options in _SHARED.items() if header in text for option in options]
    libraries = [option for header, options in _LIBRARIES.items() if header in text for option in options]
    flags += [] if shared else ["-static"]
    libraries += shared
    toolchain.run("gcc", [*flags, "-o", str(output.absolute()), *(str(path.absolute()) for path in files), *libraries])


def _pins(packages: Sequence[Package]) -> list[list[str]]:
    return [[package.name, package.version, package.sha256] for package in packages]
