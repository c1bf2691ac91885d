"""What a device VM says to a class's service, checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import DevicevmError, Problem
from .document import Document, Place
from .parameters import complete, parameter_problems, service_schema
from .region import MEMORY, size_problems
from .template import expand, service_values


def service_problems(document: Document, place: Place, class_: Document, given: Any) -> Iterator[Problem]:
    """What is wrong with the parameters `given` at `place`: by their schema, and in the command that they come to.

    Once with an uplink and once without: the command must work in both cases.
    """
    schema = service_schema(class_.spec)
    parameters = complete(schema, given)
    problems = parameter_problems(schema, class_.name, parameters, document, place)
    problems = problems or list(size_problems(document, place, class_, parameters))
    yield from problems
    region = "0" if class_.spec["protocol"] == MEMORY else ""
    for uplink in ("", "0") if not problems else ():
        try:
            expand(class_.spec["service"]["command"], service_values(parameters, "name", "0", uplink, region))
        except DevicevmError as error:
            yield document.problem(place, f"class {class_.name}: {error.message}", error.hint or "give the parameter")
            return
