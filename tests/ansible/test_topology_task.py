"""The module `topology` on libvirt's test driver, run by ansible-playbook as users run it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from playing import TOPOLOGY, Played, Player, client, disk, one_task

if TYPE_CHECKING:
    from conftest import TestVmm

# About forty runs of ansible-playbook at 2 s each, and a second for each task.
pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

LOCKED = """
import sys, time
from devicevm.vmm.lock import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


class Task:
    """The `topology` task of one test."""

    def __init__(self, player: Player, vmm: TestVmm) -> None:
        self.player, self.vmm = player, vmm

    def run(self, *arguments: str, ok: bool = True, **options: Any) -> Played:
        return self.player.play(one_task(TOPOLOGY, connect=self.vmm.uri, **options), *arguments, ok=ok)

    def in_turn(self, *runs: dict[str, Any], ok: bool = True) -> list[Played]:
        """The tasks of one play, each with options of its own; with `check`, in check mode. One that fails
        does not end the play, if that is expected."""
        (play,) = one_task(TOPOLOGY)
        play["tasks"] = [
            {"name": TOPOLOGY, TOPOLOGY: {"connect": self.vmm.uri, **run}, "diff": True, "ignore_errors": not ok}
            for run in runs
        ]
        for made in play["tasks"]:
            made["check_mode"] = made[TOPOLOGY].pop("check", False)
        played = self.player.play([play])
        assert len(played.tasks) == len(runs)
        return [replace(played, tasks=[one]) for one in played.tasks]

    def check(self, **options: Any) -> Played:
        before = {name: self.vmm.xml(name) for name in self.vmm.domains()}
        played = self.run("--check", "--diff", **options)
        assert {name: self.vmm.xml(name) for name in self.vmm.domains()} == before, "check mode changed something"
        return played


@pytest.fixture
def task(player: Player, vmm: TestVmm) -> Task:
    return Task(player, vmm)


def check_is_what_a_run_does(task: Task, **options: Any) -> tuple[Played, Played]:
    """Check mode tells what the run then does, and after the run says that nothing is left to do."""
    told, done, *again = task.in_turn({**options, "check": True}, options, {**options, "check": True}, options)
    assert told.steps == done.steps
    assert told.topology["steps"] == [without_outcome(step) for step in done.topology["steps"]]
    assert told.topology["diff"] == done.topology["diff"]
    assert told.topology["changed"] == done.topology["changed"]
    assert done.topology.get("done", []) == [step["id"] for step in in_order_of(done)]
    for after in again:
        assert after.topology["steps"] == []
        assert not after.changed
        assert after.topology["diff"]["before"] == after.topology["diff"]["after"] == ""
    return told, done


def without_outcome(step: dict[str, Any]) -> dict[str, Any]:
    assert step["result"] == "done"
    return {key: value for key, value in step.items() if key not in ("result", "seconds")}


def in_order_of(done: Played) -> list[dict[str, Any]]:
    order = done.topology.get("done", [])
    return sorted(done.topology["steps"], key=lambda step: order.index(step["id"]))


def test_present_then_absent(task: Task) -> None:
    wanted = [client("web")]
    told, done = check_is_what_a_run_does(task, manifests=wanted)
    assert told.changed == done.changed == 1
    assert "define/client/web" in done.steps
    assert task.vmm.domains()["web"]
    assert len(task.vmm.domains()) == 2
    assert "+client web:" in told.output
    assert "+  state: running" in told.output
    assert "start/client/web: it is declared to run" in told.output

    told, done = check_is_what_a_run_does(task, manifests=wanted, state="absent")
    assert task.vmm.domains() == {}
    assert "-client web:" in told.output
    assert "+" not in told.topology["diff"]["after"]


