"""Keys: read from the user's files, lent to a VMM while it starts, and nowhere else."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devicevm.apply.actions import _with_secrets
from devicevm.apply.references import refuse_missing
from devicevm.domain import DomainSpec, Emulator, Secret
from devicevm.errors import DevicevmError
from devicevm.guest.boot_config import device_config
from devicevm.manifest.topology import Store
from devicevm.planner.plan import Action, Plan
from devicevm.record import from_data, to_data
from devicevm.vmm.secrets import MAX_SECRET, lent, read_secret, remove_stale
from world import ModelVmm, client, disk, topology

GOLDEN = Path(__file__).resolve().parents[1] / "goldens" / "domains" / "device-vm-formats.json"
KEY = "a passphrase of no importance\n"


def sealed(folder: Path, spec: DomainSpec | None = None, **changes: Any) -> DomainSpec:
    """A device VM whose first emulator has a secret in `folder`."""
    spec = spec or from_data(DomainSpec, json.loads(GOLDEN.read_text()))
    secret = Secret("0011", str(folder / "key"), str(folder / "0011.secret"))
    first, *others = spec.emulators
    return replace(spec, emulators=(replace(first, secrets=(secret,), **changes), *others))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"x" * (MAX_SECRET + 1), "is too long"),
        (b"\xff\xfe", "is no text in UTF-8"),
    ],
)
def test_a_key_file_that_cannot_be_used_says_why(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(DevicevmError, match=says):
        read_secret(str(tmp_path / "key"))


@pytest.mark.timeout(20)
def test_a_key_is_no_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    with pytest.raises(DevicevmError, match="is no plain file"):
        read_secret(str(tmp_path / "key"))


def test_a_copy_is_there_only_while_the_vmm_starts(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    copy = tmp_path / "0011.secret"
    copy.write_text("what an apply that was killed has left")
    with pytest.raises(RuntimeError), lent(sealed(tmp_path), (os.getuid(), os.getgid())):
        assert copy.read_text() == KEY
        assert copy.stat().st_mode & 0o777 == 0o400
        raise RuntimeError("the VMM does not start")
    assert not copy.exists()


KILLED = """
import os, signal, sys
from types import SimpleNamespace as Given
from devicevm.vmm.secrets import lent
secret = Given(path=sys.argv[1], address=sys.argv[2])
with lent(Given(emulators=[Given(secrets=[secret])]), None):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_lent_by_one_that_was_killed_is_removed_and_what_is_lent_is_not(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    stale, other = tmp_path / "0022.secret", tmp_path / "a.sock"
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "key", stale], check=False, timeout=60)
    assert stale.read_text() == KEY
    other.touch()
    (tmp_path / "dangling.secret").symlink_to(other)
    with lent(sealed(tmp_path), None):
        remove_stale(tmp_path)
        assert not stale.exists()
        assert (tmp_path / "0011.secret").read_text() == KEY
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.sock", "dangling.secret", "key"]
    remove_stale(tmp_path / "nothing")


def test_a_copy_that_is_taken_for_a_stale_one_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(KEY)
    locked, taken = fcntl.flock, []

    def late(file: int, operation: int) -> None:
        if not taken:
            taken.append(file)
            remove_stale(tmp_path)
        locked(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with lent(sealed(tmp_path), None):
        assert (tmp_path / "0011.secret").read_text() == KEY


def test_nothing_but_the_reference_is_written(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    spec = sealed(tmp_path)
    emulator = spec.emulators[0]
    assert KEY.strip() not in json.dumps(to_data(spec))
    assert device_config(emulator)["secrets"] == {"0011": None}
    live = _with_secrets(device_config(emulator), emulator)
    assert base64.b64decode(live["secrets"]["0011"]).decode() == KEY
    plain = Emulator("a", "b", "disk", emulator.channel, ("x",))
    assert _with_secrets(device_config(plain), plain) == device_config(plain)


def plan_with(folder: Path, **changes: Any) -> Plan:
    """A plan that starts a device VM with a secret."""
    plan = ModelVmm().plan(topology(client("m", disk())))
    return replace(
        plan,
        domains=tuple(sealed(folder, spec, **changes) if spec.emulators else spec for spec in plan.domains),
    )


def test_all_files_that_are_missing_are_told_before_anything_starts(tmp_path: Path) -> None:
    base = Store("file", 0, str(tmp_path / "golden"), read_only=True)
    plan = plan_with(tmp_path, base=base)
    with pytest.raises(DevicevmError) as raised:
        refuse_missing(plan)
    told = raised.value.message
    assert f"m/data: its base {tmp_path}/golden is not there" in told
    assert f"m/data: the key file {tmp_path}/key cannot be read" in told
    (tmp_path / "golden").touch()
    (tmp_path / "key").write_text(KEY)
    refuse_missing(plan)


def test_files_of_what_goes_on_as_it_is_are_not_asked_for(tmp_path: Path) -> None:
    plan = plan_with(tmp_path)
    refuse_missing(replace(plan, steps=tuple(step for step in plan.steps if step.action is Action.DEFINE)))
