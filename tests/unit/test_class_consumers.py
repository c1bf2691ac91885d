"""Who can have which class (docs/classes.md): what the page allows is accepted, all else is refused with reasons."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
import yaml
from devicevm.manifest.read import check
from stage_collection import REPO

OWN: dict[str, Any] = {"schemas": REPO / "schemas", "classes": REPO / "classes"}
CONSUMERS: dict[str, dict[str, Any]] = {
    "client VM that devicevm makes": {"vm": {"memory": "256MiB", "boot": {"guestImage": "client"}}},
    "existing domain": {"existing": {"domain": "legacy"}},
    "the host": {"host": {}},
    "any domain, by its endpoint": {"vmm": {}},
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "disk": {"size": "1MiB"},
    "serial": {"program": "echo"},
    "usb": {"massStorage": {"size": "1MiB"}},
    "filesystem": {"size": "4MiB"},
    "port": {"command": ["/bin/cat"]},
}


def table() -> dict[tuple[str, str], str]:
    """(class, consumer) -> what the page says of the two."""
    section = (
        (REPO / "docs" / "classes.md").read_text().partition("## Who can have which class\n")[2].partition("\n## ")[0]
    )
    head, rule, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    assert set(rule) == {"---"}
    return {
        (re.sub(r"\[(\w+)\].*", r"\1", row[0]), consumer): cell
        for row in rows
        for consumer, cell in zip(head[1:], row[1:], strict=True)
    }


def test_the_page_has_all_of_them() -> None:
    classes = [path.stem for path in (REPO / "classes").glob("*.yaml")]
    assert set(table()) == {(name, consumer) for name in classes for consumer in CONSUMERS}


@pytest.mark.parametrize("pair", sorted(table()), ids="-".join)
def test_what_the_page_says_is_so(pair: tuple[str, str]) -> None:
    name, consumer = pair
    device = {"name": "it", "class": name, "parameters": PARAMETERS.get(name, {})}
    if consumer == "the host":
        device |= {"tap": {"name": "it0"}} if name == "net" else {"path": "/run/it"}
    spec = {**CONSUMERS[consumer], "devices": [device]}
    document = {"apiVersion": "devicevm/v1", "kind": "Client", "metadata": {"name": "lab"}, "spec": spec}
    problems = check(["-"], **OWN, stdin=io.BytesIO(yaml.safe_dump(document).encode()))
    says_no = re.match(r"no: \w+", table()[pair])
    assert says_no or re.match("yes|as a ", table()[pair])
    assert bool(problems) == bool(says_no)
    for problem in problems:
        assert re.search(
            "the host cannot have a device of class|is for client VMs that devicevm makes", problem.message
        )
        assert problem.hint
