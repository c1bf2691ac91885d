"""Real `ansible-playbook` runs, with what each task returned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

BIN = Path(sys.executable).parent
HERE = Path(__file__).resolve().parent
TARGET = "localhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3"
TOPOLOGY = "devicevm.vmm.topology"


@dataclass(frozen=True)
class Played:
    """One run: what was printed, and every task's result in order."""

    status: int
    output: str
    tasks: list[dict[str, Any]]

    @property
    def topology(self) -> dict[str, Any]:
        """The result of the run's one `topology` task."""
        (task,) = [task for task in self.tasks if task["action"] == TOPOLOGY]
        return task["result"]

    @property
    def steps(self) -> list[str]:
        """The ids of the steps that the `topology` task tells of."""
        return [step["id"] for step in self.topology["steps"]]

    @property
    def changed(self) -> int:
        """How many tasks changed something, as Ansible counts."""
        return sum(bool(task["result"].get("changed")) for task in self.tasks)


@dataclass
class Player:
    """Runs playbooks with the installed collection, in a folder of its own."""

    collections: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    target: str = TARGET
    runs: int = 0

    def play(self, book: Path | list[dict[str, Any]], *arguments: str, ok: bool = True, timeout: float = 240) -> Played:
        """Run a playbook; unless `ok` is False, its failure is the test's."""
        self.runs += 1
        if not isinstance(book, Path):
            path = self.folder / "play.yml"
            path.write_text(yaml.safe_dump(book))
            book = path
        inventory, record = self.folder / "inventory", self.folder / f"results-{self.runs}"
        inventory.write_text(self.target + "\n")
        record.touch()
        done = subprocess.run(
            [str(BIN / "ansible-playbook"), "-i", str(inventory), str(book), *arguments],
            env=self._environment(record),
            cwd=self.folder,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
        )
        if ok:
            assert done.returncode == 0, done.stdout
        return Played(done.returncode, done.stdout, [json.loads(line) for line in record.read_text().splitlines()])

    def _environment(self, record: Path) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "LIBVIRT_"))}
        return {
            **kept,
            "LC_ALL": "C.UTF-8",
            "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "home/tmp"),
            "ANSIBLE_REMOTE_TMP": str(self.folder / "home/remote"),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "recorder",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "RECORDER_FILE": str(record),
            **self.environment,
        }


def one_task(module: str, **arguments: Any) -> list[dict[str, Any]]:
    """A playbook of one task."""
    return [{"hosts": "all", "gather_facts": False, "tasks": [{"name": module, module: arguments}]}]


def client(name: str, *devices: dict[str, Any], **vm: Any) -> dict[str, Any]:
    """A Client document; without devices it has a disk and a random number generator."""
    given = list(devices) or [disk("data"), {"name": "entropy", "class": "rng"}]
    machine = {"memory": "128MiB", "boot": {"guestImage": "client"}, **vm}
    return {
        "apiVersion": "devicevm/v1",
        "kind": "Client",
        "metadata": {"name": name},
        "spec": {"vm": machine, "devices": given},
    }


def disk(name: str, size: str = "8MiB", **parameters: Any) -> dict[str, Any]:
    """A disk of a client."""
    return {"name": name, "class": "disk", "parameters": {"size": size, **parameters}}
