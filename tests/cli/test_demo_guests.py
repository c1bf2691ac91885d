"""The demonstration, with guests: it passes, can be kept, and leaves nothing when it is interrupted."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from devicevm.cli.remains import remains_of
from devicevm.vmm.places import places_of
from private_libvirtd import heed_interrupts

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_demo(cli_process: Any) -> None:
    said = cli_process("demo", "--keep", "--timeout", "240", "-o", "json")
    assert said.status == 0, said.err
    uri = said.json["uri"]
    folder = Path(uri.partition("root=")[2])
    try:
        assert said.json["passed"]
        assert any("devicevm-demo: passed" in line for line in said.json["client"])
        health = cli_process("status", "--connect", uri, "-o", "json").json
        assert {item["state"] for item in health["devices"]} == {"connected"}
        assert "devicevm-demo: passed" in cli_process("logs", "web", "--connect", uri).out
        assert "agent: up" in cli_process("logs", "web-dvm", "--connect", uri).out
    finally:
        gone = cli_process("destroy", "--owner", "demo", "--connect", uri)
        left = remains_of(folder, str(places_of(uri).runtime))
        shutil.rmtree(folder)
    assert gone.status == 0, gone.err
    assert left == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_demo_that_is_interrupted(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "devicevm.cli", "demo", "--accelerator", "tcg"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, preexec_fn=heed_interrupts) as process:  # noqa: PLW1509
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "start device VM" in line and line.endswith("...\n"):
                process.send_signal(number)
            if "-- destroy" in line:
                # Impatience must not leave half of it behind.
                process.send_signal(number)
    assert process.returncode == 130, "".join(said)
    assert "error: interrupted; everything is taken away again\n" in said
    assert not [line for line in said if "left behind" in line]
