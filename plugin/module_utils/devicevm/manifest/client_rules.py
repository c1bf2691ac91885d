"""What a Client must keep to beyond its schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import API_VERSION
from ..channel.registry import CHANNELS
from ..errors import DevicevmError, Problem
from ..frontend.registry import FRONTENDS, MACHINES
from ..inventory.document import parse_document
from ..quantity import format_bytes, parse_bytes
from .build import build_device, build_program, consumers_of
from .declared import Declared
from .document import Document, Place, path_text, shown
from .host_devices import place_problems
from .parameters import complete, parameter_problems, parameter_schema
from .region import MEMORY
from .resource_rules import cpu_problems, own_commands
from .schema import MAX_PROBLEMS
from .storage import class_storage, declared_storage, file_findings, relative_finding, storage_findings
from .template import LINK_NAMES, expand, template_values
from .topology import ClientVM, Consumer
from .wording import nearest

MIN_MEMORY = 2**20
RESERVED_XML = ("name", "uuid", "metadata")


def client_problems(document: Document, declared: Declared) -> Iterator[Problem]:
    """All that is wrong with one client and its devices."""
    kinds = consumers_of(document.spec)
    if len(kinds) != 1:
        found = " and ".join(kind.value for kind in kinds) or "none of them"
        message = f"a client is exactly one of vm, existing, host: {{}} and vmm; this is {found}"
        yield document.problem(("spec",), message, "vm is one that devicevm makes, existing a domain that is there")
    if "vm" in document.spec:
        yield from _boot_problems(document, declared)
        yield from _machine_problems(document)
        yield from cpu_problems(document, ("spec", "vm", "cpus"), document.spec["vm"].get("cpus", {}))
    yield from _placement_problems(document)
    seen: dict[str, int] = {}
    for index, device in enumerate(document.spec.get("devices", ())):
        place = ("spec", "devices", index)
        first = seen.setdefault(device["name"], index)
        if first != index:
            where = document.where(("spec", "devices", first))
            message = f"device {device['name']} is already declared in {where}"
            yield document.problem((*place, "name"), message, "a device's name is unique in its client")
        yield from _device_problems(document, place, device, declared)
        yield from place_problems(document, place, device, declared, on_host=kinds == [Consumer.HOST])
    yield from _port_problems(document, declared)


def sound_device_problems(document: Document, known: list[Problem], declared: Declared) -> Iterator[Problem]:
    """What is wrong with those devices of a client that its schema let pass, when it did not let all pass."""
    if document.data.get("apiVersion") != API_VERSION or len(known) >= MAX_PROBLEMS:
        return  # the schema was not asked, or not about everything
    spec = document.data.get("spec")
    devices = spec.get("devices") if isinstance(spec, dict) else None
    for index, device in enumerate(devices if isinstance(devices, list) else ()):
        place = ("spec", "devices", index)
        at = path_text(place)
        if not any(problem.path == at or problem.path.startswith((f"{at}.", f"{at}[")) for problem in known):
            yield from _device_problems(document, place, device, declared)


def frontend_of(device: dict[str, Any], class_spec: dict[str, Any]) -> str:
    """The front end of a device: what it says, else its class's first."""
    name: str = device.get("frontend") or class_spec["frontends"][0]
    return name


def _boot_problems(document: Document, declared: Declared) -> Iterator[Problem]:
    boot = document.spec["vm"]["boot"]
    place = ("spec", "vm", "boot")
    for key in ("kernel", "initrd", "image"):
        if key in boot:
            for finding in relative_finding((*place, key), boot[key], document.folder):
                yield document.problem(*finding)
    if "commandLine" in boot and not ("kernel" in boot or "guestImage" in boot):
        yield document.problem((*place, "commandLine"), "a command line needs a kernel", "give kernel or guestImage")
    if "device" in boot:
        yield from _boot_device_problems(document, boot["device"], declared)


def _boot_device_problems(document: Document, name: str, declared: Declared) -> Iterator[Problem]:
    place = ("spec", "vm", "boot", "device")
    devices = {device["name"]: device for device in document.spec.get("devices", ())}
    if name not in devices:
        yield document.problem(place, f"the client has no device {shown(name)}", nearest(name, devices))
        return
    class_ = declared.find("DeviceClass", devices[name]["class"])
    if class_ and class_.spec["protocol"] != "nbd":
        message = f"device {name} is no disk: class {class_.name} speaks {class_.spec['protocol']}"
        yield document.problem(place, message, "name a device of a class that speaks nbd")


def _machine_problems(document: Document) -> Iterator[Problem]:
    vm = document.spec["vm"]
    if parse_bytes(vm["memory"]) < MIN_MEMORY:
        hint = f"{format_bytes(MIN_MEMORY)} at least; a number without a unit is bytes"
        yield document.problem(("spec", "vm", "memory"), f"{shown(vm['memory'])} is too little to boot anything", hint)
    if "domainXML" not in vm:
        return
    place = ("spec", "vm", "domainXML")
    try:
        root = parse_document(vm["domainXML"], ("domain",), "domainXML")
    except DevicevmError as error:
        yield document.problem(place, error.message, error.hint)
        return
    for tag in RESERVED_XML:
        if root.find(tag) is not None:
            yield document.problem(place, f"<{tag}> cannot be set", "devicevm gives a domain its name and metadata")


