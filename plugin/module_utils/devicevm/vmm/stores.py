"""Backing storage that the host itself holds: files and block devices. Created, grown, deleted; never shrunk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import DevicevmError
from ..manifest.topology import Store


def ensure_file(store: Store) -> bool:
    """Create a sparse file of `store.size` bytes, or grow the one that is there; True when it was created.

    The parent directory must exist: a typing error must not scatter directories over the host. A symbolic link in
    the file's place is refused: it would make the VMM open what somebody else chose.
    """
    path = _absolute(store)
    try:
        # A name that is too long, or a folder that lets nobody in, is an error here already.
        if not path.parent.is_dir():
            raise DevicevmError(
                f"directory {path.parent} for the store {path} does not exist", hint=f"mkdir {path.parent}"
            )
        return _create(path, store.size)
    except FileExistsError:
        _grow(path, store)
        return False
    except OSError as error:
        raise DevicevmError(f"the store {path} cannot be created: {error.strerror}") from error


def check_block(store: Store) -> None:
    """The block device must be there and large enough; devicevm makes none."""
    path = _absolute(store)
    try:
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DevicevmError(f"the block device {path} cannot be opened: {error.strerror}") from error
    try:
        if not stat.S_ISBLK(os.fstat(device).st_mode):
            raise DevicevmError(f"{path} is no block device", hint="for a file write kind: file")
        check_size(str(path), os.lseek(device, 0, os.SEEK_END), store)
    finally:
        os.close(device)


def check_size(what: str, size: int, store: Store) -> None:
    """DevicevmError with both numbers when `what` of `size` bytes is smaller than declared, and cannot grow."""
    if size < store.size:
        raise DevicevmError(
            f"{what} has {size} bytes, declared are {store.size}: {store.size - size} are missing",
            hint="declare a smaller size, or enlarge it",
        )


def refuse_shrink(what: str, size: int, store: Store) -> None:
    """DevicevmError with both numbers when `what` of `size` bytes is larger than declared."""
    if size > store.size:
        raise DevicevmError(
            f"{what} has {size} bytes, declared are {store.size}: it would lose {size - store.size}",
            hint="nothing was changed; declare its size, or move its data to a smaller one",
        )


def delete_file(store: Store) -> None:
    """Remove the file and its data. Idempotent; anything but a plain file stays, with an error."""
    path = _absolute(store)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise DevicevmError(f"the store {path} is no plain file", hint="look at it, and remove it yourself")
        path.unlink()
        _sync_directory(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DevicevmError(f"the store {path} cannot be deleted: {error.strerror}") from error


def _absolute(store: Store) -> Path:
    path = Path(store.path)
    if "\0" in store.path:
        raise DevicevmError(f"the store's path {store.path!r} has a zero byte in it")
    if not path.is_absolute() or ".." in path.parts:
        raise DevicevmError(f"the store's path {store.path!r} is not absolute", hint="write it from / on, without ..")
    return path


def _create(path: Path, size: int) -> bool:
    # O_EXCL: what is there, a dangling link included, is never opened. 0600: the data is its owner's; libvirt
    # gives the file to QEMU's user while the device VM runs.
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(file, size)
        os.fsync(file)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(file)
    _sync_directory(path.parent)
    return True


def _grow(path: Path, store: Store) -> None:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise DevicevmError(
            f"the store {path} cannot be opened: {error.strerror}", hint="it must be a plain file, not a link"
        ) from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise DevicevmError(f"the store {path} is no plain file", hint="for a block device write kind: block")
        refuse_shrink(f"the store {path}", status.st_size, store)
        if status.st_size < store.size:
            if store.read_only:
                check_size(f"the read-only store {path}", status.st_size, store)
            os.ftruncate(file, store.size)
            os.fsync(file)
    except OSError as error:
        raise DevicevmError(f"the store {path} cannot grow to {store.size} bytes: {error.strerror}") from error
    finally:
        os.close(file)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
