"""devicevm image: the images that device VMs boot."""

from __future__ import annotations

from pathlib import Path

import click

from ...domain import ObservedDomain
from ...errors import DevicevmError
from ...guest.architecture import ARCHITECTURES, build_architecture
from ...guest.image import Image
from ...guest.store import ImageStore, default_store
from .. import output
from ..data import image_recipes
from ..imagebuild import build_agent, build_one, recipes_of
from ..imageuse import forget_versions, is_current, users_of
from ..opening import open_vmm, overlays_of, store_of
from ..options import CONTEXT, Vmm, command, compose, format_option, images_option, vmm_options

arch_option = click.option(
    "--arch",
    type=click.Choice(sorted(ARCHITECTURES)),
    default=build_architecture,
    show_default="this machine's",
    help="The processor architecture of the device VMs that boot it.",
)


@click.group("image", context_settings=CONTEXT)
def image() -> None:
    """Build, list and remove device VM images."""


@command(
    "build",
    ("The image of the built-in device classes", "devicevm image build base"),
    (
        "An image of your own, or a disk image of a distribution's, from its Image document",
        "devicevm image build images/radio.yaml",
    ),
    ("For device VMs of another architecture", "devicevm image build --arch aarch64 base"),
    ("With the newest packages, elsewhere than usual", "devicevm image build --refresh --images /srv/images base"),
)
@compose(
    click.argument("names", nargs=-1, required=True, metavar="NAME|FILE..."),
    arch_option,
    click.option("--refresh", is_flag=True, help="Read the distribution's package lists anew."),
    images_option,
    format_option,
)
def build(*, names: tuple[str, ...], arch: str, refresh: bool, images: Path | None, form: str) -> int:
    """Build images from packages of the distribution, without root and without installing anything.

    NAME is a recipe that comes with devicevm, FILE holds documents of kind Image. What is built from the same
    recipe and packages is not built again; a whole disk is taken in as it is. Device VMs keep the version that they
    have until `devicevm apply --upgrade`.
    """
    recipes = [recipe for name in names for recipe in recipes_of(name)]
    store = ImageStore(images or default_store())
    built = [build_one(recipe, store, arch=arch, refresh=refresh) for recipe in recipes]
    if form == "json":
        output.document(built)
    for item in built if form == "text" else ():
        output.line(f"{item.folder} is current in {store.root}")
    return 0


@command(
    "list",
    ("Images, their versions, and who boots them", "devicevm image list"),
    ("What is in them", "devicevm image list -o json | jq '.[].packages'"),
)
@compose(images_option, format_option)
def list_(*, images: Path | None, form: str) -> int:
    """List the images that are there, every version of them."""
    store = ImageStore(images or default_store())
    found = store.list()
    if form == "json":
        output.document(found)
    elif not found:
        output.line(f"No images in {store.root}.")
    else:
        rows = [
            (
                item.name,
                item.arch,
                item.digest[:12],
                "yes" if is_current(store, item) else "no",
                item.kernel_version,
                output.size(item.size),
            )
            for item in found
        ]
        output.table(("image", "arch", "version", "current", "kernel", "size"), rows)
    known = sorted(set(image_recipes()) - {item.name for item in found})
    if known and form == "text":
        output.note(f"not built: {', '.join(known)} (devicevm image build NAME)")
    return 0


@command(
    "remove",
    ("Versions that newer ones have replaced and nobody boots", "devicevm image remove --unused"),
    ("One version", "devicevm image remove base-0123456789ab"),
    ("An image, all of its versions", "devicevm image remove radio"),
)
@compose(
    click.argument("names", nargs=-1, metavar="[NAME[-VERSION]...]"),
    click.option("--unused", is_flag=True, help="Remove superseded versions that nobody boots."),
    click.option("--force", is_flag=True, help="Remove also what a domain boots; it will not start again."),
    vmm_options,
)
def remove(*, names: tuple[str, ...], unused: bool, force: bool, vmm: Vmm) -> int:
    """Remove images; one that a domain boots is refused."""
    if bool(names) == unused:
        raise click.UsageError("say what to remove: NAME, NAME-VERSION, or --unused")
    store = ImageStore(store_of(vmm))
    chosen = [item for name in names for item in _versions(store, name)]
    if force:
        observed: tuple[ObservedDomain, ...] = ()
    else:
        with open_vmm(vmm) as driver:
            observed = driver.observe()
    overlays = overlays_of(vmm)
    for item in forget_versions(store, observed, overlays) if unused else ():
        output.line(f"{item.folder} removed")
    for item in chosen:
        users = [] if force else users_of(item, store, observed, overlays)
        if users:
            raise DevicevmError(
                f"{item.folder} is booted by {', '.join(users)}", hint="destroy what uses it first, or use --force"
            )
    for item in chosen:
        store.remove(item)
        output.line(f"{item.folder} removed")
    return 0


@command(
    "agent",
    ("For a disk image of your own", "devicevm image agent devicevm-agent"),
    ("For one of another architecture", "devicevm image agent --arch aarch64 devicevm-agent"),
)
@compose(click.argument("target", type=click.Path(path_type=Path, dir_okay=False)), arch_option)
def agent(*, target: Path, arch: str) -> int:
    """Write devicevm's agent to TARGET, as one static program that runs in any Linux.

    In a disk image of your own it is started as a service, `devicevm-agent service`, by root.
    """
    build_agent(target, arch=arch)
    output.line(f"{target} is the agent for {arch}")
    return 0


for _command in (build, list_, remove, agent):
    image.add_command(_command)


def _versions(store: ImageStore, name: str) -> list[Image]:
    found = [item for item in store.list() if name in (item.name, item.folder)]
    if not found:
        there = ", ".join(item.folder for item in store.list())
        raise DevicevmError(f"there is no image {name} in {store.root}", hint=f"there are: {there or 'none'}")
    return found
