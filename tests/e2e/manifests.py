"""What tests with guests declare: clients, with a shell to use them by, their devices, and device VMs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from stage import Stage, shell_port

Document = dict[str, Any]


def client(
    name: str, *devices: Document, stage: Stage | None = None, image: str = "client", memory: str = "256MiB"
) -> Document:
    """A small client VM that boots an image of devicevm's own; with a stage, it has a shell: NAME.shell there."""
    made = _document("Client", name, vm={"vcpus": 1, "memory": memory, "boot": {"guestImage": image}})
    made["spec"]["devices"] = list(devices)
    return with_shell(made, stage) if stage else made


def with_shell(declared: Document, stage: Stage) -> Document:
    """A client, an example's for instance, with a shell (stage.Shell) at NAME.shell in the stage's folder."""
    declared["spec"]["vm"]["domainXML"] = shell_port(stage.folder / f"{declared['metadata']['name']}.shell")
    return declared


def disk(name: str, size: str = "", frontend: str = "", **parameters: Any) -> Document:
    """A disk of a client's; `parameters` are the class's own besides the size."""
    sized = {"size": size} if size else {}
    made: Document = {"name": name, "class": "disk", "parameters": sized | parameters}
    return made | {"frontend": frontend} if frontend else made


def entropy(name: str = "entropy") -> Document:
    """A random number generator of a client's."""
    return {"name": name, "class": "rng"}


def serial(name: str = "gps", frontend: str = "", **parameters: Any) -> Document:
    """A serial instrument of a client's: a GPS receiver, when nothing else is said."""
    made: Document = {"name": name, "class": "serial", "parameters": parameters or {"program": "nmea"}}
    return made | {"frontend": frontend} if frontend else made


def device_vm(name: str, *classes: str, **spec: Any) -> Document:
    """One device VM for the devices of these classes, of up to 16 clients."""
    share = {"scope": "trustDomain", "maxDevices": 16}
    return _document("DeviceVM", name, serves={"classes": list(classes)}, share=share, **spec)


def write(folder: Path, *documents: Document) -> Path:
    """A manifest of these documents in a stage's folder; the one before it is replaced."""
    path = folder / "topology.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def _document(kind: str, name: str, **spec: Any) -> Document:
    return {"apiVersion": "devicevm/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
