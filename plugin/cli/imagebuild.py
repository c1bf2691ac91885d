"""Building images from the recipes that come with devicevm, or from the user's own."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DevicevmError
from ..guest.apt import AptPackages
from ..guest.build import build_image
from ..guest.image import Image
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


def build_one(recipe: ImageRecipe, store: ImageStore, *, refresh: bool = False) -> Image:
    """Build one image with progress on standard error."""
    cache = cache_folder()
    packages = AptPackages(cache / "apt", refresh=refresh)
    return build_image(
        recipe,
        sources=data("guest"),
        store=store,
        cache=cache / "trees",
        packages=packages,
        progress=lambda text: output.note(f"{recipe.name}: {text}"),
    )


def cache_folder() -> Path:
    """Where downloaded packages are kept; it may be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(home):
        return Path(home) / "devicevm"
    return Path("/var/cache/devicevm") if os.geteuid() == 0 else Path.home() / ".cache/devicevm"
