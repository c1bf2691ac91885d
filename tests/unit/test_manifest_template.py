"""Command templates, and the commands of the built-in classes as they come out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from devicevm.errors import DevicevmError
from devicevm.manifest.read import topology_from_documents
from devicevm.manifest.template import expand, is_name, names_in, template_values
from devicevm.manifest.topology import Device, Store

REPO = Path(__file__).resolve().parents[2]
OWN: dict[str, Any] = {"schemas": REPO / "schemas", "classes": REPO / "classes"}
VALUES = {
    "text": "a b",
    "number": 3,
    "ratio": 0.5,
    "yes": True,
    "no": False,
    "none": None,
    "zero": 0,
    "empty": [],
    "list": ["x", 1, "${text}"],
    "map": {"key": "v", "size": "1Ki"},
}


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["a", "${text}"], ["a", "a b"]),
        (["-n${number}/${ratio}/${yes}/${no}"], ["-n3/0.5/true/false"]),
        (["${map.key}", "${map.size:bytes}"], ["v", "1024"]),
        (["${list}", "${empty}", "z"], ["x", "1", "${text}", "z"]),
        (["$${text}", "$$", "$text", "a$${", "{}"], ["${text}", "$$", "$text", "a${", "{}"]),
        ([{"if": "text", "then": "t", "else": "e"}], ["t"]),
        ([{"if": "no", "then": ["t"], "else": ["e", "f"]}], ["e", "f"]),
        ([{"if": "none", "then": "t"}, {"if": "gone", "then": "t"}, {"if": "map.gone", "then": "t"}], []),
        ([{"if": "zero", "then": "0"}, {"if": "map.key", "then": "k"}], ["0", "k"]),
        ([{"if": "number", "equals": 3, "then": "3"}, {"if": "yes", "equals": 1, "then": "1"}], ["3"]),
        ([{"if": "text", "then": [{"if": "yes", "then": "${list}"}]}], ["x", "1", "${text}"]),
        ([{"if": "gone", "then": ["${gone}"]}], []),
    ],
)
def test_expand(command: list[Any], arguments: list[str]) -> None:
    assert expand(command, VALUES) == tuple(arguments)


@pytest.mark.parametrize(
    "item",
    ["${gone}", "${none}", "${map}", "x${list}", "${", "a${text", "${a b}", "${}", "${text:bytes}", "${text:other}"],
)
def test_expand_refuses(item: str) -> None:
    with pytest.raises(DevicevmError):
        expand([item], VALUES)


def test_names() -> None:
    command = ["${a}", {"if": "b", "then": "${c}", "else": ["$${no}", "${d.e:bytes}${f"]}, "${g h}"]
    found = list(names_in(command))
    assert found == [
        ((0,), "a"), ((1, "if"), "b"), ((1, "then"), "c"),
        ((1, "else", 1), "d.e"), ((1, "else", 1), "${f"), ((2,), "${g h}"),
    ]  # fmt: skip
    assert [is_name(name) for _, name in found] == [True, True, True, True, False, False]


def test_values_of_a_device() -> None:
    assert template_values(Device("d", "c", {"a": 1})) == {"a": 1, "device": "d"}
    assert template_values(Device("d", "c", memory=512))["sizeBytes"] == 512
    stored = Device("d", "c", store=Store("file", 1024, "/x"))
    assert template_values(stored, "s1") == {"device": "d", "sizeBytes": 1024, "backing": "/dev/backing/s1"}


def command_of(class_: str, parameters: dict[str, Any], serial: str = "s1") -> tuple[tuple[str, ...], str]:
    document = {
        "apiVersion": "devicevm/v1",
        "kind": "Client",
        "metadata": {"name": "web"},
        "spec": {
            "vm": {"memory": "64MiB", "boot": {"guestImage": "client"}},
            "devices": [{"name": "d", "class": class_, "parameters": parameters}],
        },
    }
    topology = topology_from_documents([document], **OWN)
    (device,), (found,) = topology.clients[0].devices, topology.classes
    values = template_values(device, serial)
    (ready,) = expand((found.program.ready,), values)
    return expand(found.program.command, values), ready


GADGET = ("/usr/lib/devicevm/usb-gadget", "device", "0x1d6b", "0x0104", "devicevm", "USB device")
NBDKIT = ("nbdkit", "--single", "--foreground")


@pytest.mark.parametrize(
    ("class_", "parameters", "command", "ready"),
    [
        ("disk", {"size": "1MiB"}, (*NBDKIT, "--threads=1", "file", "/dev/backing/s1"), "nbd"),
        (
            "disk",
            {"size": "1MiB", "store": {"file": "/x"}},
            (*NBDKIT, "--filter=fua", "file", "/dev/backing/s1", "fuamode=force"),
            "nbd",
        ),
        ("disk", {"store": {"block": "/dev/x"}, "sync": "flush"}, (*NBDKIT, "file", "/dev/backing/s1"), "nbd"),
        (
            "disk",
            {"store": {"block": "/dev/x"}, "readOnly": True},
            (*NBDKIT, "--readonly", "--filter=fua", "file", "/dev/backing/s1", "fuamode=force"),
            "nbd",
        ),
        ("rng", {}, ("/usr/lib/devicevm/egd",), "egd"),
        (
            "usb",
            {"massStorage": {"size": "1MiB"}, "serial": {"program": "nmea", "interval": 500}, "serialNumber": "7"},
            (
                *GADGET,
                "7",
                *("--storage", "/dev/backing/s1", "false", "true", "false"),
                *("--serial", "/usr/lib/devicevm/nmea", "-i", "500"),
            ),
            "usbredir",
        ),
        (
            "usb",
            {
                "keyboard": {"text": "a b"},
                "hid": {"descriptor": "05", "reportLength": 2, "reports": ["01", "0203"]},
                "serial": {"command": ["cat", "-u"]},
            },
            (
                *(*GADGET, "d", "--keyboard", "0", "a b"),
                *("--hid", "05", "2", "1000", "01", "0203", "--serial", "cat", "-u"),
            ),
            "usbredir",
        ),
        (
            "usb",
            {"hostDevice": {"vendor": "0951", "product": "1666"}},
            (GADGET[0], "host", "0951:1666"),
            "usbredir",
        ),
        ("serial", {"program": "echo"}, ("/usr/lib/devicevm/echo",), "bytes"),
        (
            "serial",
            {"program": "nmea", "interval": 500, "position": "-1.5,2"},
            ("/usr/lib/devicevm/nmea", "-i", "500", "-p", "-1.5,2"),
            "nmea",
        ),
        ("serial", {"command": ["/bin/sh", "-c", "echo ${x}"]}, ("/bin/sh", "-c", "echo ${x}"), "bytes"),
    ],
)
def test_built_in_classes(class_: str, parameters: dict[str, Any], command: tuple[str, ...], ready: str) -> None:
    assert command_of(class_, parameters) == (command, ready)


@pytest.mark.skipif(not shutil.which("nbdkit"), reason="nbdkit is not installed")
@pytest.mark.parametrize("store", [{}, {"sync": "always"}, {"sync": "flush"}, {"readOnly": True}])
def test_nbdkit_takes_the_commands(store: dict[str, Any], tmp_path: Path) -> None:
    """nbdkit greets whoever is on its standard input and output, as a device VM's port will be."""
    parameters = {"size": "1MiB", **store, **({"store": {"file": "/x"}} if store else {})}
    command, _ = command_of("disk", parameters)
    backing = tmp_path / "backing"
    backing.write_bytes(bytes(2**20))
    real = [str(backing) if word == "/dev/backing/s1" else word for word in command]
    done = subprocess.run(real, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    assert done.stdout.startswith(b"NBDMAGICIHAVEOPT"), done.stderr
