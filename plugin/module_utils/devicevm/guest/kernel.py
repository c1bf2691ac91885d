"""The kernel of an image: the ELF file inside a vmlinuz, and modules in load order."""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DevicevmError
from .compile import Toolchain
from .elf import MAGIC
from .run import run_tool

# Offset in an arm64 Image's header (Linux, Documentation/arm64/booting.rst).
_ARM64_MAGIC = 0x38
# Offsets in a bzImage's header (Linux, Documentation/arch/x86/boot.rst).
_SETUP_SECTORS, _SIGNATURE, _VERSION, _PAYLOAD = 0x1F1, 0x202, 0x206, 0x248


def bootable(image: bytes) -> bytes:
    """What QEMU starts fastest: an arm64 Image as it is, else the ELF kernel in a bzImage."""
    if image[_ARM64_MAGIC : _ARM64_MAGIC + 4] == b"ARMd":
        return image
    if image[:2] == b"\x1f\x8b":
        # Elsewhere arm64 kernels are gzip files (Image.gz), which QEMU takes too, but unpacks at each start.
        try:
            return bootable(zlib.decompressobj(31).decompress(image))
        except zlib.error as error:
            raise DevicevmError(f"the kernel image is damaged: {error}") from error
    return extract_vmlinux(image)


def extract_vmlinux(image: bytes) -> bytes:
    """The ELF kernel in a bzImage. QEMU starts it by its PVH entry, which skips the firmware's
    loader and the kernel's own decompressor: a second faster under TCG (docs/images.md)."""
    if image[:4] == MAGIC:
        return image
    if len(image) < 0x260 or image[_SIGNATURE : _SIGNATURE + 4] != b"HdrS":
        raise DevicevmError("this is no Linux kernel image")
    (version,) = struct.unpack_from("<H", image, _VERSION)
    if version < 0x208:
        raise DevicevmError(f"kernel image with boot protocol {version:#x} is too old")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = (image[_SETUP_SECTORS] + 1) * 512 + offset
    payload = image[start : start + length]
    if length < 8 or len(payload) != length:
        raise DevicevmError("the kernel image is cut off")
    # The last four bytes are the kernel's size, not part of the compressed stream.
    try:
        kernel = _decompress(payload[:-4])
    except (zlib.error, lzma.LZMAError) as error:
        raise DevicevmError(f"the kernel image is damaged: {error}") from error
    if kernel[:4] != MAGIC or len(kernel) != int.from_bytes(payload[-4:], "little"):
        raise DevicevmError("the kernel image holds no whole ELF kernel")
    return kernel


def _decompress(data: bytes) -> bytes:
    if data[:4] == MAGIC:
        return data
    if data[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(data)
    if data[:4] == b"\xfd7zX":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)
    if data[:3] == b"\x5d\0\0":
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data)
    if data[:4] == b"\x02\x21\x4c\x18":
        return run_tool(["lz4", "-d", "-c"], stdin=data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return run_tool(["zstd", "-d", "-c"], stdin=data)
    raise DevicevmError(f"kernel compressed by an unknown method ({data[:4].hex()})")


@dataclass(frozen=True)
class KernelTree:
    """A kernel package, unpacked below `root`."""

    root: Path
    version: str

    @property
    def vmlinuz(self) -> Path:
        return self.root / "boot" / f"vmlinuz-{self.version}"

    @property
    def modules(self) -> Path:
        return self.root / "lib/modules" / self.version


def find_kernel(root: Path) -> KernelTree:
    """The one kernel below `root`; DevicevmError when there is none or there are several."""
    images = sorted((root / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise DevicevmError(f"one kernel expected in the packages, {len(images)} found")
    tree = KernelTree(root, images[0].name.removeprefix("vmlinuz-"))
    if not tree.modules.is_dir() and (root / "usr/lib/modules" / tree.version).is_dir():
        (root / "lib").mkdir(exist_ok=True)
        (root / "lib/modules").symlink_to("../usr/lib/modules")
    return tree


def index_modules(tree: KernelTree) -> None:
    """Writes modules.dep and its like, as the package's installation would."""
    run_tool(["depmod", "-b", str(tree.root), tree.version])


class Modules:
    """The modules of an indexed kernel by name, and what each needs."""

    def __init__(self, tree: KernelTree, toolchain: Toolchain) -> None:
        self._folder = tree.modules
        self._toolchain = toolchain
        self._needs: dict[str, tuple[str, list[str]]] = {}
        for line in (self._folder / "modules.dep").read_text(encoding="utf-8").splitlines():
            path, needed = line.split(":", 1)
            self._needs[_module_name(path)] = (path, needed.split())
        builtin = (self._folder / "modules.builtin").read_text(encoding="utf-8")
        self._builtin = {_module_name(line) for line in builtin.splitlines()}

    def load_order(self, names: Sequence[str]) -> tuple[str, ...]:
        """Paths below the modules' folder, each after what it needs; built-in ones are left out."""
        order: dict[str, None] = {}
        for name in names:
            key = name.replace("-", "_")
            if key in self._builtin:
                continue
            if key not in self._needs:
                raise DevicevmError(
                    f"the kernel {self._folder.name} has no module {name}",
                    hint="check the name, or take the generic kernel",
                )
            path, needs = self._needs[key]
            # modules.dep lists the needed ones last first.
            order.update(dict.fromkeys([*reversed(needs), path]))
        return tuple(order)

    def read(self, path: str, workspace: Path) -> bytes:
        """A module's bytes: decompressed, without debug data and signature."""
        data = _decompress_module(path, (self._folder / path).read_bytes())
        plain, stripped = workspace / "module", workspace / "module.stripped"
        plain.write_bytes(data)
        options = ["--strip-debug", "--enable-deterministic-archives"]
        self._toolchain.run("strip", [*options, "-o", str(stripped), str(plain)])
        return stripped.read_bytes()


def _module_name(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def _decompress_module(path: str, data: bytes) -> bytes:
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".gz"):
        return gzip.decompress(data)
    if path.endswith(".zst"):
        return run_tool(["zstd", "-d", "-c"], stdin=data)
    return data
