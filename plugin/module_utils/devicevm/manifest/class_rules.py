"""What a DeviceClass must keep to beyond its schema."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..channel.registry import CHANNELS
from ..errors import Problem
from ..frontend.registry import FRONTENDS
from .declared import Declared
from .document import Document, Place, shown
from .parameters import names_of, parameter_schema, schema_problems, service_schema
from .region import MEMORY, region_class_problems
from .resource_rules import brings_code
from .service import service_problems
from .storage import class_storage, declared_at
from .template import OWN_NAMES, SERVICE_NAMES, choices, is_name, names_in
from .wording import nearest

_CONDITIONS = (("program", "ready"), ("image",), ("memory", "perDevice"))
"""Where a class may have a condition that comes to one word."""


def class_problems(document: Document, declared: Declared) -> Iterator[Problem]:
    """All that is wrong with one class."""
    yield from _frontend_problems(document)
    yield from _channel_problems(document)
    spec = document.spec
    for place, image in choices(spec.get("image", "base"), ("spec", "image")):
        if image not in declared.names["Image"]:
            yield document.problem(
                place, f"image {shown(image)} is unknown", nearest(image, declared.names_of("Image"))
            )
    problems = schema_problems(document, spec.get("parameters", {}))
    yield from problems
    if not problems:
        schema = parameter_schema(spec)
        yield from _template_problems(document, schema)
        yield from _storage_problems(document, schema)
        for index, name in enumerate(spec.get("secrets", ())):
            yield from _unknown_name(document, ("spec", "secrets", index), name, schema, OWN_NAMES)
    if "service" in spec:
        yield from _service_problems(document)
    yield from region_class_problems(document)
    yield from _expect_problems(document)
    yield from _command_problems(document)


def _expect_problems(document: Document) -> Iterator[Problem]:
    program = document.spec["program"]
    place = ("spec", "program", "expect")
    if program.get("expect") and program.get("ready", "bytes") != "bytes":
        message = "only the probe `bytes` expects something"
        yield document.problem(place, message, "remove it, or write ready: bytes")
    try:
        # The probe searches bytes: what is fine for text (\u00e9) can be none for them.
        re.compile(program.get("expect", "").encode())
    except (re.error, RecursionError, OverflowError) as error:
        message = f"{shown(program['expect'])} is no regular expression of bytes: {error}"
        yield document.problem(place, message, "write bytes beyond ASCII as \\xNN")

    portless = {"ethernet": "a network port", MEMORY: "shared memory"}.get(document.spec["protocol"])
    if portless and (program.get("expect") or program.get("ready", "bytes") != "bytes"):
        message = f"{portless} cannot be probed: its program says by itself when it is ready"
        yield document.problem(("spec", "program"), message, "remove ready and expect")
    if program.get("ask") and not program.get("expect"):
        message = "nothing is expected for an answer"
        yield document.problem(("spec", "program", "ask"), message, "add expect, which tells the right answer")


def _command_problems(document: Document) -> Iterator[Problem]:
    """A class without a program of its own is one whose every alternative brings its code along."""
    if "command" in document.spec["program"]:
        return
    for index, alternative in enumerate(document.spec.get("resources", ({"thread": {}},))):
        if not brings_code(alternative):
            place = ("spec", "resources", index) if "resources" in document.spec else ("spec", "program")
            yield document.problem(place, "there is no program to run here", "add program.command to the class")


def _frontend_problems(document: Document) -> Iterator[Problem]:
    protocol = document.spec["protocol"]
    fitting = [frontend.name for frontend in FRONTENDS.values() if frontend.protocol == protocol]
    for index, name in enumerate(document.spec["frontends"]):
        place = ("spec", "frontends", index)
        if name not in FRONTENDS:
            yield document.problem(place, f"front end {shown(name)} is unknown", nearest(name, FRONTENDS))
        elif name not in fitting:
            spoken = FRONTENDS[name].protocol
            message = f"front end {name} speaks {spoken}, the class speaks {protocol}"
            yield document.problem(place, message, f"for {protocol}: {', '.join(fitting)}")


def _channel_problems(document: Document) -> Iterator[Problem]:
    frontends = [FRONTENDS[name] for name in document.spec["frontends"] if name in FRONTENDS]
    for index, name in enumerate(document.spec.get("channels", ["stream"])):
        place = ("spec", "channels", index) if "channels" in document.spec else ("spec", "frontends")
        wrong = [frontend for frontend in frontends if name in CHANNELS and name not in frontend.channels]
        if name not in CHANNELS:
            yield document.problem(place, f"channel {shown(name)} is unknown", nearest(name, CHANNELS))
        elif wrong:
            message = f"front end {wrong[0].name} is not reached by channel {name}"
            yield document.problem(place, message, f"write channels: [{', '.join(wrong[0].channels)}]")


def _template_problems(document: Document, schema: dict[str, Any]) -> Iterator[Problem]:
    program = document.spec["program"]
    uses = [((*("spec", "program", "command"), *place), name) for place, name in names_in(program.get("command", ()))]
    for index, alternative in enumerate(document.spec.get("resources", ())):
        own = ("spec", "resources", index, "program", "command")
        uses += [((*own, *place), name) for place, name in names_in(alternative.get("program", {}).get("command", ()))]
    for where in _CONDITIONS:
        condition = declared_at(document.spec, ".".join(where))
        if isinstance(condition, dict):
            uses += [(("spec", *where, *at[1:]), name) for at, name in names_in([condition])]
    for place, name in uses:
        yield from _reference_problems(document, place, name, schema, OWN_NAMES)


def _service_problems(document: Document) -> Iterator[Problem]:
    """The program that runs once in a device VM must run in one that says nothing, too."""
    service = document.spec["service"]
    place = ("spec", "service")
    problems = schema_problems(document, service.get("parameters", {}), (*place, "parameters"), SERVICE_NAMES)
    yield from problems
    if problems:
        return
    schema = service_schema(document.spec)
    unknown = [
        problem
        for at, name in names_in(service["command"])
        for problem in _reference_problems(document, (*place, "command", *at), name, schema, SERVICE_NAMES)
    ]
    yield from unknown
    if not unknown:
        yield from service_problems(document, place, document, {})


def _reference_problems(
    document: Document, place: Place, name: str, schema: dict[str, Any], own: Iterable[str]
) -> Iterator[Problem]:
    if not is_name(name):
        hint = "write ${parameter}, ${parameter.key} or ${parameter:bytes}; $${ for the characters ${"
        yield document.problem(place, f"{shown(name)} names no parameter", hint)
    else:
        yield from _unknown_name(document, place, name, schema, own)


def _unknown_name(
    document: Document, place: Place, name: str, schema: dict[str, Any], own: Iterable[str]
) -> Iterator[Problem]:
    known = dict.fromkeys(own) | names_of(schema)
    first, *rest = name.split(".")
    if first not in known:
        yield document.problem(
            place, f"parameter {shown(first)} is not among the class's parameters", nearest(first, known)
        )
        return
    below = known[first]
    for part in rest:
        names = names_of(below)
        if not names:
            return  # a mapping with any keys, or no mapping: a device's values will tell
        if part not in names:
            yield document.problem(place, f"{shown(name)}: there is no {part}", nearest(part, names))
            return
        below = names[part]


def _storage_problems(document: Document, schema: dict[str, Any]) -> Iterator[Problem]:
    storage = class_storage(document.spec)
    if storage is None:
        return
    known = names_of(schema)
    if storage.within:
        if storage.within not in known:
            message = f"parameter {shown(storage.within)} is not among the class's parameters"
            yield document.problem(("spec", "storage", "within"), message, nearest(storage.within, known))
            return
        known = names_of(known[storage.within])
    names = {"store": storage.store, "size": storage.size, "readOnly": storage.read_only}
    for key, name in {**names, "format": storage.format, "base": storage.base, "faults": storage.faults}.items():
        # A class may do without all but a size; a name that it gives must be there.
        if name not in known and (key in document.spec["storage"] or key == "size"):
            message = f"parameter {shown(name)} is not among the class's parameters"
            yield document.problem(("spec", "storage", key), message, nearest(name, known))
