"""Whether the host can mount what is in a file, which containers often cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def why_nothing_is_mounted(folder: Path) -> str:
    """Why nothing can be mounted here; empty when it can."""
    missing = [name for name in ("nbdkit", "qemu-storage-daemon", "mkfs.ext4") if not shutil.which(name)]
    if missing or os.getuid() != 0 or not os.access("/dev/fuse", os.W_OK):
        return f"it takes root, FUSE and {', '.join(missing) or 'its programs'}"
    image, place = folder / "probe", folder / "place"
    place.mkdir()
    image.write_bytes(bytes(2**20))
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no loop device can be mounted: {done.stderr.strip()}"
    subprocess.run(["umount", place], check=True)
    return ""
