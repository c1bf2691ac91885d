"""plan, explain and render: what would be done, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from devicevm.planner.plan import Plan
from devicevm.record import from_data

BIG = """
apiVersion: devicevm/v1
kind: Client
metadata: {name: big}
spec:
  vm: {memory: 1024GiB, boot: {guestImage: client}}
  devices: [{name: data, class: disk, parameters: {size: 64MiB}}]
"""


def test_plan_shows_the_phases_in_their_order(cli: Any, web: Path, recorded: Path) -> None:
    said = cli("plan", web, "--inventory", recorded)
    places = [said.out.index(word) for word in ("Determine", "Request", "Configure", "Connect", "2 to add")]
    assert said.status == 0
    assert places == sorted(places)
    assert "web-dvm on lab1: thread, CPUs 0" in said.out
    assert "serves web/data, web/entropy" in said.out
    assert "+ start client web" in said.out


def test_plan_is_a_document(cli: Any, web: Path, recorded: Path, tmp_path: Path) -> None:
    said = cli("plan", web, "--inventory", recorded, "-o", "json", "--out", tmp_path / "plan.json")
    document = said.json
    assert list(document)[:2] == ["apiVersion", "kind"]
    assert document["kind"] == "Plan"
    assert json.loads((tmp_path / "plan.json").read_text()) == document
    assert from_data(Plan, document).changes == 4
    assert "devicevm apply" in said.err


def test_plan_is_the_same_byte_for_byte(cli: Any, web: Path, recorded: Path) -> None:
    assert len({cli("plan", web, "--inventory", recorded, "-o", "json").out for _ in range(2)}) == 1


def test_detailed_exitcode(cli: Any, web: Path, vmm: Any) -> None:
    assert cli("plan", web).status == 0
    assert cli("plan", web, "--detailed-exitcode").status == 2
    assert cli("apply", web).status == 0
    said = cli("plan", web, "--detailed-exitcode")
    assert (said.status, said.out.splitlines()[-1]) == (0, "No changes.")


def test_detailed_exitcode_of_an_error_is_1(cli: Any, tmp_path: Path) -> None:
    assert cli("plan", tmp_path / "missing.yaml", "--detailed-exitcode").status == 1


def test_prune_removes_what_is_not_declared(cli: Any, web: Path, vmm: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(web.read_text().replace("name: web", "name: shop"))
    assert cli("apply", web).status == 0
    assert "undefine" not in cli("plan", other).out
    said = cli("plan", other, "--prune")
    assert "- undefine client web" in said.out
    assert "[it stops running]" in said.out
    assert "2 to add, 0 to change, 2 to remove." in said.out


def test_owners_do_not_meet(cli: Any, web: Path, vmm: Any) -> None:
    assert cli("apply", web, "--owner", "lab").status == 0
    said = cli("plan", web, "--owner", "other")
    assert "a domain of this name is there already and is owner lab's" in said.out
    assert "No changes. 1 cannot be placed." in said.out


def test_unplaced_is_told_with_reasons_and_is_no_error(cli: Any, recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text(BIG)
    said = cli("plan", path, "--inventory", recorded)
    assert said.status == 0
    assert "Not placed" in said.out
    assert "1TiB asked" in said.out
    assert cli("plan", path, "--inventory", recorded, "--detailed-exitcode").status == 2


def test_several_hosts_offline(cli: Any, web: Path, recorded: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.json"
    second.write_text(recorded.read_text().replace('"lab1"', '"lab0"'))
    assert "web-dvm on lab0" in cli("plan", web, "--inventory", recorded, "--inventory", second).out
    said = cli("plan", web, "--inventory", recorded, "--inventory", recorded)
    assert said.status == 1
    assert "there is a host 'lab1' already" in said.err


def test_inventory_that_is_none(cli: Any, web: Path, tmp_path: Path) -> None:
    unsound = '{"name": "a b", "arch": "x86_64", "memory": -1, "vmm": {"uri": "", "driver": "QEMU"}}'
    for text, word in (
        ("[", "no JSON"),
        ('{"name": "a", "cpu": 1}', "unknown key cpu"),
        ("\xff", "lab1"),
        ("[]", "lab1.json: no host is in it"),
        (unsound, "lab1.json: memory: 0 or more expected, -1 found"),
    ):
        path = tmp_path / "lab1.json"
        path.write_text(text)
        said = cli("plan", web, "--inventory", path)
        assert said.status == 1
        assert word in said.err
        assert "Traceback" not in said.err


def test_explain(cli: Any, web: Path, recorded: Path) -> None:
    said = cli("explain", web, "web/data", "--inventory", recorded)
    assert said.status == 0
    assert "web/data (disk) is emulated by device VM web-dvm on host lab1" in said.out
    assert "it also serves: web/entropy" in said.out
    assert "why: 1 thread" in said.out


def test_explain_tells_what_would_be_chosen_anew(cli: Any, web: Path, vmm: Any) -> None:
    assert cli("apply", web, "--owner", "lab").status == 0
    said = cli("explain", web, "web/data", "--owner", "lab")
    assert "it runs there already" in said.out
    assert "if it were placed anew: 1 thread" in said.out
    document = cli("explain", web, "web/data", "--owner", "lab", "-o", "json").json
    assert document["placed"]
    assert document["allocation"]["deviceVm"] == "web-dvm"
    assert document["reasonsIfPlacedAnew"]


def test_explain_what_cannot_be_placed(cli: Any, recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text(BIG)
    said = cli("explain", path, "big/data", "--inventory", recorded)
    assert said.status == 1
    assert "big/data (disk) cannot be placed" in said.out
    assert "1TiB asked" in said.out


def test_explain_names_the_devices_there_are(cli: Any, web: Path) -> None:
    said = cli("explain", web, "web/other")
    assert said.status == 1
    assert "declared are: web/data, web/entropy" in said.err
    assert cli("explain", web).status == 2


def test_render_shows_what_is_and_what_will_be(cli: Any, web: Path, vmm: Any) -> None:
    before = cli("render", web)
    assert "<!-- device-vm web-dvm -->" in before.out
    assert "<!-- client web -->" in before.out
    assert cli("apply", web).status == 0
    assert cli("render", web).out == before.out


def test_render_one_domain_is_xml(cli: Any, web: Path, vmm: Any) -> None:
    said = cli("render", web, "--domain", "web")
    assert said.out.startswith("<domain")
    assert "<!--" not in said.out
    (item,) = cli("render", web, "--domain", "web", "-o", "json").json
    assert (item["name"], item["role"], item["xml"].strip()) == ("web", "client", said.out.strip())
    said = cli("render", web, "--domain", "nobody", "--owner", "lab")
    assert said.status == 1
    assert "there would be: web-dvm, web" in said.err
