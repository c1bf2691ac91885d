"""apply, status and destroy on libvirt's test driver: the whole way, without guests."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from devicevm.apply import workflow
from devicevm.errors import DevicevmError
from devicevm.planner.plan import Action
from devicevm.vmm.libvirt.driver import LibvirtDriver
from devicevm.vmm.lock import lock_path
from devicevm.vmm.places import make_runtime, places_of


def names(connection: Any) -> list[str]:
    return sorted(domain.name() for domain in connection.listAllDomains())


def test_apply_status_destroy(cli: Any, web: Path, vmm: Any) -> None:
    said = cli("apply", web)
    assert (said.status, said.out) == (0, "Applied: 2 added.\n")
    assert "start device VM web-dvm" in said.err
    assert names(vmm) == ["web", "web-dvm"]

    assert cli("apply", web).out == "No changes.\n"

    said = cli("status")
    assert said.status == 0
    for word in ("Device VMs", "Clients", "Devices", "web/entropy", "running", ".sock"):
        assert word in said.out

    said = cli("destroy", web)
    assert (said.status, said.out) == (0, "Destroyed: 2 removed.\n")
    assert "undefine client web" in said.err
    assert names(vmm) == []
    assert cli("destroy", web).out == "No changes.\n"
    assert "Nothing of devicevm's" in cli("status").out


def test_results_as_json(cli: Any, web: Path, vmm: Any) -> None:
    document = cli("apply", web, "-o", "json").json
    assert document["counts"] == {"added": 2, "changed": 0, "removed": 0}
    assert document["changed"]
    assert len(document["done"]) == 4
    document = cli("apply", web, "-o", "json").json
    assert (document["changed"], document["ok"], document["done"]) == (False, True, [])

    document = cli("status", "-o", "json", "--owner", "default").json
    assert [domain["name"] for domain in document["domains"]] == ["web", "web-dvm"]
    assert cli("status", "-o", "json", "--owner", "lab").json == {"domains": [], "devices": []}

    document = cli("destroy", web, "-o", "json", "--yes").json
    assert document["counts"]["removed"] == 2


def test_a_saved_plan_is_applied_once(cli: Any, web: Path, vmm: Any, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert cli("plan", web, "--out", plan, "--owner", "lab").status == 0
    said = cli("apply", plan)
    assert (said.status, said.out) == (0, "Applied: 2 added.\n")
    said = cli("apply", plan)
    assert said.status == 1
    assert "stale plan" in said.err
    assert cli("apply", plan, "--prune").status == 2


def test_a_plan_for_another_host_is_refused(
    cli: Any, web: Path, vmm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.json"
    assert cli("plan", web, "--out", plan).status == 0
    document = json.loads(plan.read_text())
    for spec in document["domains"]:
        spec["host"] = "elsewhere"
    plan.write_text(json.dumps(document))
    said = cli("apply", plan)
    assert said.status == 1
    assert "the plan is for elsewhere" in said.err
    assert names(vmm) == []


def test_a_damaged_plan_is_refused(cli: Any, vmm: Any, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"apiVersion": "devicevm/v1", "kind": "Plan", "owner": "a"}')
    said = cli("apply", plan)
    assert said.status == 1
    assert "madeFrom missing" in said.err


def test_a_plan_of_another_version_is_refused_as_such(cli: Any, vmm: Any, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"apiVersion": "devicevm/v2", "kind": "Plan", "something": "new"}')
    said = cli("apply", plan)
    assert said.status == 1
    assert "apiVersion is 'devicevm/v2', and this devicevm knows 'devicevm/v1'" in said.err


def test_an_edited_plan_is_refused(cli: Any, web: Path, vmm: Any, tmp_path: Path) -> None:
    assert cli("apply", web, "--owner", "shop").status == 0
    other, plan = tmp_path / "other.yaml", tmp_path / "plan.json"
    other.write_text(web.read_text().replace("name: web", "name: lab"))
    assert cli("plan", other, "--out", plan).status == 0
    document = json.loads(plan.read_text())
    stop = {"id": "stop/client/web", "action": "stop", "name": "web"}
    document["steps"].append({**document["steps"][0], "kind": "client", **stop, "after": ["none"]})
    plan.write_text(json.dumps(document))
    said = cli("apply", plan, "--yes")
    assert said.status == 1
    assert "stop/client/web: web is owner 'shop''s, and the plan is 'default''s" in said.err
    assert "after none, and there is no such step" in said.err
    assert names(vmm) == ["web", "web-dvm"]
    assert vmm.lookupByName("web").isActive()


def test_an_unforeseen_failure_has_a_result_and_is_undone(
    cli: Any, web: Path, vmm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(driver: LibvirtDriver, name: str) -> None:
        raise OverflowError("timestamp too large")

    monkeypatch.setattr(LibvirtDriver, "start", overflow)
    said = cli("apply", web, "-o", "json")
    assert said.status == 1
    assert said.json["failed"] == ["start/device-vm/web-dvm"]
    assert "unexpected OverflowError: timestamp too large" in said.json["errors"]["start/device-vm/web-dvm"]["message"]
    assert names(vmm) == []
    assert "Traceback" not in said.err
    assert "in overflow" in cli("apply", web, "--debug").err


def test_nothing_is_applied_when_something_is_unplaced(cli: Any, web: Path, vmm: Any, tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text(web.read_text().replace("name: web", "name: big").replace("256MiB", "64GiB"))
    said = cli("apply", tmp_path / "web.yaml", tmp_path / "big.yaml")
    assert said.status == 1
    assert "64GiB asked" in said.err
    assert names(vmm) == []
    said = cli("apply", tmp_path / "web.yaml", tmp_path / "big.yaml", "--allow-unplaced", "-o", "json")
    assert said.status == 0
    assert {item["client"] for item in said.json["unplaced"]} == {"big"}
    assert names(vmm) == ["web", "web-dvm"]


def test_prune(cli: Any, web: Path, vmm: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(web.read_text().replace("name: web", "name: shop"))
    assert cli("apply", web, "--owner", "lab").status == 0
    assert cli("apply", other, "--owner", "lab", "--prune", "--yes").out == "Applied: 2 added, 2 removed.\n"
    assert names(vmm) == ["shop", "shop-dvm"]


def test_destroy_takes_an_owners_all(cli: Any, web: Path, vmm: Any) -> None:
    assert cli("apply", web, "--owner", "lab").status == 0
    assert cli("destroy", "--owner", "other").out == "No changes.\n"
    assert cli("destroy", "--owner", "lab", "--delete-data").out == "Destroyed: 2 removed.\n"
    assert names(vmm) == []


def test_destroy_must_be_told_what(cli: Any, vmm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = cli("destroy")
    assert said.status == 2
    assert "say what to destroy" in said.err
    # What merely lies about in the environment is no order to take everything away.
    monkeypatch.setenv("DEVICEVM_OWNER", "lab")
    assert cli("destroy").status == 2


def test_failure_tells_the_step_why_and_what_was_undone(
    cli: Any, web: Path, vmm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(driver: LibvirtDriver, name: str) -> None:
        raise DevicevmError(f"cannot start {name}: its last lines: kernel panic", hint="more memory")

    monkeypatch.setattr(LibvirtDriver, "start", refuse)
    said = cli("apply", web)
    assert (said.status, said.out) == (1, "")
    assert "start device VM web-dvm failed: cannot start web-dvm: its last lines: kernel panic" in said.err
    assert "hint: more memory" in said.err
    assert "define device VM web-dvm: undone" in said.err
    assert names(vmm) == []
    said = cli("apply", web, "-o", "json")
    assert said.status == 1
    assert said.json["errors"]["start/device-vm/web-dvm"]["hint"] == "more memory"
    assert not said.json["ok"]


def test_interrupt_says_what_is_left(cli: Any, web: Path, vmm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = LibvirtDriver.start

    def slow(driver: LibvirtDriver, name: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        start(driver, name)

    monkeypatch.setattr(LibvirtDriver, "start", slow)
    said = cli("apply", web, "--parallel", "1")
    assert said.status == 130
    assert "error: interrupted: " in said.err
    assert "the same command goes on from here" in said.err
    monkeypatch.undo()
    assert cli("apply", web, "--connect", "test:///default").status == 0
    assert names(vmm) == ["web", "web-dvm"]


def test_sigterm_is_an_interrupt(cli: Any, web: Path, vmm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "make_plan", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    said = cli("plan", web)
    before = signal.getsignal(signal.SIGTERM)
    assert said.status in (0, 130)
    assert signal.getsignal(signal.SIGTERM) == before


def test_only_one_changes_a_vmm_at_a_time(cli: Any, web: Path, vmm: Any) -> None:
    places = places_of("test:///default")
    make_runtime(places, None)
    with open(lock_path(places), "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for command in ("apply", "destroy"):
            said = cli(command, web, "--lock-timeout", "0")
            assert said.status == 1
            assert "is locked by" in said.err
        # Looking is free.
        assert cli("plan", web).status == 0
        threading.Timer(0.3, fcntl.flock, (held, fcntl.LOCK_UN)).start()
        assert cli("apply", web, "--lock-timeout", "10").status == 0
        fcntl.flock(held, fcntl.LOCK_UN)
        assert cli("destroy", web, "--lock-timeout", "10").status == 0


@pytest.mark.parametrize(("answer", "status"), [("n\n", 130), ("y\n", 0), ("", 130)])
def test_a_person_is_asked_before_something_stops(
    cli: Any, web: Path, vmm: Any, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    assert cli("apply", web).status == 0
    monkeypatch.setattr("devicevm.cli.output.interactive", lambda: True)
    said = cli("destroy", web, stdin=answer)
    assert said.status == status
    assert "Go on? [y/N]" in said.err
    assert names(vmm) == ([] if status == 0 else ["web", "web-dvm"])


def test_nobody_is_asked_about_what_nobody_feels(
    cli: Any, web: Path, vmm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devicevm.cli.output.interactive", lambda: True)
    assert "Go on?" not in cli("apply", web).err
    web.write_text(web.read_text().replace("256MiB", "512MiB"))
    said = cli("apply", web, stdin="n\n")
    assert said.status == 130
    assert "[restarts it; web is away until it has booted]" in said.err
    assert cli("apply", web, "--auto-approve").status == 0


def test_options_reach_the_core(cli: Any, web: Path, vmm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    carry_out = workflow.carry_out

    def spy(plan: Any, driver: Any, host: Any, options: workflow.Options, progress: Any) -> Any:
        seen.append((options.parallel, options.timeout, options.allow_unplaced))
        return carry_out(plan, driver, host, options, progress)

    monkeypatch.setattr("devicevm.cli.carrying.carry_out", spy)
    assert cli("apply", web, "--parallel", "3", "--timeout", "7").status == 0
    assert cli("destroy", web, "--parallel", "2", "--timeout", "5").status == 0
    # A destroy is not held up by what could not be placed.
    assert seen == [(3, 7.0, False), (2, 5.0, True)]


def test_kinds_of_steps_are_counted_once(cli: Any, web: Path, vmm: Any) -> None:
    assert cli("apply", web).status == 0
    web.write_text(web.read_text().replace("256MiB", "512MiB"))
    said = cli("plan", web, "-o", "json")
    assert {step["action"] for step in said.json["steps"]} >= {Action.STOP.value, Action.START.value}
    assert cli("plan", web).out.splitlines()[-1] == "0 to add, 1 to change, 0 to remove."
    assert cli("apply", web).out == "Applied: 1 changed.\n"
