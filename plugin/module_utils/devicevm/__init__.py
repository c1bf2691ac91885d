"""devicevm's core: manifests in, a plan out, the plan applied to a VMM.

Standard library only at import time, relative imports only: the same files are the
pip package `devicevm` and the collection's module_utils (docs/architecture.md).
"""

from __future__ import annotations

__version__ = "0.1.0"

API_VERSION = "devicevm/v1"
