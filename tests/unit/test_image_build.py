"""The image builder with packages that a test makes: contents, caching, reproducibility, failures."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.cache import cache_folder
from devicevm.errors import DevicevmError
from devicevm.guest.apt import AptPackages
from devicevm.guest.architecture import ARCHITECTURES, architecture, build_architecture
from devicevm.guest.build import build_image
from devicevm.guest.compile import CrossToolchain, compile_program
from devicevm.guest.cpio import Archive
from devicevm.guest.elf import Tree, read_needs
from devicevm.guest.image import Image
from devicevm.guest.kernel import bootable, extract_vmlinux
from devicevm.guest.packages import Package, Progress
from devicevm.guest.recipe import ArchitectureRecipe, ImageRecipe, RecipeFile, recipe_for
from devicevm.guest.store import ImageStore, default_store
from devicevm.planner.specify import image_named
from devicevm.vmm.images import images_in
from world import host

REPO = Path(__file__).parents[2]
VERSION = "6.1.0-test"
KERNEL = b"\x7fELF" + b"kernel" * 1000
RECIPE = ImageRecipe(
    name="tiny",
    kernel="cloud",
    init="/bin/tool",
    modules=("builtin-one",),
    packages=("tool",),
    programs=("/bin/tool",),
    files=(RecipeFile("/etc/greeting", content="hello\n"), RecipeFile("/etc/from-source", source="text", mode="0600")),
    links={"/bin/alias": "tool"},
    command_line=("quiet", "panic=-1"),
)

pytestmark = pytest.mark.skipif(
    not shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin"), reason="needs depmod (kmod)"
)


def bzimage(kernel: bytes) -> bytes:
    """As much of a bzImage as has a meaning to us."""
    payload = gzip.compress(kernel) + struct.pack("<I", len(kernel))
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload


class FakePackages:
    """One package, `tool`, and the kernel. Counts what it is asked for."""

    def __init__(self, folder: Path, *, broken: bool = False) -> None:
        self.fetched = 0
        self._folder = folder
        self._broken = broken

    def kernel_package(self, flavour: str) -> str:
        return f"kernel-{flavour}"

    def resolve(self, names: Sequence[str], progress: Progress) -> tuple[Package, ...]:
        unknown = set(names) - {"kernel-cloud", "tool"}
        if unknown:
            raise DevicevmError(f"unknown package {', '.join(unknown)}")
        return tuple(
            Package(name, "1", hashlib.sha256(name.encode()).hexdigest(), "", name, 1) for name in sorted(set(names))
        )

    def fetch(self, packages: Sequence[Package], progress: Progress) -> tuple[Path, ...]:
        self.fetched += 1
        return tuple(self._folder / package.file for package in packages)

    def unpack(self, archive: Path, target: Path) -> None:
        if self._broken:
            raise DevicevmError("disk full")
        if archive.name == "tool":
            (target / "bin").mkdir(exist_ok=True)
            (target / "bin/tool").write_text("#!/bin/sh\n")
            (target / "bin/tool").chmod(0o755)
            return
        modules = target / "lib/modules" / VERSION
        modules.mkdir(parents=True)
        (modules / "modules.builtin").write_text("kernel/x/builtin_one.ko\n")
        (modules / "modules.order").write_text("")
        (target / "boot").mkdir()
        (target / f"boot/vmlinuz-{VERSION}").write_bytes(bzimage(KERNEL))


def build(
    folder: Path, recipe: ImageRecipe = RECIPE, packages: FakePackages | None = None, arch: str = "x86_64"
) -> tuple[Image, list[str]]:
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    if not (sources / "text").exists():
        (sources / "text").write_text("text\n")
    said: list[str] = []
    image = build_image(
        recipe,
        sources=sources,
        store=ImageStore(folder / "store"),
        cache=folder / "cache",
        packages=packages or FakePackages(folder),
        arch=arch,
        progress=said.append,
    )
    return image, said


def listing(initramfs: Path) -> dict[str, tuple[int, bytes]]:
    """Path -> mode and data, read back with our own eyes: the newc format is short enough."""
    data, place, found = initramfs.read_bytes(), 0, {}
    while True:
        assert data[place : place + 6] == b"070701"
        field = [int(data[place + 6 + 8 * i : place + 14 + 8 * i], 16) for i in range(13)]
        name = data[place + 110 : place + 110 + field[11] - 1].decode()
        start = (place + 110 + field[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (field[1], data[start : start + field[6]])
        place = (start + field[6] + 3) & ~3


def test_contents(tmp_path: Path) -> None:
    image, _ = build(tmp_path)
    store = ImageStore(tmp_path / "store")
    assert store.kernel(image).read_bytes() == KERNEL
    files = listing(store.initramfs(image))
    assert files["init"] == (stat.S_IFLNK | 0o777, b"/bin/tool")
    assert files["bin"] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert files["usr/bin/tool"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert files["usr/bin/alias"] == (stat.S_IFLNK | 0o777, b"tool")
    assert files["etc/greeting"] == (stat.S_IFREG | 0o644, b"hello\n")
    assert files["etc/from-source"] == (stat.S_IFREG | 0o600, b"text\n")
    assert files["etc/devicevm/modules"] == (stat.S_IFREG | 0o644, b"")
    assert files["dev/console"][0] == stat.S_IFCHR | 0o600
    assert (image.kernel_version, image.command_line) == (VERSION, "quiet panic=-1")


def test_cpio_agrees(tmp_path: Path) -> None:
    if not shutil.which("cpio"):
        pytest.skip("cpio is not installed")
    image, _ = build(tmp_path)
    with ImageStore(tmp_path / "store").initramfs(image).open("rb") as stream:
        said = subprocess.run(
            ["cpio", "-t", "--quiet"], stdin=stream, capture_output=True, check=True, text=True
        ).stdout
    assert "usr/bin/tool" in said.splitlines()


def test_same_bytes_everywhere(tmp_path: Path) -> None:
    first, _ = build(tmp_path / "one")
    second, _ = build(tmp_path / "two")
    assert first == second
    for name in ("kernel", "initramfs", "image.json"):
        one, two = (tmp_path / place / "store" / first.folder / name for place in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert stat.S_IMODE(one.stat().st_mode) == 0o644


def test_nothing_to_do(tmp_path: Path) -> None:
    packages = FakePackages(tmp_path)
    first, _ = build(tmp_path, packages=packages)
    again, said = build(tmp_path, packages=packages)
    assert again == first
    assert packages.fetched == 1
    assert said == [f"image {first.folder} is up to date"]


@pytest.mark.parametrize("change", ["recipe", "source"])
def test_changes_are_seen(tmp_path: Path, change: str) -> None:
    first, _ = build(tmp_path)
    recipe = RECIPE
    if change == "recipe":
        recipe = replace(RECIPE, links={})
    else:
        (tmp_path / "sources/text").write_text("other\n")
    second, _ = build(tmp_path, recipe)
    store = ImageStore(tmp_path / "store")
    assert second.digest != first.digest
    assert store.current("tiny") == second
    assert set(store.list()) == {first, second}


def test_an_image_for_each_architecture(tmp_path: Path) -> None:
    """One recipe, two images side by side; each is the current one of its architecture, and of a planner's facts."""
    extra = {"aarch64": ArchitectureRecipe(command_line=("console=ttyAMA0",)), "x86_64": ArchitectureRecipe()}
    recipe = replace(RECIPE, architectures=extra)
    images = {arch: build(tmp_path, recipe, arch=arch)[0] for arch in ARCHITECTURES}
    store = ImageStore(tmp_path / "store")
    assert {arch: store.current("tiny", arch) for arch in images} == images
    assert images["aarch64"].digest != images["x86_64"].digest
    assert (os.readlink(store.root / "tiny"), os.readlink(store.root / "tiny.aarch64")) == (
        images["x86_64"].folder,
        images["aarch64"].folder,
    )
    assert images["aarch64"].command_line == "quiet panic=-1 console=ttyAMA0"
    assert images["x86_64"].command_line == "quiet panic=-1"
    facts = {image.arch: image for image in images_in(store.root)}
    assert {arch: fact.digest for arch, fact in facts.items()} == {arch: item.digest for arch, item in images.items()}
    world = replace(host(), images=tuple(facts.values()))
    assert image_named(world, "tiny") == image_named(replace(world, arch="i686"), "tiny") == facts["x86_64"]
    assert image_named(world, "tiny", "aarch64") == image_named(replace(world, arch="aarch64"), "tiny")
    assert image_named(world, "tiny", "aarch64") == facts["aarch64"]
    store.remove(images["aarch64"])
    assert image_named(replace(world, images=images_in(store.root)), "tiny", "aarch64") is None
    assert store.current("tiny", "x86_64") == images["x86_64"]
    with pytest.raises(DevicevmError, match="for aarch64"):
        store.current("tiny", "aarch64")


