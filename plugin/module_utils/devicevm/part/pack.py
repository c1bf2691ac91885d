"""The program of host parts: this package as a zip archive that Python runs, with nothing else of devicevm.

The same sources give the same archive, byte for byte, wherever they are loaded from: files, or an archive in which
Ansible has sent them.
"""

from __future__ import annotations

import io
import pkgutil
import zipfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from .. import errors, whole
from .. import part as package
from ..errors import DevicevmError
from . import run

# `run` is imported although nothing here calls it: Ansible sends to a target what is imported, and no more.
_MAIN = f"import sys\nfrom devicevm.part.{run.__name__.rpartition('.')[2]} import main\nsys.exit(main(sys.argv[1:]))\n"
# Of the time before which zip knows none.
_DATE = (1980, 1, 1, 0, 0, 0)


def packed() -> bytes:
    """The archive."""
    files = {"__main__.py": _MAIN, "devicevm/__init__.py": "", "devicevm/part/__init__.py": ""}
    for module in (errors, whole):
        name = module.__name__
        files[f"devicevm/{name.rpartition('.')[2]}.py"] = _source(module.__loader__, name)
    files.update((f"devicevm/part/{name}.py", text) for name, text in _modules(package))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _DATE), files[name], zipfile.ZIP_DEFLATED)
    return data.getvalue()


def _modules(folder: ModuleType) -> Iterator[tuple[str, str]]:
    for found in pkgutil.iter_modules(folder.__path__):
        name = f"{folder.__name__}.{found.name}"
        spec: Any = found.module_finder.find_spec(name, None)
        yield found.name, _source(spec.loader, name)


def _source(loader: Any, name: str) -> str:
    text = loader.get_source(name)
    if not text:
        raise DevicevmError(f"the source of {name} is not there", hint="install devicevm with its sources")
    return str(text)
