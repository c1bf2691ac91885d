"""libvirt's domain capabilities: what domains of one emulator, machine and accelerator can have.

Format: https://libvirt.org/formatdomaincaps.html and libvirt's schema domaincaps.rng.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from .capabilities import accelerator_name, feature_names
from .cpumodels import expand_features
from .document import integer, parse_document, stripped
from .host import DomainSupport

WHAT = "domain capabilities"


def parse_domain_capabilities(xml: str) -> DomainSupport:
    """A domain capabilities document as plain data; DevicevmError when it is none.

    `cpu_models` are those that can be used here (`usable` is not `no`), `host_features` all features of the
    host-model CPU, those that its model implies included: what a guest can have with this accelerator.
    A section that is missing or not supported gives empty tuples: Xen tells nothing of channels, for one.
    """
    root = parse_document(xml, ("domainCapabilities",), WHAT)
    vcpu = root.find("vcpu")
    host_model = root.find("cpu/mode[@name='host-model'][@supported='yes']")
    model = stripped(host_model.findtext("model")) if host_model is not None else ""
    return DomainSupport(
        emulator=stripped(root.findtext("path")),
        accelerator=accelerator_name(stripped(root.findtext("domain"))),
        machine=stripped(root.findtext("machine")),
        arch=stripped(root.findtext("arch")),
        max_vcpus=integer(vcpu.get("max"), 0, f"{WHAT}: vcpu max") if vcpu is not None else 0,
        firmwares=_values(root, "os", "firmware"),
        disk_buses=_values(root, "devices/disk", "bus"),
        rng_backends=_values(root, "devices/rng", "backendModel"),
        channel_types=_values(root, "devices/channel", "type"),
        tpm_models=_values(root, "devices/tpm", "model"),
        cpu_models=_usable_models(root),
        host_model=model,
        host_features=() if host_model is None else _features(host_model, model),
        memory_sources=_values(root, "memoryBacking", "sourceType"),
    )


def _values(root: ET.Element, section: str, enum: str) -> tuple[str, ...]:
    found = root.find(section)
    if found is None or found.get("supported") == "no":
        return ()
    return tuple(stripped(value.text) for value in found.findall(f"enum[@name='{enum}']/value"))


def _usable_models(root: ET.Element) -> tuple[str, ...]:
    models = root.findall("cpu/mode[@name='custom'][@supported='yes']/model")
    return tuple(sorted({stripped(model.text) for model in models if model.get("usable") != "no"}))


def _features(mode: ET.Element, model: str) -> tuple[str, ...]:
    return expand_features(model, feature_names(mode), feature_names(mode, ("disable", "forbid")))
