"""A specification in a domain's metadata: it comes back as it was, and hostile metadata harms nobody."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from devicevm.domain import Attachment, Channel, CpuPlacement, DomainSpec, Emulator, Role
from devicevm.manifest.topology import Boot, Store
from devicevm.record import digest, from_data
from devicevm.vmm.libvirt.element import to_text
from devicevm.vmm.libvirt.metadata import NAMESPACE, Kept, qualified, read, unqualified
from devicevm.vmm.libvirt.observation import observed
from hypothesis import given
from hypothesis import strategies as st

GOLDENS = Path(__file__).parents[1] / "goldens" / "domains"
SPEC = from_data(DomainSpec, json.loads((GOLDENS / "device-vm.json").read_text()))
TEXT = to_text(qualified(SPEC))
STATE = "/var/lib/devicevm/vmm/1a2b3c4d"

# Text that JSON, and so the specification, can hold; XML cannot hold all of it.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
channels = st.builds(Channel, kind=text, address=text, port=text)
stores = st.builds(Store, kind=text, size=st.integers(0, 2**63), path=text, read_only=st.booleans())
emulators = st.builds(
    Emulator,
    client=text,
    name=text,
    class_=text,
    channel=channels,
    command=st.lists(text, max_size=3).map(tuple),
    store=st.none() | stores,
    serial=text,
)
attachments = st.builds(
    Attachment, name=text, class_=text, frontend=text, channel=channels, device_vm=text, index=st.integers(0, 99)
)
cpus = st.lists(st.integers(0, 4095), max_size=4).map(tuple)
specs = st.builds(
    DomainSpec,
    name=text,
    uuid=text,
    role=st.sampled_from(Role),
    owner=text,
    host=text,
    vcpus=st.integers(1, 512),
    memory=st.integers(0, 2**50),
    accelerator=text,
    arch=text,
    machine=text,
    boot=st.builds(Boot, kernel=text, command_line=text),
    placement=st.builds(
        CpuPlacement, vcpus=st.lists(cpus, max_size=3).map(tuple), emulator=cpus, dedicated=st.booleans()
    ),
    emulators=st.lists(emulators, max_size=2).map(tuple),
    attachments=st.lists(attachments, max_size=2).map(tuple),
    domain_xml=text,
)


def kept(xml: str, spec: DomainSpec = SPEC) -> Kept:
    return read(ElementTree.fromstring(xml), spec.name, spec.uuid)


@given(specs)
def test_the_specification_itself_survives_xml_whatever_it_holds(spec: DomainSpec) -> None:
    tree = unqualified(spec)
    for item in list(tree):
        if item.tag == "device":  # names of devices are DNS labels; the specification's text is what must be safe
            tree.remove(item)
    tree.set("owner", "o")
    tree.set("host", "h")
    again = ElementTree.fromstring(to_text(tree))
    assert again.findtext("spec", "").isascii()
    assert from_data(DomainSpec, json.loads(again.findtext("spec", ""))) == spec


@pytest.mark.parametrize("case", sorted(path.stem for path in GOLDENS.glob("*.json")))
def test_every_case_comes_back_as_it_was(case: str) -> None:
    spec = from_data(DomainSpec, json.loads((GOLDENS / f"{case}.json").read_text()))
    for tree in (qualified(spec), unqualified(spec)):
        assert kept(to_text(tree), spec) == Kept(spec.owner, spec.role, spec)


def test_the_digest_is_the_one_that_the_planner_knows() -> None:
    assert qualified(SPEC).get("digest") == digest(SPEC, 16)


def test_people_can_read_who_serves_whom() -> None:
    device = qualified(SPEC).find(f"{{{NAMESPACE}}}device")
    assert device is not None
    assert device.attrib == {
        "client": "web",
        "name": "data",
        "class": "disk",
        "channel": "stream",
        "address": "/run/devicevm/1a2b3c4d/0a1b2c3d-data.sock",
        "deviceVM": "web-dvm",
    }


HOSTILE = {
    "newer": (
        TEXT.replace('format="1"', 'format="2"'),
        "written by a newer devicevm (format 2, this one reads up to 1)",
    ),
    "no format": (TEXT.replace(' format="1"', ""), "no format version"),
    "absurd format": (TEXT.replace('format="1"', f'format="{"9" * 5000}"'), "no format version"),
    "changed": (TEXT.replace('"memory":134217728', '"memory":134217729'), "changed by hand"),
    "no digest": (TEXT.replace("digest=", "dig="), "changed by hand"),
    "cut": (TEXT.replace('"name":"web-dvm"', '"name":"web-dvm'), "no specification"),
    "no spec": (f"<a xmlns='{NAMESPACE}' format='1'/>", "no specification"),
    "deep": (f"<a format='1'><spec>{'[' * 100_000}</spec></a>", "no specification"),
    "huge number": (f"<a format='1'><spec>{'9' * 100_000}</spec></a>", ""),
    "huge": (f"<a format='1'><spec>{' ' * 2**21}</spec></a>", "2097152 characters"),
    "surrogate": ('<a format="1"><spec>"\\ud800"</spec></a>', "no specification"),
    "list": (f"<a format='1' digest='{digest([], 16)}'><spec>[]</spec></a>", "a mapping expected, list found"),
    "unknown key": (f"<a format='1' digest='{digest({'x': 1}, 16)}'><spec>{{\"x\":1}}</spec></a>", "unknown key x"),
    "other owner": (TEXT.replace('owner="default"', 'owner="root"'), "two owners"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_metadata_that_cannot_be_believed_is_broken_with_a_reason(case: str) -> None:
    xml, says = HOSTILE[case]
    found = kept(xml)
    assert found.spec is None
    assert says in found.broken


def test_metadata_copied_to_another_domain_is_not_believed() -> None:
    assert "another domain's: the name in it is 'web-dvm'" in read(qualified(SPEC), "copy", SPEC.uuid).broken
    assert "another domain's: the UUID" in read(qualified(SPEC), SPEC.name, "0" * 32).broken


def test_a_domain_without_our_metadata_is_nobodys() -> None:
    assert observed("x", "u", f"<domain><title>{NAMESPACE}</title></domain>", "", STATE) is None


def test_a_specification_that_cannot_be_rendered_is_drift_and_no_exception() -> None:
    spec = from_data(
        DomainSpec, json.loads((GOLDENS / "client.json").read_text()) | {"domainXml": "<domain", "machine": "x"}
    )
    domain = f"<domain><metadata>{to_text(qualified(spec))}</metadata></domain>"
    found = observed(spec.name, spec.uuid, domain, "", STATE)
    assert found is not None
    assert found.spec == spec
    assert "cannot be rendered" in found.drift[0]


@given(
    st.text(max_size=200), st.dictionaries(st.sampled_from(["format", "digest", "owner", "role"]), st.text(max_size=9))
)
def test_any_metadata_is_read_without_an_exception(body: str, attributes: dict[str, str]) -> None:
    tree = ElementTree.Element("domain", attributes)
    ElementTree.SubElement(tree, "spec").text = body
    assert read(tree, "x", "y").spec is None
