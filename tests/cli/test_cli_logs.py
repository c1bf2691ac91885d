"""logs, console, completion, and the demonstration as far as it goes without guests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from devicevm.cli import demonstration, remains
from devicevm.errors import DevicevmError
from devicevm.guest.image import Image
from devicevm.vmm.libvirt.test import TestDriver as Driver


def test_logs(cli: Any, vmm: Any, web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("apply", web).status == 0
    said = cli("logs", "web")
    assert (said.status, said.out) == (0, "==> console <==\n(nothing)\n")
    monkeypatch.setattr(Driver, "console_tail", lambda driver, spec, lines: ("one\ttwo", "three")[:lines])
    assert "one     two\nthree\n" in cli("logs", "web").out
    assert cli("logs", "web", "--lines", "1", "-o", "json").json == {
        "name": "web",
        "console": ["one\ttwo"],
        "agent": [],
        "parts": {},
    }


def test_the_agents_log(cli: Any, vmm: Any, web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("apply", web).status == 0

    class Agent:
        def __init__(self, path: str, *, timeout: float) -> None: ...
        def __enter__(self) -> Agent:
            return self

        def __exit__(self, *_: object) -> None: ...
        def log(self, lines: int) -> tuple[str, ...]:
            return (f"{lines} lines",)

    monkeypatch.setattr("devicevm.cli.commands.logs.Control", Agent)
    assert "==> agent <==\n7 lines" in cli("logs", "web-dvm", "--lines", "7").out

    def broken(*_: object, **__: object) -> Agent:
        raise DevicevmError("no reply within 5 s")

    monkeypatch.setattr("devicevm.cli.commands.logs.Control", broken)
    said = cli("logs", "web-dvm")
    assert said.status == 0
    assert "the agent's log cannot be had: no reply within 5 s" in said.err


def test_domains_that_are_not_there_or_not_ours(cli: Any, vmm: Any, web: Path) -> None:
    assert cli("apply", web).status == 0
    vmm.defineXML("<domain type='test'><name>own</name><memory>1024</memory><os><type>hvm</type></os></domain>")
    for command in ("logs", "console"):
        said = cli(command, "nobody")
        assert said.status == 1
        assert "there are: web, web-dvm" in said.err
        assert "not one of devicevm's" in cli(command, "own").err


def test_console(cli: Any, vmm: Any, web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("apply", web).status == 0
    said = cli("console", "web")
    assert said.status == 1
    assert "a console needs a terminal" in said.err

    seen: list[list[str]] = []
    monkeypatch.setattr("devicevm.cli.commands.console.terminal", lambda: True)
    monkeypatch.setattr("os.execv", lambda path, words: seen.append(words))
    cli("console", "web", "--connect", "test:///default")
    assert seen == [["virsh", "--connect", "test:///default", "console", "web"]]
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "apt-get install libvirt-clients" in cli("console", "web").err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(cli: Any, shell: str) -> None:
    said = cli("completion", shell)
    assert said.status == 0
    assert "_DEVICEVM_COMPLETE" in said.out


def test_completion_completes() -> None:
    script = Path(sys.executable).parent / "devicevm"
    if not script.exists():
        pytest.skip("devicevm is not installed beside this Python")
    environment = {"_DEVICEVM_COMPLETE": "bash_complete", "COMP_WORDS": "devicevm pl", "COMP_CWORD": "1"}
    done = subprocess.run([script], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "plain,plan\n"


def test_demo_cleans_up_when_it_fails(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[Path] = []

    def fail(vmm: Any, wait: float) -> None:
        made.append(Path(vmm.uri.partition("root=")[2]))
        assert made[0].is_dir()
        assert (vmm.accelerator, vmm.images, wait) == ("tcg", tmp_path, 9.0)
        raise DevicevmError("no VMM today")

    monkeypatch.setattr(demonstration, "build_images", lambda vmm: None)
    monkeypatch.setattr(demonstration, "open_vmm", fail)
    said = cli("demo", "--accelerator", "tcg", "--images", tmp_path, "--timeout", "9")
    assert said.status == 1
    assert "no VMM today" in said.err
    assert not made[0].exists()


def test_demo_takes_old_images_when_it_cannot_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from devicevm.cli.options import Vmm

    def refuse(recipe: Any, store: Any) -> Image:
        raise DevicevmError("no network")

    monkeypatch.setattr(demonstration, "build_one", refuse)
    with pytest.raises(DevicevmError, match="no network"):
        demonstration.build_images(Vmm("", tmp_path, "auto"))
    monkeypatch.setattr(demonstration, "is_current", lambda store, image: True)
    images = [Image(name, "a" * 64, "x86_64", "6.1", "", 1, "", 1, "") for name in demonstration.IMAGES]
    monkeypatch.setattr("devicevm.guest.store.ImageStore.list", lambda store: images)
    demonstration.build_images(Vmm("", tmp_path, "auto"))
    assert capsys.readouterr().err.count("is taken as it is: no network") == 2


def test_what_remains_is_found(tmp_path: Path) -> None:
    import socket

    runtime = tmp_path / "run"
    runtime.mkdir()
    assert remains.remains_of(tmp_path / "root", str(runtime)) == []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(runtime / "a.sock"))
        listening.listen()
        command = [sys.executable, "-c", "input(print(flush=True))", str(tmp_path / "root")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            found = remains.remains_of(tmp_path / "root", str(runtime))
        finally:
            process.communicate(b"\n")
    assert found == [f"process {process.pid}", f"socket {runtime}/a.sock", f"file {runtime}/a.sock"]
