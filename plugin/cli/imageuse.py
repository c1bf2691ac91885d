"""Which images are in use, and which versions of them nobody needs any more."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..domain import DomainSpec, ObservedDomain
from ..errors import DevicevmError
from ..guest.image import Image
from ..guest.store import ImageStore


def is_current(store: ImageStore, image: Image) -> bool:
    """Whether the image's name stands for this version."""
    try:
        return store.current(image.name, image.arch).digest == image.digest
    except DevicevmError:
        return False


def users_of(image: Image, store: ImageStore, observed: Iterable[ObservedDomain]) -> list[str]:
    """Who boots this version: domains of the VMM, and processes of any VMM on this host."""
    users = {
        f"domain {domain.name}"
        for domain in observed
        for spec in (domain.spec, domain.active_spec)
        if spec and _boots(spec, image, store)
    }
    return sorted(users) or _processes(store.folder(image))


def forget_versions(
    store: ImageStore, observed: Iterable[ObservedDomain], folders: set[str] | None = None
) -> list[Image]:
    """Remove the versions that are superseded and that nobody boots, with `folders` (NAME-DIGEST) only those; they are
    returned."""
    domains = list(observed)
    removed = []
    for image in store.list():
        wanted = folders is None or image.folder in folders
        if wanted and not is_current(store, image) and not users_of(image, store, domains):
            store.remove(image)
            removed.append(image)
    return removed


def _boots(spec: DomainSpec, image: Image, store: ImageStore) -> bool:
    folder = str(store.folder(image).resolve()) + os.sep
    return spec.image == image.folder or os.path.realpath(spec.boot.kernel or "/").startswith(folder)


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
