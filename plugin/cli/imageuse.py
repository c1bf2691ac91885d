"""Which images are in use, and which versions of them nobody needs any more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..domain import DomainSpec, ObservedDomain
from ..errors import DevicevmError
from ..guest.image import Image
from ..guest.store import ImageStore
from ..vmm.overlay import base_of


def is_current(store: ImageStore, image: Image) -> bool:
    """Whether the image's name stands for this version."""
    try:
        return store.current(image.name, image.arch).digest == image.digest
    except DevicevmError:
        return False


def users_of(
    image: Image, store: ImageStore, observed: Iterable[ObservedDomain], overlays: Iterable[Path]
) -> list[str]:
    """Who boots this version: domains of the VMM, the disks in the folders `overlays` that rest on it, whosever they
    are, and processes of any VMM on this host."""
    users = {
        f"domain {domain.name}"
        for domain in observed
        for spec in (domain.spec, domain.active_spec)
        if spec and _boots(spec, image, store)
    }
    return sorted(users) or _disks(store.folder(image), overlays) or _processes(store.folder(image))


def forget_versions(
    store: ImageStore,
    observed: Iterable[ObservedDomain],
    overlays: Sequence[Path],
    folders: set[str] | None = None,
) -> list[Image]:
    """Remove the versions that are superseded and that nobody boots, with `folders` (NAME-DIGEST) only those; they are
    returned."""
    domains = list(observed)
    removed = []
    for image in store.list():
        wanted = folders is None or image.folder in folders
        if wanted and not is_current(store, image) and not users_of(image, store, domains, overlays):
            store.remove(image)
            removed.append(image)
    return removed


def _boots(spec: DomainSpec, image: Image, store: ImageStore) -> bool:
    folder = store.folder(image)
    return spec.image == image.folder or any(_is_in(folder, path) for path in (spec.boot.kernel, spec.boot.image))


def _is_in(folder: Path, path: str) -> bool:
    return os.path.realpath(path or os.sep).startswith(str(folder.resolve()) + os.sep)


def _disks(folder: Path, overlays: Iterable[Path]) -> list[str]:
    """The copy-on-write disks that rest on a file of this folder, also of domains that are stopped or are not defined
    any more; one that cannot be read may."""
    users = []
    for path in (found for overlay in overlays for found in sorted(overlay.glob("*.qcow2"))):
        try:
            if _is_in(folder, base_of(path)):
                users.append(f"disk {path}")
        except FileNotFoundError:
            continue
        except OSError as error:
            users.append(f"disk {path}, perhaps ({error.strerror})")
    return users


def _processes(folder: Path) -> list[str]:
    """The processes with this folder on their command line: running guests of VMMs that were not asked."""
    needle = os.fsencode(str(folder.resolve()) + os.sep)
    users = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if needle in path.read_bytes():
                users.append(f"process {path.parent.name}")
        except OSError:
            continue  # it has ended, or is somebody's that we may not look at
    return sorted(users)