def test_what_an_architecture_adds() -> None:
    extra = ArchitectureRecipe(modules=("m",), packages=("p",), command_line=("c",))
    recipe = replace(RECIPE, programs=("/lib/${triplet}/x.so",), architectures={"aarch64": extra})
    arm, other = (recipe_for(recipe, ARCHITECTURES[name]) for name in ("aarch64", "x86_64"))
    assert (arm.modules, arm.packages, arm.command_line) == (
        ("builtin-one", "m"),
        ("tool", "p"),
        ("quiet", "panic=-1", "c"),
    )
    assert arm.programs == ("/lib/aarch64-linux-gnu/x.so",)
    assert other == replace(RECIPE, programs=("/lib/x86_64-linux-gnu/x.so",))


def test_an_arm64_kernel_is_taken_as_it_is() -> None:
    image = bytearray(4096)
    image[:2], image[0x38:0x3C] = b"MZ", b"ARMd"
    assert bootable(bytes(image)) == image
    assert bootable(gzip.compress(image)) == image
    with pytest.raises(DevicevmError, match="damaged"):
        bootable(b"\x1f\x8b" + bytes(50))
    assert bootable(bzimage(KERNEL)) == KERNEL


def test_damaged_image_is_rebuilt(tmp_path: Path) -> None:
    image, _ = build(tmp_path)
    (tmp_path / "store" / image.folder / "image.json").write_text("{")
    again, said = build(tmp_path)
    assert again == image
    assert "building" in " ".join(said)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (replace(RECIPE, packages=("nothing",)), "unknown package"),
        (replace(RECIPE, programs=("/bin/missing",)), "/bin/missing is in none of the packages"),
        (replace(RECIPE, modules=("no_such",)), "no module no_such"),
        (replace(RECIPE, guest_programs=("no-such",)), "no program no-such"),
        (replace(RECIPE, files=(RecipeFile("/x", source="no-such"),)), "no file"),
    ],
)
def test_failures_leave_nothing(tmp_path: Path, recipe: ImageRecipe, reason: str) -> None:
    with pytest.raises(DevicevmError, match=reason):
        build(tmp_path, recipe)
    assert os.listdir(tmp_path / "store") == [] if (tmp_path / "store").exists() else True


