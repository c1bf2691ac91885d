"""Unpacked packages, kept in the cache by what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..record import digest
from .packages import Package, PackageManager, Progress
from .store import ImageStore


def unpacked(
    pinned: Sequence[Package],
    cache: Path,
    packages: PackageManager,
    progress: Progress,
    finish: Callable[[Path], None] = lambda _: None,
) -> Path:
    """All of `pinned` in one tree below `cache`/roots; `finish` completes it before it is kept.

    A tree that is there already is taken as it is. Half a tree never stays.
    """
    root = cache / "roots" / digest([package.sha256 for package in pinned], 16)
    if root.is_dir():
        return root
    archives = packages.fetch(pinned, progress)
    progress(f"unpacking {len(archives)} packages")
    with ImageStore(root.parent).workspace() as workspace:
        tree = workspace / "root"
        tree.mkdir()
        # No two packages hold the same file, so that they do not wait for each other.
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda archive: packages.unpack(archive, tree), archives))
        finish(tree)
        if not root.exists():
            tree.rename(root)
    return root
