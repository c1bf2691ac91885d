"""From a recipe to an image in the store. The same inputs give the same bytes, anywhere."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DevicevmError
from ..record import digest, to_data
from .architecture import Architecture, architecture, build_architecture
from .compile import CrossToolchain, HostToolchain, Toolchain, compile_program, sources_of
from .cpio import Archive
from .elf import Tree
from .image import INITRAMFS, KERNEL, Image, PackageVersion, write_description
from .kernel import KernelTree, Modules, bootable, find_kernel, index_modules
from .packages import Package, PackageManager, Progress
from .recipe import ImageRecipe, recipe_for
from .store import ImageStore
from .trees import unpacked

# Part of every digest: raise it when the same recipe has to give other bytes.
BUILDER_VERSION = 3
PROGRAM_FOLDER = "/usr/lib/devicevm"
MODULE_LIST = "/etc/devicevm/modules"
_MERGED = ("bin", "sbin", "lib", "lib64")
_FOLDERS = ("dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/sbin", "var")


@dataclass(frozen=True)
class _Inputs:
    recipe: ImageRecipe
    arch: Architecture
    toolchain: Toolchain
    sources: Path
    packages: tuple[Package, ...]
    digest: str


def build_image(
    recipe: ImageRecipe,
    *,
    sources: Path,
    store: ImageStore,
    cache: Path,
    packages: PackageManager,
    arch: str = "",
    tools: PackageManager | None = None,
    progress: Progress = lambda _: None,
) -> Image:
    """The image of `recipe` for `arch` (this machine's if not given), current in `store`; built only when nothing
    there has the same inputs.

    `sources` is plugin/guest, `cache` a directory for unpacked packages that may be deleted at any
    time. `packages` are those of `arch`; `tools`, this machine's, bring the cross compiler where `arch` is another.
    DevicevmError for anything the recipe or the machine lacks; nothing half-written stays.
    """
    wanted = architecture(arch or build_architecture())
    recipe = recipe_for(recipe, wanted)
    toolchain: Toolchain = HostToolchain()
    if tools is not None:
        toolchain = CrossToolchain(wanted, tools=tools, libraries=packages, cache=cache, progress=progress)
    names = [packages.kernel_package(recipe.kernel), *recipe.packages]
    pinned = packages.resolve(names, progress)
    inputs = _Inputs(recipe, wanted, toolchain, sources, pinned, _digest(recipe, wanted, pinned, sources, toolchain))
    known = store.find(recipe.name, inputs.digest)
    if known is not None:
        store.make_current(known)
        progress(f"image {known.folder} is up to date")
        return known
    root = unpacked(pinned, cache, packages, progress, lambda tree: index_modules(find_kernel(tree)))
    progress(f"building image {recipe.name}-{inputs.digest[:12]}")
    with store.workspace() as workspace:
        built = workspace / "image"
        built.mkdir()
        image = _build(inputs, root, built, workspace)
        write_description(image, built)
        store.publish(built, image)
    progress(
        f"image {image.folder}: kernel {image.kernel_size / 1e6:.0f} MB, initramfs {image.initramfs_size / 1e6:.0f} MB"
    )
    return image


def _digest(
    recipe: ImageRecipe, arch: Architecture, packages: Sequence[Package], sources: Path, toolchain: Toolchain
) -> str:
    files = {path for program in recipe.guest_programs for path in sources_of(program, sources)}
    files |= {_source(sources, item.source) for item in recipe.files if item.source}
    return digest(
        {
            "builder": BUILDER_VERSION,
            "arch": arch.name,
            "recipe": to_data(recipe),
            "packages": [[package.name, package.version, package.sha256] for package in packages],
            "sources": {str(path.relative_to(sources)): _sha256(path.read_bytes()) for path in files},
            "toolchain": toolchain.identity() if recipe.guest_programs else {},
        }
    )


def _source(sources: Path, name: str) -> Path:
    path = sources / name
    if not path.is_file():
        raise DevicevmError(f"there is no file {path}", hint="check the recipe's files")
    return path


def _build(inputs: _Inputs, root: Path, built: Path, workspace: Path) -> Image:
    recipe = inputs.recipe
    kernel = find_kernel(root)
    packaged = kernel.vmlinuz.read_bytes()
    bytes_ = packaged if recipe.packaged_kernel else bootable(packaged)
    (built / KERNEL).write_bytes(bytes_)
    archive = _skeleton(recipe)
    compiled = _compile_guest_programs(inputs, workspace)
    _add_files(archive, inputs)
    _add_modules(archive, inputs, kernel, workspace)
    _add_programs(archive, recipe, Tree(root, inputs.arch.triplet), compiled)
    with (built / INITRAMFS).open("wb") as output:
        archive.write(output)
    initramfs = (built / INITRAMFS).read_bytes()
    return Image(
        name=recipe.name,
        digest=inputs.digest,
        arch=inputs.arch.name,
        kernel_version=kernel.version,
        command_line=" ".join(recipe.command_line),
        kernel_size=len(bytes_),
        kernel_sha256=_sha256(bytes_),
        initramfs_size=len(initramfs),
        initramfs_sha256=_sha256(initramfs),
        packages=tuple(PackageVersion(package.name, package.version) for package in inputs.packages),
        programs=(*recipe.programs, *(f"{PROGRAM_FOLDER}/{name}" for name in recipe.guest_programs)),
    )


def _skeleton(recipe: ImageRecipe) -> Archive:
    archive = Archive()
    for name in _MERGED:
        archive.alias(f"/{name}", f"usr/{name}")
    for folder in _FOLDERS:
        archive.directory(f"/{folder}")
    # The kernel opens /dev/console for init before anything can mount /dev.
    archive.character_device("/dev/console", 5, 1)
    archive.character_device("/dev/null", 1, 3, 0o666)
    init = recipe.init if recipe.init.startswith("/") else f"{PROGRAM_FOLDER}/{recipe.init}"
    archive.link("/init", init)
    for path, target in recipe.links.items():
        archive.link(path, target)
    return archive


def _compile_guest_programs(inputs: _Inputs, workspace: Path) -> dict[str, Path]:
    """Image path -> file."""
    compiled = {f"{PROGRAM_FOLDER}/{name}": workspace / f"program-{name}" for name in inputs.recipe.guest_programs}
    for name, output in zip(inputs.recipe.guest_programs, compiled.values(), strict=True):
        compile_program(name, inputs.sources, output, inputs.toolchain)
    return compiled


def _add_files(archive: Archive, inputs: _Inputs) -> None:
    for item in inputs.recipe.files:
        data = _source(inputs.sources, item.source).read_bytes() if item.source else item.content.encode()
        archive.file(item.target, data, int(item.mode, 8))


def _add_modules(archive: Archive, inputs: _Inputs, kernel: KernelTree, workspace: Path) -> None:
    recipe, modules = inputs.recipe, Modules(kernel, inputs.toolchain)
    groups = {"": recipe.modules, **{f".{name}": group for name, group in recipe.modules_on_demand.items()}}
    loaded = modules.load_order(recipe.modules)
    for suffix, names in groups.items():
        order = modules.load_order(names)
        wanted = [path for path in order if not suffix or path not in loaded]
        places = [f"/usr/lib/modules/{kernel.version}/{_plain(path)}" for path in wanted]
        for path, place in zip(wanted, places, strict=True):
            if place not in archive:
                archive.file(place, modules.read(path, workspace))
        archive.file(MODULE_LIST + suffix, "".join(f"{place}\n" for place in places).encode())


def _plain(path: str) -> str:
    return path.split(".ko", 1)[0] + ".ko"


def _add_programs(archive: Archive, recipe: ImageRecipe, tree: Tree, compiled: dict[str, Path]) -> None:
    placed: dict[Path, str] = {}
    closures = [tree.closure(path, file) for path, file in compiled.items()]
    for closure in (*closures, *map(tree.closure, recipe.programs)):
        for path, place in closure.items():
            first = placed.setdefault(place, archive.place(path))
            if first != archive.place(path):
                # One file under several names, as mke2fs and mkfs.ext4 are.
                archive.link(path, first)
                continue
            mode = stat.S_IMODE(place.stat().st_mode) & 0o755
            archive.file(path, place.read_bytes(), mode | 0o444)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
