"""Building images from the recipes that come with devicevm, or from the user's own."""

from __future__ import annotations

import os
from pathlib import Path

from ..cache import cache_folder
from ..errors import DevicevmError
from ..guest.apt import AptPackages
from ..guest.architecture import architecture, build_architecture
from ..guest.build import build_image
from ..guest.compile import CrossToolchain, HostToolchain, Toolchain, compile_program
from ..guest.disk import take_in
from ..guest.image import Image
from ..guest.packages import Progress
from ..guest.recipe import ImageRecipe, parse_recipe
from ..guest.store import ImageStore
from . import output
from .data import data, image_recipes
from .manifests import read_recipes


def recipes_of(name: str) -> list[ImageRecipe]:
    """The recipe of a name that comes with devicevm, or those in a file."""
    known = image_recipes()
    if name in known:
        paths = [str(known[name])]
    elif os.path.exists(name) or name == "-":
        paths = [name]
    else:
        raise DevicevmError(f"{name} is neither a recipe of devicevm's nor a file", hint=f"recipes: {', '.join(known)}")
    recipes = [parse_recipe(document) for document in read_recipes(paths)]
    if not recipes:
        raise DevicevmError(f"{name} has no document of kind Image")
    return recipes


def build_one(recipe: ImageRecipe, store: ImageStore, *, arch: str = "", refresh: bool = False) -> Image:
    """Build one image for `arch` (this machine's if not given), or take it in where it is a disk that somebody else has
    made; with progress on standard error."""
    if recipe.disk:
        tell = _teller(recipe.name)
        return take_in(recipe.name, recipe.disk, store=store, arch=arch or build_architecture(), progress=tell)
    cache = cache_folder()
    own = architecture(build_architecture())
    wanted = architecture(arch) if arch else own
    tools = AptPackages(cache / "apt", own, refresh=refresh)
    packages = tools if wanted == own else AptPackages(cache / f"apt-{wanted.debian}", wanted, refresh=refresh)
    return build_image(
        recipe,
        sources=data("guest"),
        store=store,
        cache=cache / "trees",
        packages=packages,
        arch=wanted.name,
        tools=None if wanted == own else tools,
        progress=_teller(recipe.name if wanted == own else f"{recipe.name} for {wanted.name}"),
    )


def _teller(what: str) -> Progress:
    return lambda text: output.note(f"{what}: {text}")


def build_agent(target: Path, *, arch: str) -> None:
    """Compile the agent, which is one static program, for a disk image of the user's."""
    cache = cache_folder()
    own, wanted = architecture(build_architecture()), architecture(arch)
    toolchain: Toolchain = HostToolchain()
    if wanted != own:
        tools, libraries = AptPackages(cache / "apt", own), AptPackages(cache / f"apt-{wanted.debian}", wanted)
        toolchain = CrossToolchain(
            wanted, tools=tools, libraries=libraries, cache=cache / "trees", progress=_teller(f"agent for {arch}")
        )
    compile_program("agent", data("guest"), target, toolchain)
