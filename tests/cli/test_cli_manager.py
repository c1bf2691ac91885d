"""devicevm manager, as far as it goes where there is none; tests/e2e/test_manager.py has the rest."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.libvirt


def test_what_runs_no_hooks_gets_no_manager(cli: Any) -> None:
    said = cli("manager", "install", "--connect", "test:///default", "--lock-timeout", "1")
    assert said.status == 1
    assert "runs no hooks" in said.err and "qemu:///system" in said.err
    assert cli("manager", "uninstall", "--connect", "test:///default", "--lock-timeout", "1").status == 1


def test_a_manager_runs_only_where_it_was_installed(cli: Any) -> None:
    said = cli(
        "manager",
        "run",
        "--connect",
        "test:///default",
        "--grace",
        "1",
        "--timeout",
        "9",
        "--silence",
        "0",
        "--boots",
        "2",
    )
    assert said.status == 1
    assert "devicevm manager install" in said.err.splitlines()[-1]


@pytest.mark.parametrize("options", [("--grace", "-1"), ("--timeout", "nan"), ("--silence", "-1"), ("--boots", "-1")])
def test_times_and_counts_are_such(cli: Any, options: tuple[str, str]) -> None:
    assert cli("manager", "run", *options).status == 2


def test_the_unit_is_printed_for_the_vmm_that_is_meant(cli: Any) -> None:
    said = cli("manager", "unit", "--connect", "qemu:///system?socket=/x")
    assert said.status == 0
    assert "manager run --connect 'qemu:///system?socket=/x'\n" in said.out