def test_a_change_is_shown_before_and_after(task: Task) -> None:
    _, first = check_is_what_a_run_does(task, manifests=[client("web")])
    told, _ = check_is_what_a_run_does(task, manifests=[client("web", disk("data"), disk("more"))])
    (web,) = [line for line in told.output.splitlines() if line.startswith("+") and "more" in line and "name" in line][
        :1
    ]
    assert web == "+      name: more"
    assert "stop/client/web" in told.steps
    restarts = [step for step in told.topology["steps"] if step["effect"] == "restart"]
    assert restarts
    assert all(step["affects"] == ["web"] for step in restarts if step["kind"] == "client")
    assert first.topology["diff"]["after"] == told.topology["diff"]["before"]


def test_drift_is_repaired(task: Task) -> None:
    check_is_what_a_run_does(task, manifests=[client("web")])
    tree = task.vmm.xml("web").replace(">131072</memory>", ">262144</memory>").replace(">131072</cur", ">262144</cur")
    task.vmm.connection.defineXML(tree)
    told, _ = check_is_what_a_run_does(task, manifests=[client("web")])
    assert told.topology["changed"]
    assert "drift" in told.topology["diff"]["before"]
    assert "drift" not in told.topology["diff"]["after"]


def test_manifests_in_files_and_folders(task: Task, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all/web.yaml").write_text(yaml.safe_dump(client("web")))
    (tmp_path / "db.yaml").write_text(yaml.safe_dump(client("db")))
    task.run(src=["all", str(tmp_path / "db.yaml")])
    assert {"web", "db"} <= set(task.vmm.domains())


def test_prune_is_asked_for(task: Task) -> None:
    task.run(manifests=[client("web"), client("db")])
    assert not task.run(manifests=[client("web")]).changed
    told, _ = check_is_what_a_run_does(task, manifests=[client("web")], prune=True)
    assert "undefine/client/db" in told.steps
    assert {"db", "web"} & set(task.vmm.domains()) == {"web"}
    check_is_what_a_run_does(task, state="absent", prune=True)
    assert task.vmm.domains() == {}


def test_rebalancing_is_asked_for_and_told(task: Task) -> None:
    task.run(manifests=[client("web")])
    assert "rebalance" not in task.check(manifests=[client("web")]).topology["plan"]
    told, _ = check_is_what_a_run_does(task, manifests=[client("web")], rebalance=True, upgrade=True)
    kept = "web-dvm stays: web/data has no store, and what is on it would be lost"
    assert told.topology["plan"]["rebalance"] == {"held": [kept]}, "nothing is gained, and nothing done"


def test_data_goes_only_when_told(task: Task, tmp_path: Path) -> None:
    kept = disk("kept", store={"file": str(tmp_path / "kept.img"), "reclaim": "retain"})
    wanted = [client("web", disk("data", store={"file": str(tmp_path / "data.img")}), kept)]
    task.run(manifests=wanted)
    assert not [step for step in task.check(manifests=wanted, state="absent").steps if "/store/" in step]
    told, done = check_is_what_a_run_does(task, manifests=wanted, state="absent", delete_data=True)
    assert [step for step in done.steps if "/store/" in step] == ["delete/store/web/data"]
    assert f"-  path: {tmp_path}/data.img" in told.output
    assert "store web/data" not in told.topology["diff"]["after"]


def test_nothing_of_others_is_touched(task: Task) -> None:
    task.run(manifests=[client("web")], owner="lab")
    foreign = task.vmm.define("stranger")
    lab = {name: task.vmm.xml(name) for name in task.vmm.domains()}
    task.in_turn({"manifests": [client("db")], "prune": True}, {"state": "absent", "prune": True})
    assert {name: task.vmm.xml(name) for name in task.vmm.domains()} == lab
    for name in ("stranger", "web"):
        failed = task.run(manifests=[client(name)], ok=False)
        assert failed.status == 2
        assert "a domain of this name is there already" in failed.topology["msg"]
        assert not failed.topology["changed"]
        assert not task.run(manifests=[client(name)], state="absent").changed
    assert task.vmm.xml("stranger") == foreign
    assert {name: task.vmm.xml(name) for name in task.vmm.domains()} == lab


def test_an_existing_domain_is_given_devices_and_loses_them(task: Task) -> None:
    theirs = task.vmm.connection.defineXML(
        "<domain type='test'><name>ledger-db</name><memory>32768</memory><os><type>hvm</type></os>"
        "<devices><disk type='file'><source file='/x'/><target dev='vda'/></disk></devices></domain>"
    )
    before = theirs.XMLDesc(2)
    wanted = [client("ledger", disk("log"))]
    wanted[0]["spec"]["existing"] = {"domain": "ledger-db"}
    del wanted[0]["spec"]["vm"]
    told, _ = check_is_what_a_run_does(task, manifests=wanted)
    assert "attach/client/ledger" in told.steps
    assert "+client ledger:" in told.output
    told, _ = check_is_what_a_run_does(task, manifests=wanted, state="absent")
    assert "detach/client/ledger" in told.steps
    assert "-client ledger:" in told.output
    assert list(task.vmm.domains()) == ["ledger-db"]
    assert theirs.XMLDesc(2) == before


@pytest.mark.parametrize("mode", [[], ["--check"]])
def test_what_cannot_be_placed_fails_with_reasons(task: Task, mode: list[str]) -> None:
    wanted = [client("web"), client("huge", memory="900GiB")]
    failed = task.run(*mode, manifests=wanted, ok=False)
    assert failed.status == 2
    assert not failed.topology["changed"]
    assert "huge" in failed.topology["msg"]
    assert "900GiB asked" in failed.topology["msg"]
    assert {item["client"] for item in failed.topology["unplaced"]} == {"huge"}
    assert "allow_unplaced" in failed.topology["msg"]
    assert "--allow-unplaced" not in failed.topology["msg"]
    assert task.vmm.domains() == {}


def test_the_rest_is_done_when_asked(task: Task) -> None:
    told, done = check_is_what_a_run_does(
        task, manifests=[client("web"), client("huge", memory="900GiB")], allow_unplaced=True
    )
    assert any("900GiB asked" in warning for warning in done.topology["warnings"])
    assert "not placed: huge" in told.output
    assert "web" in task.vmm.domains()


def test_bad_manifest_names_every_place(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        yaml.safe_dump(client("web"), sort_keys=False).replace("class: rng", "class: rgn") + "  colour: red\n"
    )
    failed = task.run(src=str(path), ok=False)
    assert failed.status == 2
    problems = failed.topology["problems"]
    assert {item["path"] for item in problems} >= {"spec.devices[1].class", "spec.colour"}
    lines = path.read_text().splitlines()
    for item in problems:
        assert item["source"] == str(path)
        assert item["path"].rpartition(".")[2] in lines[item["line"] - 1]
        assert f"{path}:{item['line']}:{item['column']}: {item['path']}: {item['message']}" in failed.topology["msg"]
    assert task.vmm.domains() == {}


def test_bad_inline_manifest_names_its_place(task: Task) -> None:
    relative = client("db", boot={"kernel": "vmlinuz"})
    failed = task.run(manifests=[client("web"), relative], ok=False)
    (problem,) = failed.topology["problems"]
    assert (problem["source"], problem["path"]) == ("documents[1]", "spec.vm.boot.kernel")
    task.run("--check", manifests=[relative], base="/boot")
    assert "base" in task.run(manifests=[relative], base="boot", ok=False).topology["msg"]


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "src, manifests"),
    ({"state": "absent"}, "src, manifests"),
    ({"src": "a.yaml", "manifests": []}, "mutually exclusive"),
    ({"src": "nowhere.yaml"}, "nowhere.yaml cannot be found"),
    ({"src": "nowhere.yaml", "colour": "red"}, "colour"),
    ({"topology": {}, "state": "absent", "prune": True}, "module: topology. Supported parameters include"),
    ({"manifests": [{"kind": "Client"}]}, "apiVersion"),
    ({"manifests": [client("web")], "timeout": "nan"}, "timeout is nan, which is no time to wait"),
    ({"manifests": [client("web")], "timeout": 0.5}, "timeout is 0.5"),
    ({"manifests": [client("web")], "lock_timeout": "inf"}, "lock_timeout is inf"),
    ({"manifests": [client("web")], "owner": "my lab"}, "'my lab' is no owner's name"),
)


