"""A domain's metadata: what devicevm asked for, kept by the VMM itself. There is no other state.

People and other tools read the attributes and children; devicevm reads `<spec>`, the canonical JSON of the DomainSpec,
and believes it only when the digest beside it fits.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, register_namespace

from ...domain import DomainSpec, Role
from ...errors import DevicevmError
from ...record import digest, from_data, to_data
from .element import add, element

NAMESPACE = "urn:devicevm:v1"
PREFIX = "devicevm"
FORMAT = 1
"""Version of what is inside the namespace; a reader refuses what is newer than itself."""

DIGEST = 16
"""Hex digits of the specification's digest (record.digest)."""

MAX_SPEC = 2**20
"""Characters of a specification's JSON; libvirt's RPC carries 4 MiB of XML at most."""

register_namespace(PREFIX, NAMESPACE)


@dataclass(frozen=True)
class Kept:
    """What a domain's metadata says. `spec` is None when it cannot be used, and `broken` says why."""

    owner: str
    role: Role
    spec: DomainSpec | None
    broken: str = ""


def qualified(spec: DomainSpec) -> Element:
    """The element in devicevm's namespace, as it stands inside a domain's `<metadata>`."""
    tree = unqualified(spec)
    for item in tree.iter():
        item.tag = f"{{{NAMESPACE}}}{item.tag}"
    return tree


def unqualified(spec: DomainSpec) -> Element:
    """The same without namespace: virDomainSetMetadata adds it, and refuses to be given it."""
    text = _spec_json(spec)
    tree = element(
        "domain",
        owner=spec.owner,
        role=spec.role.value,
        digest=digest(spec, DIGEST),
        format=str(FORMAT),
        host=spec.host,
    )
    idle = {"idle": ",".join(map(str, spec.placement.idle))} if spec.placement.idle else {}
    # For whoever reads pins: those of the VMM's own threads are no CPUs that the domain has.
    apart = spec.placement.emulator_on != "own" and not set(spec.placement.emulator) <= set(_cpus(spec))
    elsewhere = {"emulator": "elsewhere"} if apart else {}
    if spec.placement.floats and spec.role is Role.CLIENT:
        elsewhere["floats"] = "yes"
    add(
        tree,
        "allocation",
        **idle,
        **elsewhere,
        unit=spec.placement.unit,
        cpus=",".join(str(cpu) for cpu in _cpus(spec)),
        memory=str(spec.memory),
        dedicated="yes" if spec.placement.dedicated else "no",
    )
    for device in _devices(spec):
        add(tree, "device", **device)
    add(tree, "spec", text)
    return tree


def ready_mark(spec: DomainSpec) -> Element:
    """The element for a running domain that has been seen to answer, without namespace. A start begins without it:
    the definition that a domain starts from does not say `ready`."""
    tree = unqualified(spec)
    tree.set("ready", "yes")
    return tree


def is_ready(tree: Element) -> bool:
    """Whether a running domain's metadata says that it has been seen to answer."""
    return tree.get("ready") == "yes"


def read(tree: Element, name: str, uuid: str) -> Kept:
    """What the metadata element of the domain `name` says. Never raises: the domain's XML is anybody's to edit."""
    owner, role = tree.get("owner", ""), tree.get("role", "")
    # Of an unknown role it counts as a client: those are never made anew without being told.
    kept = Role(role) if role in {known.value for known in Role} else Role.CLIENT
    try:
        return Kept(owner, kept, _read(tree, name, uuid))
    except DevicevmError as error:
        return Kept(owner, kept, None, error.message)


def find(domain: Element) -> Element | None:
    """The metadata element in a domain's XML; None for a domain that is not devicevm's."""
    return domain.find(f"metadata/{{{NAMESPACE}}}domain")


def says_the_same(one: Element, other: Element) -> bool:
    """Whether two metadata elements say the same but for readiness, as a definition's and a running domain's mostly do:
    then one reading does for both."""
    attributes = [{key: value for key, value in tree.items() if key != "ready"} for tree in (one, other)]
    return attributes[0] == attributes[1] and _spec_text(one) == _spec_text(other)


def _spec_text(tree: Element) -> str:
    return tree.findtext(f"{{{NAMESPACE}}}spec") or tree.findtext("spec") or ""


def _read(tree: Element, name: str, uuid: str) -> DomainSpec:
    written = tree.get("format", "")
    if not written.isdecimal() or len(written) > 9:
        raise DevicevmError("its metadata has no format version")
    if int(written) > FORMAT:
        raise DevicevmError(
            f"its metadata was written by a newer devicevm (format {int(written)}, this one reads up to {FORMAT})"
        )
    text = _spec_text(tree)
    if len(text) > MAX_SPEC:
        raise DevicevmError(f"its metadata holds a specification of {len(text)} characters, {MAX_SPEC} are allowed")
    data, written_digest = _parse_json(text)
    if written_digest[:DIGEST] != tree.get("digest"):
        raise DevicevmError("its metadata was changed by hand: the specification does not fit its digest")
    spec = from_data(DomainSpec, data, "specification")
    for what, kept, real in (("name", spec.name, name), ("UUID", spec.uuid.lower(), uuid.lower())):
        if kept != real:
            raise DevicevmError(f"its metadata is another domain's: the {what} in it is {kept!r}")
    if spec.owner != tree.get("owner"):
        raise DevicevmError(f"its metadata names two owners, {tree.get('owner', '')!r} and {spec.owner!r}")
    # What has just been worked out is not worked out again for every plan.
    vars(spec)["digest"] = written_digest
    return spec


def _parse_json(text: str) -> tuple[Any, str]:
    """The data and its digest. ValueError covers lone surrogates and numbers of absurd length."""
    try:
        data = json.loads(text)
        if text.isascii() and "\\u" not in text:
            # As devicevm writes it, it is canonical already: the digest is the text's own.
            return data, hashlib.sha256(text.encode()).hexdigest()
        return data, digest(data)
    except (ValueError, RecursionError) as error:
        raise DevicevmError(f"its metadata holds no specification: {error}") from error


def _spec_json(spec: DomainSpec) -> str:
    # ASCII: every character of it may stand in XML, whatever the names hold.
    return json.dumps(to_data(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _cpus(spec: DomainSpec) -> list[int]:
    return sorted({cpu for cpus in spec.placement.vcpus for cpu in cpus})


def _devices(spec: DomainSpec) -> list[dict[str, str]]:
    if spec.role is Role.DEVICE_VM:
        return [
            {
                "client": item.client,
                "name": item.name,
                "class": item.class_,
                "channel": item.channel.kind,
                "address": item.channel.address,
                "deviceVM": spec.name,
            }
            for item in spec.emulators
        ]
    return [
        {
            "client": spec.name,
            "name": item.name,
            "class": item.class_,
            "channel": item.channel.kind,
            "address": item.channel.address,
            "deviceVM": item.device_vm,
        }
        for item in spec.attachments
    ]
