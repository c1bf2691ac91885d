"""Debian's and Ubuntu's packages, by apt with folders of its own: no root, nothing installed, the
host's package state neither read nor changed. Only its list of repositories and keys is used."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from ..errors import DevicevmError
from ..record import canonical_json, digest, from_data
from ..whole import write_whole
from .architecture import Architecture
from .packages import Package, Progress
from .run import run_tool

# NAME_VERSION_ARCH.deb, with the epoch's colon as %3a
_FILE = r"(?P<name>[^\s_]+)_(?P<version>[^\s_]+)_\S+"
_URI = re.compile(rf"'(?P<uri>[^']+)' (?P<file>{_FILE}) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{{64}})")
_LISTS_FRESH = 24 * 3600.0  # seconds
_KERNELS = {
    "debian": {"cloud": "linux-image-cloud-{arch}", "generic": "linux-image-{arch}"},
    "ubuntu": {"cloud": "linux-image-virtual", "generic": "linux-image-generic"},
}


class AptPackages:
    """Packages for `arch`. `cache` holds package lists and archives, of this architecture only; `refresh` reads the
    lists anew whatever their age."""

    def __init__(self, cache: Path, arch: Architecture, *, refresh: bool = False) -> None:
        self._cache = cache.absolute()
        self._arch = arch.debian
        self._refresh = refresh

    def kernel_package(self, flavour: str) -> str:
        return _KERNELS[distribution()][flavour].format(arch=self._arch)

    def resolve(self, names: Sequence[str], progress: Progress) -> tuple[Package, ...]:
        self._update(progress)
        key = digest({"names": sorted(names), "lists": self._lists_state()}, 24)
        answer = self._cache / "resolved" / f"{key}.json"
        if answer.is_file():
            return _read_answer(answer)
        # An empty archive folder: --print-uris leaves out what is there already.
        command = [*self._apt(archives="none"), "-qq", "--print-uris", "install", *sorted(set(names))]
        output = run_tool(command, hint="check the package names, or that the repositories have them")
        packages = tuple(
            sorted((_parse_uri(line) for line in output.decode().splitlines()), key=lambda item: item.name)
        )
        answer.parent.mkdir(exist_ok=True)
        write_whole(answer, canonical_json(list(packages)))
        return packages

    def fetch(self, packages: Sequence[Package], progress: Progress) -> tuple[Path, ...]:
        folder = self._cache / "archives"
        missing = [package for package in packages if not _is_good(folder / package.file, package)]
        if missing:
            total = sum(package.size for package in missing)
            progress(f"downloading {len(missing)} packages, {total / 1e6:.0f} MB")
            pinned = [f"{package.name}={package.version}" for package in packages]
            command = [*self._apt(archives="archives"), "-qq", "--download-only", "install", *pinned]
            run_tool(command, hint="check the network; what has been downloaded is kept")
        for package in missing:
            if not _is_good(folder / package.file, package):
                raise DevicevmError(f"{package.file} was not downloaded intact", hint="try again")
        return tuple(folder / package.file for package in packages)

    def unpack(self, archive: Path, target: Path) -> None:
        run_tool(["dpkg-deb", "--extract", str(archive), str(target)])

    def _apt(self, *, archives: str) -> list[str]:
        for name in ("lists/partial", "archives/partial", "none/partial"):
            (self._cache / name).mkdir(parents=True, exist_ok=True)
        status = self._cache / "status"
        if not status.exists():
            status.touch()
        options = {
            # The machine's own, and what dpkg was told of foreign ones, play no part.
            "APT::Architecture": self._arch,
            "APT::Architectures": self._arch,
            "Dir::State": self._cache,
            "Dir::State::status": status,
            "Dir::Cache": self._cache,
            "Dir::Cache::archives": self._cache / archives,
            "Dir::Log": self._cache,
            "APT::Sandbox::User": "",
            "APT::Install-Recommends": "false",
            "APT::Update::Pre-Invoke": "",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Debug::NoLocking": "false",
        }
        return ["apt-get", "-y", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]

    def _update(self, progress: Progress) -> None:
        """Reads the package lists when they are old; without a network old ones have to do."""
        releases = self._releases()
        age = time.time() - min((path.stat().st_mtime for path in self._stamps()), default=0.0)
        if releases and age < _LISTS_FRESH and not self._refresh:
            return
        progress("reading package lists")
        hint = "check the network and /etc/apt/sources.list*"
        try:
            run_tool([*self._apt(archives="archives"), "-qq", "-o", "APT::Update::Error-Mode=any", "update"], hint=hint)
        except DevicevmError as error:
            if not self._releases():
                raise
            progress(f"keeping the package lists of before: {error.message.splitlines()[0]}")
            return
        (self._cache / "updated").touch()
        self._refresh = False

    def _stamps(self) -> list[Path]:
        stamp = self._cache / "updated"
        return [stamp] if stamp.exists() else []

    def _releases(self) -> list[Path]:
        return sorted((self._cache / "lists").glob("*Release"))

    def _lists_state(self) -> list[list[str]]:
        return [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in self._releases()]


def distribution(release: Path = Path("/etc/os-release")) -> str:
    """Whose packages the machine's repositories have: their names differ. See os-release(5)."""
    try:
        lines = release.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    like = " ".join(fields.get(key, "").strip("\"'") for key in ("ID", "ID_LIKE")).split()
    return "ubuntu" if "ubuntu" in like else "debian"


def _parse_uri(line: str) -> Package:
    match = _URI.fullmatch(line.strip())
    if not match:
        raise DevicevmError(f"apt said what cannot be understood: {line[:200]}")
    size, version = int(match["size"]), unquote(match["version"])
    return Package(match["name"], version, match["sha256"], match["uri"], match["file"], size)


def _read_answer(path: Path) -> tuple[Package, ...]:
    import json

    return tuple(from_data(Package, item) for item in json.loads(path.read_text(encoding="utf-8")))


def _is_good(path: Path, package: Package) -> bool:
    try:
        return path.stat().st_size == package.size and hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256
    except OSError:
        return False
