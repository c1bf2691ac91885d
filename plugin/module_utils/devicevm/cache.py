"""Where what can be had again is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/devicevm, else /var/cache/devicevm for root, else the user's; it may be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(home):
        return Path(home) / "devicevm"
    return Path("/var/cache/devicevm") if os.geteuid() == 0 else Path.home() / ".cache/devicevm"
