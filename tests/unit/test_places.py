"""Where a VMM's files are, whoever asks; and who may write there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.vmm import places as module
from devicevm.vmm.libvirt import embed
from devicevm.vmm.lock import lock, lock_path
from devicevm.vmm.places import Places, make_runtime, places_of

SOMEBODY = 4_000_000_000
SYSTEM = ("qemu:///system", "qemu+unix:///system", "qemu:///system?socket=/tmp/x/libvirt-sock")


def as_user(monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    monkeypatch.setattr(os, "getuid", lambda: user)


def places_for(monkeypatch: pytest.MonkeyPatch, user: int, uri: str) -> Places:
    with monkeypatch.context() as patch:
        as_user(patch, user)
        return places_of(uri)


@pytest.mark.parametrize("uri", SYSTEM)
def test_the_systems_vmm_is_one_for_everybody(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    root, user = places_for(monkeypatch, 0, uri), places_for(monkeypatch, SOMEBODY, uri)
    assert root == user
    assert lock_path(root) == lock_path(user)
    assert str(root.runtime.parent) == "/run/devicevm"
    assert str(root.state.parent) == "/var/lib/devicevm/vmm"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("uri", ["qemu:///session", "qemu:///embed?root=/srv/e", "test:///default"])
def test_the_others_are_their_users(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, user = places_for(monkeypatch, 0, uri), places_for(monkeypatch, SOMEBODY, uri)
    assert root.runtime != user.runtime
    assert not user.runtime.is_relative_to("/run/devicevm")
    assert (root.state == user.state) == ("embed" in uri)


def test_who_may_not_write_there_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "SYSTEM_RUNTIME", tmp_path / "run")
    uri = SYSTEM[0]
    made = places_for(monkeypatch, 0, uri)
    make_runtime(made, None)
    as_user(monkeypatch, SOMEBODY)
    may = {"write": False}
    monkeypatch.setattr(os, "access", lambda path, mode: may["write"])
    monkeypatch.setattr(os, "chmod", lambda *arguments: pytest.fail("it is not ours to change"))
    with pytest.raises(DevicevmError, match="you may not write in") as caught, lock(uri):
        pass
    assert str(made.runtime) in caught.value.hint
    assert "run it as root" in caught.value.hint
    # Access that was given is enough, though the directory is another user's.
    may["write"] = True
    with lock(uri):
        pass


def test_a_users_own_directory_is_no_other_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places = replace(places_for(monkeypatch, SOMEBODY, "qemu:///session"), runtime=tmp_path / "run")
    as_user(monkeypatch, SOMEBODY)
    with pytest.raises(DevicevmError, match="belongs to another user"):
        make_runtime(places, None)


@pytest.mark.parametrize(
    ("conf", "is_"),
    [
        ('user = "+1234"\ngroup = "+4321"\n', (1234, 4321)),
        ("user='1234'\n  group\t= '4321' # so\n", (1234, 4321)),
        ('user = """nobody"""\ngroup = "nogroup"', (65534, 65534)),
        ('user="root"\ngroup="root"', None),
        ("user = '0'\n", None),
        ('# user = "root"\nuser = "+1234"\n#group = "root"\n', (1234, "usual")),
        ('dynamic_ownership = 1\nswtpm_user = "tss"\n', "usual"),
        ("", "usual"),
    ],
)
def test_an_embedded_vmms_qemu_runs_as_its_settings_say(
    conf: str, is_: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_user(monkeypatch, 0)
    monkeypatch.setattr(embed, "_usual_user", lambda: (77, 88))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "qemu.conf").write_text(conf)
    wanted = (77, 88) if is_ == "usual" else (is_[0], 88) if isinstance(is_, tuple) and is_[1] == "usual" else is_
    assert embed.qemu_user(tmp_path) == wanted
    as_user(monkeypatch, SOMEBODY)
    assert embed.qemu_user(tmp_path) is None


def test_an_embedded_vmms_user_that_there_is_not_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    as_user(monkeypatch, 0)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "qemu.conf").write_text('user = "no-such-user"\n')
    with pytest.raises(DevicevmError, match=r"etc/qemu\.conf names a user or group that there is not: .*no-such-user"):
        embed.qemu_user(tmp_path)


@pytest.mark.parametrize("user", [None, (0, 0), (1234, 4321)])
def test_what_is_written_into_settings_is_read_from_them(
    user: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embed, "_usual_user", lambda: (77, 88))
    monkeypatch.setattr(embed, "_qemu_user_has_kvm", lambda: True)
    as_user(monkeypatch, 0)
    embed.write_settings(tmp_path, user)
    assert embed.qemu_user(tmp_path) == {None: (77, 88), (0, 0): None}.get(user, user)


def test_an_embedded_vmms_console_logs_are_not_in_memory() -> None:
    places = places_of("qemu:///embed?root=/srv/e")
    assert str(places.logs) == "/srv/e/devicevm/logs"
    for uri in ("qemu:///system", "qemu:///session"):
        assert places_of(uri).logs == places_of(uri).runtime
