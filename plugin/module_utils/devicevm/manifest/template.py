"""Command templates: how a device's parameters become its program's command line (docs/classes.md).

An item is a string with `${name}`, `${name.key}` or `${name:bytes}` in it (`$${` stands for `${`), or a
condition `{"if": name, "equals": value, "then": [...], "else": [...]}`, of one name or of any in a list. An item
that is nothing but `${name}` of a list becomes all of the list's items. No shell ever sees the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import DevicevmError
from ..quantity import parse_bytes
from ..record import digest
from .document import Place
from .topology import Device

BACKING_DIR = "/dev/backing"
"""Where a device VM finds its backing disks, by serial number."""

SECRET_DIR = "/run/secrets"  # noqa: S105 - a folder
"""Where a device VM finds what its emulators alone may know, by name."""

OWN_NAMES = ("backing", "baseDisk", "device", "link", "region", "sizeBytes")
"""What every template can use besides the parameters of its class."""

LINK_NAMES = ("port", "mac", "client", "name")
"""The keys of `link`."""

SERVICE_NAMES = ("deviceVM", "region", "uplink")
"""The same of a template that is for a device VM, and not for one device."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*)(:bytes)?", re.ASCII)
_MISSING = object()


def template_values(
    device: Device, serial: str = "", link: Mapping[str, str] | None = None, region: str = ""
) -> dict[str, Any]:
    """What the template of a device's class can refer to.

    The device's parameters, `device` (its name), `sizeBytes` (of a disk, when it was given) and, with the
    `serial` number of its backing disk, `backing`: that disk's path in the device VM; `link` of a device that has one,
    and `region`: where its memory is in the device VM.
    `baseDisk` is the path of what it is a copy of. A parameter that names a secret is the path of the secret there.
    """
    values = dict(device.parameters, device=device.name)
    if link:
        values["link"] = dict(link)
    if region:
        values["region"] = region
    for name in device.secrets:
        _replace(values, name.split("."), f"{SECRET_DIR}/{secret_name(serial, name)}")
    size = device.store.size if device.store else device.memory
    if size:
        values["sizeBytes"] = size
    if serial:
        values["backing"] = f"{BACKING_DIR}/{serial}"
    if device.base:
        values["baseDisk"] = f"{BACKING_DIR}/{base_serial(serial)}"
    return values


def service_values(
    parameters: Mapping[str, Any], device_vm: str, mac: str, uplink_mac: str = "", region: str = ""
) -> dict[str, Any]:
    """What the template of a class's service can refer to: the device VM's parameters for the class, `deviceVM`
    (its name, and a hardware address of its own), `uplink`, when it has one, and the `region` of the class."""
    values = dict(parameters, deviceVM={"name": device_vm, "mac": mac})
    if uplink_mac:
        values["uplink"] = {"mac": uplink_mac}
    if region:
        values["region"] = region
    return values


def base_serial(serial: str) -> str:
    """The serial number of the disk that a device's own is a copy of; a SCSI disk takes 20 bytes."""
    return f"{serial}.base"


def secret_name(serial: str, parameter: str) -> str:
    """What a device VM calls the secret that a parameter of the device with that serial number names."""
    return digest([serial, parameter], 16)


def _replace(values: dict[str, Any], path: list[str], value: str) -> None:
    first, *rest = path
    if rest:
        values[first] = dict(values[first])
        _replace(values[first], rest, value)
    else:
        values[first] = value


def expand(command: Iterable[Any], values: Mapping[str, Any]) -> tuple[str, ...]:
    """The arguments a template comes to. Pure; DevicevmError for a name without a value."""
    items = tuple(command)
    if all(isinstance(item, str) and "$" not in item for item in items):
        return items
    return tuple(argument for item in items for argument in _expand_item(item, values))


def chosen(template: Any, values: Mapping[str, Any]) -> str:
    """The one word that a template comes to."""
    (word,) = expand((template,), values)
    return word


def choices(template: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every word that a template of one word can come to, with its place."""
    if not isinstance(template, Mapping):
        yield place, template
        return
    yield from (((*place, branch), template[branch]) for branch in ("then", "else"))


def names_in(command: Iterable[Any]) -> Iterator[tuple[Place, str]]:
    """Every name a template refers to, with its place in it.

    A malformed reference (`${a b}`, `${` without an end) is yielded as it stands: `is_name` tells.
    """
    for index, item in enumerate(command):
        if isinstance(item, str):
            yield from (((index,), name) for name in _names_in_text(item))
            continue
        yield from (((index, "if"), name) for name in _asked(item))
        for branch in ("then", "else"):
            below = item.get(branch, [])
            for place, name in names_in(_branch(below)):
                yield (index, branch, *(place if isinstance(below, list) else ())), name


def _names_in_text(text: str) -> Iterator[str]:
    for match in _REFERENCE.finditer(text):
        if match[0] != "$${":
            name = _NAME.fullmatch(match[1]) if match[2] else None
            yield name[1] if name else match[0]


def is_name(text: str) -> bool:
    """Whether text can be the name of a value."""
    match = _NAME.fullmatch(text)
    return bool(match and not match[2])


def _expand_item(item: Any, values: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(item, str):
        return _expand_text(item, values)
    chosen = item.get("then", []) if _holds(item, values) else item.get("else", [])
    return expand(_branch(chosen), values)


def _branch(items: Any) -> Iterable[Any]:
    """A branch may be one argument without a list around it."""
    return [items] if isinstance(items, str) else items


def _asked(condition: Mapping[str, Any]) -> list[str]:
    """The names that a condition asks for."""
    asked = condition["if"]
    return [asked] if isinstance(asked, str) else list(asked)


def _holds(condition: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    found = [_look_up(name, values) for name in _asked(condition)]
    if "equals" in condition:
        wanted = condition["equals"]
        # For Python True == 1; for whoever wrote the class it is not.
        return any(isinstance(value, bool) == isinstance(wanted, bool) and value == wanted for value in found)
    return any(value is not _MISSING and value is not None and value is not False for value in found)


def _expand_text(text: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    whole = _REFERENCE.fullmatch(text)
    if whole and whole[2]:
        value = _value(whole[1], values)
        if isinstance(value, (list, tuple)):
            return tuple(_as_text(whole[1], item) for item in value)
    return (_REFERENCE.sub(lambda match: _replacement(match, values), text),)


def _replacement(match: re.Match[str], values: Mapping[str, Any]) -> str:
    if match[0] == "$${":
        return "${"
    if not match[2]:
        raise DevicevmError(f"{match[0][:40]} has no closing brace", hint="write $${ for the characters ${")
    return _as_text(match[1], _value(match[1], values))


def _value(reference: str, values: Mapping[str, Any]) -> Any:
    name = _NAME.fullmatch(reference)
    if not name:
        raise DevicevmError(f"${{{reference[:40]}}} names no parameter", hint="write $${ for the characters ${")
    value = _look_up(name[1], values)
    if value is _MISSING or value is None:
        raise DevicevmError(f"the program's command needs {name[1]}, which has no value")
    return parse_bytes(value) if name[2] else value


def _look_up(name: str, values: Mapping[str, Any]) -> Any:
    value: Any = values
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    what = "a mapping" if isinstance(value, Mapping) else "a list"
    raise DevicevmError(
        f"{name} is {what} and cannot stand within an argument", hint="a list can stand as an item of its own"
    )
