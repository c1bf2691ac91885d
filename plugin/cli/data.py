"""Where devicevm's own data is: schemas, device classes, image recipes, guest sources, examples."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..errors import DevicevmError


def data(*parts: str) -> Path:
    """The file or folder of that name below the package `devicevm.data`, which is unpacked wherever it is installed."""
    path = Path(str(files("devicevm.data"))).joinpath(*parts)
    if not path.exists():
        raise DevicevmError(f"{'/'.join(parts)} is missing from this installation of devicevm", hint="install it again")
    return path


def image_recipes() -> dict[str, Path]:
    """The recipes that come with devicevm, by image name."""
    return {path.stem: path for path in sorted(data("images").glob("*.yaml"))}