def test_failed_unpacking_is_not_taken_for_done(tmp_path: Path) -> None:
    with pytest.raises(DevicevmError, match="disk full"):
        build(tmp_path, packages=FakePackages(tmp_path, broken=True))
    image, _ = build(tmp_path)
    assert ImageStore(tmp_path / "store").current("tiny") == image


def test_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = build(tmp_path)
    store = ImageStore(tmp_path / "store")
    assert os.readlink(store.root / "tiny") == image.folder
    with pytest.raises(DevicevmError, match="no image 'other'"):
        store.current("other")
    store.remove(image)
    assert os.listdir(store.root) == []
    monkeypatch.setenv("DEVICEVM_IMAGES", "/somewhere")
    assert default_store() == Path("/somewhere")


@pytest.mark.parametrize("data", [b"", b"x" * 5000, bzimage(b"no elf"), bzimage(KERNEL)[:1100]])
def test_no_kernel(data: bytes) -> None:
    with pytest.raises(DevicevmError):
        extract_vmlinux(data)


def test_first_entry_stays() -> None:
    archive = Archive()
    archive.alias("/bin", "usr/bin")
    archive.file("/bin/x", b"1")
    archive.file("/usr/bin/x", b"2")
    assert "/usr/bin/x" in archive
    assert archive.place("/bin/x") == "/usr/bin/x"