def test_wrong_use_is_said(task: Task) -> None:
    tried = task.in_turn(*(options for options, _words in WRONG), ok=False)
    for failed, (_options, words) in zip(tried, WRONG, strict=True):
        assert failed.tasks[0]["status"] == "failed"
        assert words in failed.topology["msg"]
    assert "Traceback" not in tried[0].output
    assert task.vmm.domains() == {}


def test_failure_tells_the_step_and_what_was_undone(task: Task) -> None:
    volume = {"store": {"volume": {"pool": "nowhere", "name": "data"}}}
    failed = task.run(manifests=[client("web"), client("db", disk("data", **volume))], ok=False)
    assert failed.status == 2
    result = failed.topology
    assert result["failed_steps"]
    assert f"{result['failed_steps'][0]}: " in result["msg"]
    assert "nowhere" in result["msg"]
    became = {step["id"]: step["result"] for step in result["steps"]}
    assert became["start/client/web"] == "done"
    assert became["start/client/db"] == "skipped"
    assert {"web"} == {"web", "db"} & set(task.vmm.domains())
    assert result["changed"]


def test_lock_is_waited_for(task: Task) -> None:
    with subprocess.Popen([sys.executable, "-c", LOCKED, task.vmm.uri], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            failed = task.run(manifests=[client("web")], lock_timeout=0.1, ok=False)
            told = task.check(manifests=[client("web")], lock_timeout=0.1)
        finally:
            other.kill()
    assert f"process {other.pid}" in failed.topology["msg"]
    assert "lock_timeout" in failed.topology["msg"]
    assert told.topology["changed"]


def test_runs_in_the_background(task: Task) -> None:
    book = one_task(TOPOLOGY, connect=task.vmm.uri, manifests=[client("web")])
    book[0]["tasks"][0] |= {"async": 60, "poll": 1}
    task.player.play(book)
    assert task.vmm.domains()["web"]


def test_module_defaults(task: Task) -> None:
    book = one_task(TOPOLOGY, manifests=[client("web")])
    book[0]["module_defaults"] = {"group/devicevm.vmm.vmm": {"connect": task.vmm.uri}}
    task.player.play(book)
    assert task.vmm.domains()["web"]


def test_manifests_from_a_template(task: Task, tmp_path: Path) -> None:
    text = (
        "{% for name in names %}---\n" + yaml.safe_dump(client("NAME")).replace("NAME", "{{ name }}") + "{% endfor %}"
    )
    (tmp_path / "clients.yaml.j2").write_text(text)
    book = one_task(
        TOPOLOGY,
        connect=task.vmm.uri,
        manifests="{{ lookup('ansible.builtin.template', 'clients.yaml.j2') | from_yaml_all | list }}",
    )
    book[0]["vars"] = {"names": ["one", "two"]}
    task.player.play(book)
    assert {"one", "two"} <= set(task.vmm.domains())


def test_controller_without_jsonschema_is_told(task: Task, tmp_path: Path) -> None:
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking/jsonschema.py").write_text("raise ImportError('not here')\n")
    task.player.environment["PYTHONPATH"] = str(tmp_path / "lacking")
    failed = task.run(manifests=[client("web")], ok=False)
    assert "checking manifests needs jsonschema" in failed.topology["msg"]


def test_inventory_is_the_core_s(task: Task) -> None:
    from devicevm.inventory.host import Host
    from devicevm.record import from_data

    played = task.player.play(one_task("devicevm.vmm.host_info", connect=task.vmm.uri), "--check")
    (result,) = [item["result"] for item in played.tasks]
    host = from_data(Host, result["host"])
    assert not result["changed"]
    assert len(host.cpus) == 16
    assert host.vmm.uri == task.vmm.uri
