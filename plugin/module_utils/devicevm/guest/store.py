"""Where built images are: STORE/NAME-DIGEST/, and STORE/NAME, a link to the current one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import DevicevmError
from .architecture import build_architecture
from .image import INITRAMFS, KERNEL, Image, is_complete, link_name, read_description

_ABANDONED = 24 * 3600.0  # seconds


def default_store() -> Path:
    """$DEVICEVM_IMAGES, else /var/lib/devicevm/images for root, else the user's data folder."""
    chosen = os.environ.get("DEVICEVM_IMAGES")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/devicevm/images")
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(data) / "devicevm/images"


class ImageStore:
    """The images below `root`. Publishing is atomic; half-written images are never listed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self) -> tuple[Image, ...]:
        """All images, by name and digest; unreadable directories are skipped."""
        images = []
        for folder in sorted(self.root.glob("*-*")):
            if folder.name.startswith(".") or folder.is_symlink():
                continue
            with contextlib.suppress(DevicevmError):
                images.append(read_description(folder))
        return tuple(images)

    def folder(self, image: Image) -> Path:
        return self.root / image.folder

    def kernel(self, image: Image) -> Path:
        return self.folder(image) / KERNEL

    def initramfs(self, image: Image) -> Path:
        return self.folder(image) / INITRAMFS

    def current(self, name: str, arch: str = "") -> Image:
        """The image that `name` stands for now, for `arch` (this machine's if not given); DevicevmError when it was
        never built."""
        arch = arch or build_architecture()
        link = self.root / link_name(name, arch)
        if not link.is_symlink():
            raise DevicevmError(
                f"there is no image {name!r} for {arch} in {self.root}",
                hint=f"devicevm image build --arch {arch} {name}",
            )
        return read_description(link.resolve())

    def find(self, name: str, digest: str) -> Image | None:
        folder = self.root / f"{name}-{digest[:12]}"
        if not is_complete(folder):
            return None
        try:
            image = read_description(folder)
        except DevicevmError:
            return None
        return image if image.digest == digest else None

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A directory on the store's own file system, gone afterwards."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            folder = Path(tempfile.mkdtemp(prefix=".build-", dir=self.root))
        except OSError as error:
            raise DevicevmError(
                f"cannot write to the image store: {error}", hint="choose another with DEVICEVM_IMAGES"
            ) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """What a killed build left behind a day ago or longer."""
        for folder in [*self.root.glob(".build-*"), *self.root.glob(".removed-*")]:
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(folder, ignore_errors=True)

    def publish(self, built: Path, image: Image) -> Image:
        """Moves the finished directory `built` into place and makes it current."""
        target = self.folder(image)
        # World-readable: VMMs open these files as a user of their own.
        built.chmod(0o755)
        for path in built.iterdir():
            path.chmod(0o644)
        if target.exists():
            if self.find(image.name, image.digest) is None:
                shutil.rmtree(target)
            else:
                self.make_current(image)
                return image
        built.rename(target)
        self.make_current(image)
        return image

    def make_current(self, image: Image) -> None:
        link = self.root / image.link
        if link.is_symlink() and os.readlink(link) == image.folder:
            return
        fresh = self.root / f".{image.link}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(image.folder)
        fresh.rename(link)

    def remove(self, image: Image) -> None:
        """Removes one image, and the name's link when it led there."""
        link = self.root / image.link
        if link.is_symlink() and os.readlink(link) == image.folder:
            link.unlink()
        folder = self.folder(image)
        if folder.exists():
            # Out of sight first, so that nobody finds half of it.
            grave = Path(tempfile.mkdtemp(prefix=".removed-", dir=self.root))
            folder.rename(grave / folder.name)
            shutil.rmtree(grave)