def test_libraries_of_a_program() -> None:
    """This machine's own /bin/sh stands for a package: its interpreter and libc must be found."""
    pytest.importorskip("elftools", reason="needs pyelftools")
    needs = read_needs(Path("/bin/sh").resolve())
    if not needs.interpreter:
        pytest.skip("/bin/sh is static here")
    closure = Tree(Path("/"), architecture(build_architecture()).triplet).closure("/bin/sh")
    assert needs.interpreter in closure
    assert any("libc.so" in path for path in closure)


@pytest.mark.slow
def test_programs_for_another_architecture(tmp_path: Path) -> None:
    """The distribution's cross compiler, unpacked to two places: the same bytes, which are the other machine's."""
    pytest.importorskip("elftools", reason="needs pyelftools")
    from elftools.elf.elffile import ELFFile

    (other,) = (item for name, item in ARCHITECTURES.items() if name != build_architecture())
    if not shutil.which("apt-get"):
        pytest.skip("apt-get is not installed")
    tools = AptPackages(cache_folder() / "apt", architecture(build_architecture()))
    libraries = AptPackages(cache_folder() / f"apt-{other.debian}", other)
    made = []
    for name in ("one", "two"):
        try:
            compiler = CrossToolchain(
                other, tools=tools, libraries=libraries, cache=tmp_path / name, progress=lambda _: None
            )
        except DevicevmError as error:
            pytest.skip(f"no repository answers: {error.message}")
        compile_program("agent", REPO / "plugin/guest", tmp_path / f"{name}.elf", compiler)
        made.append((tmp_path / f"{name}.elf").read_bytes())
    assert made[0] == made[1]
    with (tmp_path / "one.elf").open("rb") as stream:
        machine = ELFFile(stream)["e_machine"]
    assert machine == {"aarch64": "EM_AARCH64", "x86_64": "EM_X86_64"}[other.name]
    assert read_needs(tmp_path / "one.elf").interpreter == ""


@pytest.mark.slow
@pytest.mark.parametrize("arch", sorted(ARCHITECTURES))
def test_apt_refuses_unknown_packages(tmp_path: Path, arch: str) -> None:
    """The real apt, in folders of its own; needs the network."""
    if not shutil.which("apt-get"):
        pytest.skip("apt-get is not installed")
    packages = AptPackages(tmp_path, ARCHITECTURES[arch])
    try:
        found = packages.resolve(["busybox-static"], lambda _: None)
    except DevicevmError as error:
        pytest.skip(f"no repository answers: {error.message}")
    assert [package.name for package in found if "busybox" in package.name] == ["busybox-static"]
    assert all(len(package.sha256) == 64 for package in found)
    kinds = {package.file.rsplit("_", 1)[1] for package in found}
    assert f"{ARCHITECTURES[arch].debian}.deb" in kinds <= {f"{ARCHITECTURES[arch].debian}.deb", "all.deb"}
    with pytest.raises(DevicevmError, match="no-such-package"):
        packages.resolve(["no-such-package"], lambda _: None)
