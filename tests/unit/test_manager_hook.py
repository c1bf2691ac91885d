"""libvirt's hook as libvirt runs it: a program of its own, that reads a domain's XML and may refuse its start."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from devicevm import __version__
from devicevm.errors import DevicevmError
from devicevm.manager import hook, wire
from devicevm.manager.installation import hook_text, unit_text
from devicevm.vmm.places import is_managed, managers_places, places_of
from stage_collection import REPO

CLIENT = (REPO / "tests/goldens/domains/client.xml").read_bytes()
DEVICE_VM = (REPO / "tests/goldens/domains/device-vm.xml").read_bytes()
FOREIGN = b"<domain type='qemu'><name>db</name></domain>"
UUID = ET.fromstring(CLIENT).findtext("uuid")
PLACES = places_of("qemu:///system")


@contextmanager
def manager(path: Path, *answers: bytes) -> Iterator[list[dict[str, Any]]]:
    """Somebody who answers so, one caller after the other; what was asked."""
    asked: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                peer, _address = listener.accept()
                with peer:
                    asked.append(json.loads(wire.read_line(peer, time.monotonic() + 10)))
                    peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        thread.join(10)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The hook as it is installed, for a manager at manager.sock beside it."""
    path = tmp_path / "hook"
    path.write_text(hook_text(PLACES).replace(wire.socket_path(PLACES), str(tmp_path / "manager.sock")))
    path.chmod(0o755)
    return path


def run(path: Path, operation: str, xml: bytes = CLIENT, name: str = "web") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [path, name, operation, "begin", "-"], input=xml, capture_output=True, timeout=60, check=False
    )


OK = wire.result_line(None)


@pytest.mark.parametrize(("operation", "asked"), [("prepare", "prepare"), ("release", "release"), ("reconnect", "use")])
def test_the_manager_is_asked_for_a_client_s_device_vms(installed: Path, operation: str, asked: str) -> None:
    with manager(installed.with_name("manager.sock"), OK) as requests:
        done = run(installed, operation)
    assert (done.returncode, done.stderr) == (0, b"")
    assert requests == [
        {"op": asked, "hook": hook.VERSION, "client": UUID, "owner": "default", "deviceVMs": ["web-dvm"]}
    ]


def test_a_client_is_its_uuid_whatever_it_is_called(installed: Path) -> None:
    with manager(installed.with_name("manager.sock"), OK) as requests:
        renamed = CLIENT.replace(b"<name>web</name>", b"<name>web2</name>")
        assert run(installed, "prepare", renamed, name="web2").returncode == 0
    assert [one["client"] for one in requests] == [UUID]


@pytest.mark.parametrize(
    ("operation", "xml"),
    [("prepare", FOREIGN), ("prepare", DEVICE_VM), ("start", CLIENT), ("stopped", CLIENT), ("migrate", CLIENT)],
)
def test_nobody_is_asked_for_what_needs_nothing(installed: Path, operation: str, xml: bytes) -> None:
    """There is no manager here: asking would fail."""
    assert run(installed, operation, xml).returncode == 0


def test_a_refusal_is_told_and_the_client_does_not_start(installed: Path) -> None:
    answer = wire.error_line(DevicevmError("device VM web-dvm: no answer", hint="look at its console"))
    with manager(installed.with_name("manager.sock"), answer):
        done = run(installed, "prepare")
    assert done.returncode == 1
    assert done.stderr == b"web cannot start: device VM web-dvm: no answer\nlook at its console\n"


def test_a_long_refusal_is_cut(installed: Path) -> None:
    with manager(installed.with_name("manager.sock"), wire.error_line(DevicevmError("x" * 50_000))):
        done = run(installed, "prepare")
    assert done.returncode == 1 and hook.MAX_WORDS <= len(done.stderr) < hook.MAX_WORDS + 100


@pytest.mark.parametrize("answer", [b"", b"what?\n", b"[]\n"])
def test_a_manager_that_says_something_else_is_a_reason(installed: Path, answer: bytes) -> None:
    with manager(installed.with_name("manager.sock"), answer):
        done = run(installed, "prepare")
    assert done.returncode == 1 and done.stderr.startswith(b"web cannot start: ")


def test_without_a_manager_a_client_does_not_start_and_the_next_command_is_told(installed: Path) -> None:
    begun = time.monotonic()
    done = run(installed, "prepare")
    assert done.returncode == 1
    assert b"devicevm's manager does not run: systemctl start devicevm-manager" in done.stderr
    assert time.monotonic() - begun < hook.TELLING


def test_without_a_manager_a_client_ends_as_ever(installed: Path) -> None:
    assert run(installed, "release").returncode == 0


def test_xml_that_is_none_is_a_reason(installed: Path) -> None:
    done = run(installed, "prepare", CLIENT[:1500])
    assert done.returncode == 1 and b"web cannot start" in done.stderr


def test_a_manager_that_does_not_answer_is_waited_for_no_longer_than_told(tmp_path: Path) -> None:
    path = tmp_path / "manager.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(hook.Refused, match=r"within 0\.1 s"):
            hook.ask(str(path), {"op": "prepare"}, 0.1)
        with pytest.raises(DevicevmError, match="does not answer"):
            wire.ask(str(path), "hello", 0.1)


def test_the_command_line_hears_the_manager_s_own_words(tmp_path: Path) -> None:
    path = tmp_path / "manager.sock"
    refused = wire.error_line(DevicevmError("no", hint="ask later"))
    with manager(path, wire.result_line(["guests"]), refused) as requests:
        assert wire.ask(str(path), "hello", 5) == ["guests"]
        with pytest.raises(DevicevmError) as caught:
            wire.ask(str(path), "stop", 5, name="web-dvm")
    assert (caught.value.message, caught.value.hint) == ("no", "ask later")
    assert [(one["op"], one.get("name")) for one in requests] == [("hello", None), ("stop", "web-dvm")]
    assert requests[0]["version"] == __version__
    with pytest.raises(DevicevmError, match="systemctl restart"):
        wire.check_caller("0")


def test_without_a_manager_the_command_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(DevicevmError, match="does not run") as caught:
        wire.ask(str(tmp_path / "manager.sock"), "hello", 5)
    assert "systemctl start" in caught.value.hint


def test_a_vmm_is_managed_once_its_manager_has_a_place(tmp_path: Path) -> None:
    places = replace(PLACES, state=tmp_path)
    assert not is_managed(places)
    root = managers_places(places).embed_root
    assert root is not None
    root.mkdir()
    assert is_managed(places)
    assert not is_managed(replace(places_of("qemu:///embed?root=/x"), state=tmp_path))


def test_device_vms_have_their_channels_where_clients_look_for_them() -> None:
    own = managers_places(PLACES)
    assert own.runtime == PLACES.runtime and own.logs != PLACES.logs
    assert not wire.socket_path(PLACES).startswith(f"{PLACES.runtime}/"), "QEMU's user may write there"


def test_the_unit_runs_the_manager_and_leaves_device_vms_alone() -> None:
    text = unit_text("qemu:///system")
    assert "manager run --connect qemu:///system" in text
    for line in ("Type=notify", "KillMode=process", "Before=libvirtd.service"):
        assert line in text
