"""Image recipes: those that come with devicevm parse, and wrong ones are refused with their reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from devicevm.errors import DevicevmError
from devicevm.guest.compile import sources_of
from devicevm.guest.recipe import parse_recipe

REPO = Path(__file__).parents[2]
RECIPES = sorted((REPO / "images").glob("*.yaml"))


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "devicevm/v1",
        "kind": "Image",
        "metadata": {"name": "mine"},
        "spec": {"kernel": "cloud", "init": "/init.sh", **spec},
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_of_ours(path: Path) -> None:
    recipe = parse_recipe(yaml.safe_load(path.read_text()))
    assert recipe.name == path.stem
    for program in recipe.guest_programs:
        assert sources_of(program, REPO / "plugin/guest")
    for item in recipe.files:
        assert not item.source or (REPO / "plugin/guest" / item.source).is_file()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"kernel": "tiny"}, "kernel is one of"),
        ({"init": "agent"}, "neither a path nor in guestPrograms"),
        ({"modules": ["../evil"]}, "no name of a module"),
        ({"modulesOnDemand": {"a/b": ["x"]}}, "no name of a module"),
        ({"programs": ["bin/true"]}, "no absolute path"),
        ({"programs": ["/usr/../etc/shadow"]}, "no absolute path"),
        ({"packages": ["-oDir=/"]}, "no package name"),
        ({"files": [{"target": "/x", "source": "a", "mode": "rwx"}]}, "no mode"),
        ({"files": [{"target": "/x"}]}, "source or content"),
        ({"files": [{"target": "/x", "source": "../../x"}]}, "below the sources"),
        ({"files": [{"target": "/x", "source": "/etc/shadow"}]}, "below the sources"),
        ({"module": []}, "unknown key module"),
        ({"architectures": {"z80": {}}}, "architecture 'z80' is unknown; known: aarch64, x86_64"),
        ({"architectures": {"aarch64": {"modules": ["../evil"]}}}, "no name of a module"),
        ({"architectures": {"aarch64": {"packages": ["-oDir=/"]}}}, "no package name"),
        ({"architectures": {"aarch64": {"programs": []}}}, "unknown key programs"),
        ({"modules": "virtio"}, "a list expected"),
    ],
)
def test_wrong_spec(spec: dict[str, Any], reason: str) -> None:
    with pytest.raises(DevicevmError, match=reason):
        parse_recipe(document(**spec))


@pytest.mark.parametrize(
    "wrong", [None, [], {}, {"kind": "Image"}, {**document(), "status": {}}, {**document(), "metadata": {}}]
)
def test_no_recipe(wrong: Any) -> None:
    with pytest.raises(DevicevmError):
        parse_recipe(wrong)
