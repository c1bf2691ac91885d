"""The role `provision` and the playbook of the examples, on libvirt's test driver."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playing import BIN, Player, client
from stage_collection import REPO

if TYPE_CHECKING:
    from conftest import TestVmm

pytestmark = pytest.mark.slow

EXAMPLE = REPO / "examples/ansible"
ROLE = [{"hosts": "all", "gather_facts": False, "roles": ["devicevm.vmm.provision"]}]


def variables(**given: Any) -> tuple[str, str]:
    """Role variables as arguments of ansible-playbook."""
    return "-e", json.dumps({f"provision_{name}": value for name, value in given.items()})


@pytest.mark.libvirt
def test_converge_verify_converge_verify_destroy(player: Player, vmm: TestVmm) -> None:
    wanted = variables(connect=vmm.uri, manifests=[client("web")])
    told = player.play(ROLE, *wanted, "--check", "--diff")
    assert vmm.domains() == {}

    first = player.play(ROLE, *wanted)
    assert first.changed == 1
    assert told.steps == first.steps
    assert vmm.domains()["web"]
    made = {name: vmm.xml(name) for name in vmm.domains()}

    assert player.play(ROLE, *wanted).changed == 0
    assert {name: vmm.xml(name) for name in vmm.domains()} == made

    gone = variables(connect=vmm.uri, manifests=[client("web")], state="absent")
    told = player.play(ROLE, *gone, "--check")
    removed = player.play(ROLE, *gone)
    assert told.steps == removed.steps
    assert vmm.domains() == {}
    assert player.play(ROLE, *gone).changed == 0


@pytest.mark.libvirt
def test_example_playbook(player: Player, vmm: TestVmm) -> None:
    book, here = EXAMPLE / "provision.yml", variables(connect=vmm.uri)
    told = player.play(book, *here, "--check", "--diff", "-i", str(EXAMPLE / "inventory.ini"))
    first = player.play(book, *here, "-i", str(EXAMPLE / "inventory.ini"))
    assert told.steps == first.steps
    assert vmm.domains() == {"gadgets": True, "shop": True, "tracker": True}
    assert player.play(book, *here, "-i", str(EXAMPLE / "inventory.ini")).changed == 0
    player.play(book, *variables(connect=vmm.uri, state="absent"), "-i", str(EXAMPLE / "inventory.ini"))
    assert vmm.domains() == {}


def test_preflight_says_what_to_install(player: Player, tmp_path: Path) -> None:
    """A Python without libvirt's binding."""
    if not shutil.which("python3", path="/usr/bin"):
        pytest.skip("there is no system Python")
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    player.target = f"localhost ansible_connection=local ansible_python_interpreter={tmp_path}/bare/bin/python"
    failed = player.play(ROLE, *variables(manifests=[client("web")], connect="test:///default"), ok=False)
    assert failed.status == 2
    assert "apt install python3-libvirt" in failed.tasks[-1]["result"]["msg"]
    assert failed.tasks[-1]["action"] == "devicevm.vmm.host_info"


@pytest.mark.libvirt
def test_preflight_says_when_the_vmm_does_not_answer(player: Player) -> None:
    uri = "test+unix:///default?socket=/nonexistent/libvirt-sock"
    failed = player.play(ROLE, *variables(manifests=[client("web")], connect=uri), ok=False)
    assert "cannot connect to test+unix:///default" in failed.tasks[-1]["result"]["msg"]


@pytest.mark.parametrize(
    ("images", "state", "missing"),
    [([], "present", True), (["base"], "present", False), ([], "absent", False)],
)
def test_preflight_says_which_image_to_build(
    player: Player, tmp_path: Path, images: list[str], state: str, missing: bool
) -> None:
    """The role's own task on an inventory of a host that runs guests."""
    inventory = {"host": {"vmm": {"supports": ["guests"]}, "images": [{"name": name} for name in images]}}
    tasks = (player.collections / "ansible_collections/devicevm/vmm/roles/provision/tasks/preflight.yml").read_text()
    (tmp_path / "assert.yml").write_text("---\n" + tasks[tasks.index("- name: Find the device VM images") :])
    given = {"provision_images": ["base"], "provision_state": state, "provision_inventory": inventory}
    book = [{"hosts": "all", "gather_facts": False, "tasks": [{"import_tasks": "assert.yml"}], "vars": given}]
    played = player.play(book, ok=False)
    assert bool(played.status) == missing
    assert ("devicevm image build base" in played.output) == missing


def test_wrong_variables_are_refused(player: Player) -> None:
    failed = player.play(ROLE, *variables(state="gone"), ok=False)
    assert "value of provision_state must be one of: present, absent, got: gone" in failed.output


def test_argument_specs_are_the_defaults_and_the_documentation(player: Player) -> None:
    import yaml

    role = player.collections / "ansible_collections/devicevm/vmm/roles/provision"
    options = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    said = {name: option["default"] for name, option in options.items() if "default" in option}
    assert said == yaml.safe_load((role / "defaults/main.yml").read_text())
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(player.collections), "HOME": str(player.folder)}
    command = [str(BIN / "ansible-doc"), "-t", "role", "devicevm.vmm.provision"]
    text = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert not [name for name in options if name not in text]
