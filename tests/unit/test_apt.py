"""Which names packages have where."""

from __future__ import annotations

from pathlib import Path

import pytest
from devicevm.guest.apt import distribution


@pytest.mark.parametrize(
    ("release", "found"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n', "debian"),
        ("ID=ubuntu\nID_LIKE=debian\n", "ubuntu"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "ubuntu"),
        ("ID=devuan\nID_LIKE=debian\n", "debian"),
        ("nonsense\n", "debian"),
        (None, "debian"),
    ],
)
def test_whose_repositories_a_machine_has(tmp_path: Path, release: str | None, found: str) -> None:
    path = tmp_path / "os-release"
    if release is not None:
        path.write_text(release)
    assert distribution(path) == found
