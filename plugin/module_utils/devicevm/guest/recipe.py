"""An image's recipe: what goes into it, as data (images/*.yaml)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .. import API_VERSION
from ..errors import DevicevmError
from ..record import from_data
from .architecture import ARCHITECTURES, Architecture

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_MODE = re.compile(r"0?[0-7]{3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
KERNELS = ("cloud", "generic")
FIRMWARES = ("bios", "efi")
TRIPLET = "${triplet}"


@dataclass(frozen=True)
class RecipeFile:
    """A file of the sources, or text given here, to be put at the absolute path `target`."""

    target: str
    source: str = ""
    content: str = ""
    mode: str = "0644"


@dataclass(frozen=True)
class ArchitectureRecipe:
    """What an image has besides when it is built for one architecture."""

    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    command_line: tuple[str, ...] = ()


@dataclass(frozen=True)
class DiskRecipe:
    """A whole disk that somebody else has made: `file` on this machine, which must have the SHA-256 if one is given."""

    file: str
    sha256: str = ""
    firmware: str = "bios"
    agent: bool = False


@dataclass(frozen=True)
class ImageRecipe:
    """One image. Paths are absolute, inside the image; the rest is documented in docs/images.md.

    disk                a whole disk, taken in as it is: then there is nothing else
    kernel              `cloud` (small, virtio only) or `generic` (all drivers)
    packaged_kernel     the kernel stays as the distribution has packed it
    modules             loaded by the agent at boot, dependencies included
    modules_on_demand   group -> modules: in the image, loaded when a device needs them
    packages            distribution packages that `programs` come from
    programs            programs and shared objects of the packages; their libraries follow
    files, links        more files, and symbolic links (path -> target)
    guest_programs      programs of plugin/guest, compiled, put at /usr/lib/devicevm/NAME
    init                a guest program's name, or a path in the image
    command_line        recommended kernel arguments
    architectures       `uname -m` -> what is added for that architecture

    In `programs`, `${triplet}` stands for the architecture's library folder (x86_64-linux-gnu).
    """

    name: str
    kernel: str = ""
    init: str = ""
    disk: DiskRecipe | None = None
    modules: tuple[str, ...] = ()
    modules_on_demand: dict[str, tuple[str, ...]] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    files: tuple[RecipeFile, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    guest_programs: tuple[str, ...] = ()
    command_line: tuple[str, ...] = ()
    architectures: dict[str, ArchitectureRecipe] = field(default_factory=dict)
    packaged_kernel: bool = False


def recipe_for(recipe: ImageRecipe, arch: Architecture) -> ImageRecipe:
    """The recipe as it is for `arch`: additions added, `${triplet}` replaced, nothing left of other architectures."""
    extra = recipe.architectures.get(arch.name, ArchitectureRecipe())
    return replace(
        recipe,
        modules=(*recipe.modules, *extra.modules),
        packages=(*recipe.packages, *extra.packages),
        programs=tuple(path.replace(TRIPLET, arch.triplet) for path in recipe.programs),
        command_line=(*recipe.command_line, *extra.command_line),
        architectures={},
    )


def parse_recipe(document: Any) -> ImageRecipe:
    """The recipe in a parsed `kind: Image` document; DevicevmError when it is none."""
    if not isinstance(document, dict) or document.get("kind") != "Image" or document.get("apiVersion") != API_VERSION:
        raise DevicevmError(
            "this is no image recipe", hint=f"it begins with `apiVersion: {API_VERSION}`, `kind: Image`"
        )
    unknown = sorted(set(document) - {"apiVersion", "kind", "metadata", "spec"})
    metadata, spec = document.get("metadata"), document.get("spec")
    if unknown or not isinstance(metadata, dict) or set(metadata) != {"name"} or not isinstance(spec, dict):
        raise DevicevmError("an image recipe has metadata.name and a spec, and nothing else")
    if "name" in spec:
        raise DevicevmError("spec: unknown key name", hint="the name goes into metadata")
    recipe = from_data(ImageRecipe, {**spec, "name": metadata["name"]}, "spec")
    for problem in _problems(recipe):
        raise DevicevmError(f"image {recipe.name}: {problem}")
    return recipe


def _problems(recipe: ImageRecipe) -> Iterator[str]:
    """What no type can say."""
    if not _NAME.fullmatch(recipe.name):
        yield f"{recipe.name!r} is no name: lower-case letters, digits, hyphens"
    if recipe.disk:
        yield from _disk_problems(recipe, recipe.disk)
        return
    if recipe.kernel not in KERNELS:
        yield f"kernel is one of {', '.join(KERNELS)}, not {recipe.kernel!r}"
    if recipe.init not in recipe.guest_programs and not _is_path(recipe.init):
        yield f"init {recipe.init!r} is neither a path nor in guestPrograms"
    extras = recipe.architectures.values()
    modules = [*recipe.modules, *(name for group in recipe.modules_on_demand.values() for name in group)]
    modules += [name for extra in extras for name in extra.modules]
    words = [*modules, *recipe.modules_on_demand, *recipe.guest_programs]
    yield from (f"{name!r} is no name of a module, group or program" for name in words if not _WORD.fullmatch(name))
    paths = [*recipe.programs, *recipe.links, *(item.target for item in recipe.files)]
    yield from (f"{path!r} is no absolute path" for path in paths if not _is_path(path))
    packages = [*recipe.packages, *(name for extra in extras for name in extra.packages)]
    yield from (f"{name!r} is no package name" for name in packages if not _PACKAGE.fullmatch(name))
    yield from (
        f"architecture {name!r} is unknown; known: {', '.join(sorted(ARCHITECTURES))}"
        for name in recipe.architectures
        if name not in ARCHITECTURES
    )
    for item in recipe.files:
        yield from _file_problems(item)


def _disk_problems(recipe: ImageRecipe, disk: DiskRecipe) -> Iterator[str]:
    if recipe != ImageRecipe(recipe.name, disk=disk):
        yield "a disk is taken in as it is: nothing else is said beside it"
    if not disk.file.startswith("/"):
        yield f"disk {disk.file!r} is relative to nothing"
    if disk.sha256 and not _SHA256.fullmatch(disk.sha256):
        yield f"{disk.sha256!r} is no SHA-256: 64 digits, lower case"
    if disk.firmware not in FIRMWARES:
        yield f"disk.firmware is one of {', '.join(FIRMWARES)}, not {disk.firmware!r}"


def _file_problems(item: RecipeFile) -> Iterator[str]:
    if not _MODE.fullmatch(item.mode):
        yield f"{item.target}: mode {item.mode!r} is no mode such as 0755"
    if bool(item.source) == bool(item.content):
        yield f"{item.target}: source or content, one of them"
    if item.source.startswith("/") or ".." in item.source.split("/"):
        yield f"{item.target}: source is a path below the sources"


def _is_path(path: str) -> bool:
    parts = path.split("/")
    return path.startswith("/") and not set(parts[1:]) & {"", ".", ".."} and path.isprintable()
