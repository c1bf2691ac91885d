"""Capabilities, domain capabilities and node devices: the shapes that real documents do not show."""

from __future__ import annotations

from pathlib import Path

import pytest
from devicevm.errors import DevicevmError
from devicevm.inventory.capabilities import parse_capabilities
from devicevm.inventory.cpumodels import expand_features
from devicevm.inventory.document import MAX_DOCUMENT, integer, parse_document, scaled_bytes
from devicevm.inventory.domcapabilities import parse_domain_capabilities
from devicevm.inventory.nodedevices import parse_node_device
from devicevm.inventory.offline import host_from_documents, offered_accelerators
from devicevm.inventory.processors import RawCpu, processors
from hypothesis import given
from hypothesis import strategies as st

OWN = Path(__file__).resolve().parent.parent / "data" / "inventory"
MINIMAL = "<capabilities><host><cpu><arch>x86_64</arch>{cpu}</cpu></host></capabilities>"


def own(name: str) -> str:
    return (OWN / f"{name}.xml").read_text()


def test_one_socket_spans_numa_nodes() -> None:
    found = parse_capabilities(own("sub-numa"))
    assert {cpu.socket for cpu in found.cpus} == {0}
    assert [cpu.core for cpu in found.cpus] == ["0.0.0", "0.0.1", "0.1.0", "0.1.1"] * 2
    assert found.nodes[2].cpus == () and found.memory == 6 * 2**30
    assert found.microcode == 0x2B
    assert {"vmx", "avx2"} <= set(found.cpu_features)


def test_ids_that_repeat_in_each_cell_are_told_apart() -> None:
    found = parse_capabilities(own("repeated-ids"))
    assert [cpu.socket for cpu in found.cpus] == [0, 0, 1, 1]
    assert [cpu.siblings for cpu in found.cpus] == [(0,), (1,), (2,), (3,)]
    assert len({cpu.core for cpu in found.cpus}) == 4


def test_unknown_ids() -> None:
    found = {cpu.id: cpu for cpu in parse_capabilities(own("unknown-ids")).cpus}
    assert found[0].siblings == found[1].siblings == (0, 1)
    assert found[2].siblings == (2,), "an offline sibling is none"
    assert found[0].socket == found[2].socket != found[8].socket
    assert len({cpu.core for cpu in found.values()}) == 4


def test_cpus_from_elsewhere() -> None:
    assert len(parse_capabilities(own("no-topology")).cpus) == 4
    found = parse_capabilities(own("no-topology"), cpu_count=50, memory=2**30)
    assert len(found.cpus) == 50 and found.memory == 2**30
    assert found.nodes[0].cpus == tuple(range(50))
    assert len({cpu.core for cpu in found.cpus}) == 50
    # A document that knows better is believed.
    assert len(parse_capabilities(own("sub-numa"), cpu_count=50).cpus) == 8


def test_the_larger_memory_counts() -> None:
    assert parse_capabilities(own("sub-numa"), memory=1).memory == 6 * 2**30
    found = parse_capabilities(own("sub-numa"), memory=8 * 2**30)
    assert found.memory == 8 * 2**30 and [node.memory for node in found.nodes] == [2**30, 2**30, 4 * 2**30]
    cell = "<cells><cell id='0'><memory>1024</memory><cpus><cpu id='0'/></cpus></cell></cells>"
    xml = f"<capabilities><host><cpu><arch>x</arch></cpu><topology>{cell}</topology></host></capabilities>"
    assert [node.memory for node in parse_capabilities(xml, memory=2**30).nodes] == [2**30]


@given(
    st.lists(
        st.builds(
            RawCpu,
            id=st.integers(0, 20),
            cell=st.integers(0, 3),
            socket=st.integers(-1, 2),
            die=st.integers(-1, 1),
            cluster=st.integers(-1, 1),
            core=st.integers(-1, 3),
            siblings=st.lists(st.integers(0, 24), max_size=3).map(tuple),
        ),
        max_size=20,
    )
)
def test_cores_and_sockets_are_unique_whatever_the_document_says(raw: list[RawCpu]) -> None:
    cpus = {cpu.id: cpu for cpu in processors(raw)}
    assert set(cpus) == {one.id for one in raw}
    for cpu in cpus.values():
        assert cpu.id in cpu.siblings and cpu.socket >= 0
        # A core's CPUs are exactly each other's siblings, and share name and socket.
        assert [other.id for other in cpus.values() if other.core == cpu.core] == list(cpu.siblings)
        assert {cpus[other].siblings for other in cpu.siblings} == {cpu.siblings}
        assert {cpus[other].socket for other in cpu.siblings} == {cpu.socket}