def _placement_problems(document: Document) -> Iterator[Problem]:
    placement = document.spec.get("placement", {})
    near, far = (placement.get(key, {}).get("matchLabels", {}) for key in ("affinity", "antiAffinity"))
    if near and far and far.items() <= near.items():
        message = "every client that affinity asks for is one that antiAffinity keeps away"
        yield document.problem(("spec", "placement", "antiAffinity"), message, "take one of the two away")


def _device_problems(document: Document, place: Place, device: dict[str, Any], declared: Declared) -> Iterator[Problem]:
    name = device["class"]
    if name not in declared.names["DeviceClass"]:
        hint = nearest(name, declared.names_of("DeviceClass"))
        yield document.problem((*place, "class"), f"device class {shown(name)} is unknown", hint)
    class_ = declared.find("DeviceClass", name)
    if class_ is None:
        return
    yield from _choice_problems(document, place, device, class_)
    schema = parameter_schema(class_.spec)
    parameters = complete(schema, device.get("parameters", {}))
    below: Place = (*place, "parameters") if "parameters" in device else place
    problems = parameter_problems(schema, name, parameters, document, below)
    storage = class_storage(class_.spec)
    if not problems:
        findings = list(file_findings(class_.spec, parameters, document.folder))
        declared_store = declared_storage(storage, parameters)
        if storage and declared_store is not None:
            inner: Place = (storage.within,) if storage.within else ()
            found = storage_findings(storage, declared_store, document.folder)
            findings += [((*inner, *at), message, hint) for at, message, hint in found]
        problems = [document.problem((*below, *at), message, hint) for at, message, hint in findings]
    yield from problems or [
        *_writer_problems(document, place, device, class_),
        *_command_problems(document, below, device, class_),
    ]


def _choice_problems(document: Document, place: Place, device: dict[str, Any], class_: Document) -> Iterator[Problem]:
    for key, what, known in (("frontend", "front end", FRONTENDS), ("channel", "channel", CHANNELS)):
        name = device.get(key)
        offered = class_.spec.get(f"{key}s", ["stream"])
        if name is None or name in offered:
            continue
        if name not in known:
            yield document.problem((*place, key), f"{what} {shown(name)} is unknown", nearest(name, offered))
        else:
            message = f"class {class_.name} offers no {what} {name}"
            yield document.problem((*place, key), message, f"it offers {', '.join(offered)}")


def _writer_problems(document: Document, place: Place, device: dict[str, Any], class_: Document) -> Iterator[Problem]:
    """Nobody can write to some front ends."""
    frontend = FRONTENDS.get(frontend_of(device, class_.spec))
    store = build_device(device, class_, document.folder).store
    if frontend and frontend.read_only and not (store and store.read_only):
        here = (*place, "frontend") if "frontend" in device else place
        yield document.problem(here, f"nobody can write to {frontend.name}", "set readOnly, or take another front end")


def _command_problems(document: Document, place: Place, device: dict[str, Any], class_: Document) -> Iterator[Problem]:
    """What the planner will do with the template must work now, while there is a line to point at."""
    built = build_device(device, class_, document.folder)
    program = build_program(class_.spec["program"])
    link = dict.fromkeys(LINK_NAMES, "0") if class_.spec["protocol"] == "ethernet" else None
    region = "0" if class_.spec["protocol"] == MEMORY else ""
    values = template_values(built, "0" if built.store or built.memory else "", link, region)
    try:
        for command in (program.command, *own_commands(class_.spec.get("resources", ()))):
            if command and not expand(command, values):
                yield document.problem(place, f"the command of class {class_.name} is empty with these parameters")
        expand((program.ready,), values)
    except DevicevmError as error:
        yield document.problem(place, f"class {class_.name}: {error.message}", error.hint or "give the parameter")


def _port_problems(document: Document, declared: Declared) -> Iterator[Problem]:
    """Some front ends come in small numbers (a PC has four ISA serial ports), or in some machines only."""
    kinds = consumers_of(document.spec)
    if kinds == [Consumer.HOST]:
        return  # it has none
    # What machine a domain of others is, its VMM knows.
    machine = document.spec["vm"].get("machine", ClientVM.machine) if "vm" in document.spec else ""
    taken: dict[str, int] = {}
    for index, device in enumerate(document.spec.get("devices", ())):
        class_ = declared.find("DeviceClass", device["class"])
        frontend = FRONTENDS.get(frontend_of(device, class_.spec)) if class_ else None
        if frontend is None:
            continue
        if (frontend.arguments and kinds != [Consumer.VM]) or (
            kinds == [Consumer.EXISTING] and not frontend.attachable
        ):
            message = f"front end {frontend.name} is for client VMs that devicevm makes: the VMM has no other way to it"
            yield document.problem(("spec", "devices", index), message, "give it to a client with `vm`")
        if machine and frontend.machine and not MACHINES[frontend.machine].fullmatch(machine):
            message = f"machine {machine} has no {frontend.name}"
            hint = f"set spec.vm.machine to {frontend.machine}, or take another front end"
            yield document.problem(("spec", "devices", index), message, hint)
        taken[frontend.numbering] = taken.get(frontend.numbering, 0) + 1
        if taken[frontend.numbering] > frontend.last - frontend.first + 1:
            message = (
                f"a client has {frontend.last - frontend.first + 1} devices with front end {frontend.name} at most"
            )
            yield document.problem(("spec", "devices", index), message, "choose another front end")