def test_accelerators() -> None:
    xml = """<capabilities><host><cpu><arch>x86_64</arch></cpu></host>
      <guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/e</emulator><machine>pc</machine>
        <domain type='qemu'/><domain type='kvm'><machine>q35</machine><machine>pc</machine></domain></arch></guest>
      <guest><os_type>hvm</os_type><arch name='armv7l'><domain type='qemu'/></arch></guest>
      <guest><os_type>hvm</os_type></guest></capabilities>"""
    found = parse_capabilities(xml)
    assert found.guests[0].accelerators == ("tcg", "kvm") and found.guests[0].machines == ("pc", "q35")
    assert offered_accelerators(found) == ("kvm", "tcg")
    assert offered_accelerators(found, "armv7l") == ("tcg",)
    assert host_from_documents(xml, name="a").vmm.driver == "QEMU"
    assert host_from_documents(own("no-topology"), name="a").vmm.driver == "Test"


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("", "no XML"),
        ("<capabilities>", "no XML"),
        ("<capabilities>\0</capabilities>", "no XML"),
        ("<domain/>", "<domain> found"),
        ("<capabilities/>", "no <host><cpu><arch>"),
        (MINIMAL.format(cpu="<microcode version='many'/>"), "'many' is no number"),
        (MINIMAL.format(cpu=f"<microcode version='{'9' * 5000}'/>"), "is no number"),
        (MINIMAL.format(cpu="<pages unit='parsec' size='1'/>"), "no unit"),
        (MINIMAL.format(cpu="<topology sockets='99999' cores='99999' threads='99999'/>"), "CPUs"),
        ("<!DOCTYPE capabilities><capabilities/>", "document type"),
        ('<!DOCTYPE c [<!ENTITY a SYSTEM "file:///etc/passwd">]><capabilities>&a;</capabilities>', "document type"),
        (f"<capabilities>{'x' * MAX_DOCUMENT}</capabilities>", "too many"),
    ],
)
def test_what_is_no_capabilities_document(xml: str, words: str) -> None:
    with pytest.raises(DevicevmError, match="capabilities: ") as caught:
        parse_capabilities(xml)
    assert words in caught.value.message


def test_entities_never_expand() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "x" * 10}">' for n in range(10))
    with pytest.raises(DevicevmError, match="document type"):
        parse_document(f"<!DOCTYPE a [{entities}]><a>&e9;</a>", ("a",), "bomb")
    with pytest.raises(DevicevmError, match="no XML"):
        parse_document("<a>&e9;</a>", ("a",), "bomb")


def test_text_that_only_speaks_of_document_types_is_read() -> None:
    root = parse_document("<a><![CDATA[<!DOCTYPE b>]]></a>", ("a",), "text")
    assert root.text == "<!DOCTYPE b>"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse_capabilities, parse_domain_capabilities, parse_node_device):
        with pytest.raises(DevicevmError):
            read(text)


@pytest.mark.parametrize(
    ("number", "unit", "size"),
    [
        ("1", None, 1024),
        ("3", "b", 3),
        ("3", "bytes", 3),
        ("2", "KB", 2000),
        ("2", "k", 2048),
        ("2", "KiB", 2048),
        ("2", "MB", 2 * 10**6),
        ("2", "M", 2**21),
        ("2", "mib", 2**21),
        ("1", "G", 2**30),
        ("1", "TB", 10**12),
        ("1", "EiB", 2**60),
        (None, "KiB", 0),
    ],
)
def test_units_of_memory(number: str | None, unit: str | None, size: int) -> None:
    assert scaled_bytes(number, unit, "memory") == size


def test_numbers() -> None:
    assert [integer(text, 7, "n") for text in (None, " ", "0x1F", "-1", " 5 ")] == [7, 7, 31, -1, 5]
    for text in ("1.5", "0x", "1e3", "\u0661", "1_0"):
        with pytest.raises(DevicevmError, match="is no number"):
            integer(text, 0, "n")


def test_features_of_models() -> None:
    assert "avx512f" in expand_features("Skylake-Server", ())
    assert "avx512f" not in expand_features("Haswell", ())
    assert expand_features("Haswell", ("vmx",), ("avx2",)) == tuple(
        sorted({*expand_features("Haswell", ()), "vmx"} - {"avx2"})
    )
    assert expand_features("NewerThanTheTable", ("b", "a")) == ("a", "b")


def test_domain_capabilities_that_support_nothing() -> None:
    support = parse_domain_capabilities(
        "<domainCapabilities><domain>qemu</domain><devices><disk supported='no'><enum name='bus'><value>x</value>"
        "</enum></disk></devices><cpu><mode name='host-model' supported='no'/></cpu></domainCapabilities>"
    )
    assert support.accelerator == "tcg" and support.disk_buses == () and support.host_features == ()


def test_pci_device_with_everything() -> None:
    device = parse_node_device(
        """<device><name>pci_0000_81_00_0</name><parent>pci_0000_80_01_0</parent><driver><name>vfio-pci</name></driver>
        <capability type='pci'><class>0x120000</class><domain>0</domain><bus>129</bus><slot>0</slot>
        <function>1</function><product id='0x09c4'>FPGA</product><vendor id='0x8086'>Intel</vendor>
        <capability type='virt_functions' maxCount='2'><address domain='0x0000' bus='0x81' slot='0x10' function='0x2'/>
        </capability><iommuGroup number='5'/><numa node='1'/></capability></device>"""
    )
    assert (device.vendor, device.product, device.class_code) == ("0x8086", "0x09c4", "0x120000")
    assert device.address == "0000:81:00.1" and device.virtual_functions == ("0000:81:10.2",)
    assert (device.iommu_group, device.node, device.driver) == (5, 1, "vfio-pci")


def test_mdev_without_uuid_has_it_in_its_name() -> None:
    name = "mdev_d069d019_36ea_4111_8f0a_8c9a70e21366_0000_00_02_0"
    device = parse_node_device(
        f"<device><name>{name}</name><capability type='mdev'><type id='t'/></capability></device>"
    )
    assert device.address == "d069d019-36ea-4111-8f0a-8c9a70e21366" and device.product == "t"


@pytest.mark.parametrize("xml", ["<device/>", "<device><name>a</name></device>", "<domain/>"])
def test_what_is_no_node_device(xml: str) -> None:
    with pytest.raises(DevicevmError, match="node device"):
        parse_node_device(xml)
