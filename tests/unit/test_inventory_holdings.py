"""What domains hold: CPU sets, pins, memory, devices, devicevm's own metadata."""

from __future__ import annotations

import time

import pytest
from devicevm.errors import DevicevmError
from devicevm.inventory.cpuset import MAX_CPUS, format_cpuset, parse_cpuset
from devicevm.inventory.holdings import holding_from_xml
from devicevm.inventory.host import Holding
from devicevm.inventory.offline import host_from_documents
from hypothesis import given
from hypothesis import strategies as st

DOMAIN = (
    "<domain type='kvm'><name>web</name><uuid>u</uuid><memory unit='MiB'>512</memory>"
    "<currentMemory unit='MiB'>256</currentMemory>{}</domain>"
)
METADATA = (
    "<metadata><d:domain xmlns:d='urn:devicevm:v1' owner='shop' role='device-vm' digest='0'>"
    "<d:allocation dedicated='{}'/></d:domain></metadata>"
)


def holding(inner: str, cpus: int = 8) -> Holding:
    return running(inner, inner, cpus)


def running(defined: str, live: str, cpus: int = 8) -> Holding:
    return holding_from_xml(DOMAIN.format(defined), DOMAIN.format(live), frozenset(range(cpus)))


def test_idle_processors_and_huge_pages_are_held() -> None:
    inner = METADATA.format("yes").replace("/></d:", " idle='4,5'/></d:")
    inner += "<cputune><vcpupin vcpu='0' cpuset='0'/></cputune>"
    inner += "<memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages></memoryBacking>"
    found = holding(inner)
    assert (found.cpus, found.dedicated, found.page_size) == ((0, 4, 5), True, 2**21)
    assert holding(METADATA.format("yes")).page_size == 0


@given(st.sets(st.integers(0, MAX_CPUS - 1), max_size=50))
def test_cpusets_survive_the_round_trip(cpus: set[int]) -> None:
    assert parse_cpuset(format_cpuset(cpus)) == tuple(sorted(cpus))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8))
def test_cpusets_are_read_from_left_to_right(items: list[tuple[bool, int, int]]) -> None:
    expected: set[int] = set()
    words = []
    for taken, first, size in items:
        if taken:
            expected.discard(first)
            words.append(f"^{first}")
        else:
            expected.update(range(first, first + size + 1))
            words.append(f"{first}-{first + size}")
    assert parse_cpuset(", ".join(words)) == tuple(sorted(expected))


def test_cpusets() -> None:
    assert parse_cpuset("0-3,^2,8") == (0, 1, 3, 8)
    assert parse_cpuset(" ") == ()
    assert format_cpuset([8, 1, 0, 2, 1]) == "0-2,8"
    assert format_cpuset([]) == ""


@pytest.mark.parametrize("text", ["a", "1,", ",", "3-1", "^1-2", "-1", "0-16384", "0-99999999999", "1 2-"])
def test_no_cpusets(text: str) -> None:
    with pytest.raises(DevicevmError, match="no set of CPUs"):
        parse_cpuset(text)


def test_a_plain_domain_floats_and_holds_all_it_may_take() -> None:
    assert holding("<vcpu current='1'>4</vcpu>") == Holding(
        domain="web", uuid="u", active=True, vcpus=4, memory=512 * 2**20, cpus=(), floats=True
    )


@pytest.mark.parametrize(
    ("inner", "cpus", "floats"),
    [
        ("<vcpu cpuset='0-3,^2'>2</vcpu>", (0, 1, 3), False),
        (
            "<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/><vcpupin vcpu='1' cpuset='5'/></cputune>",
            (1, 5),
            False,
        ),
        ("<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/></cputune>", (1,), True),
        ("<vcpu cpuset='6'>2</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/></cputune>", (1, 6), False),
        ("<vcpu>1</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/><vcpupin vcpu='3' cpuset='7'/></cputune>", (1,), False),
        (
            "<vcpu>1</vcpu><cputune><emulatorpin cpuset='2'/><iothreadpin iothread='1' cpuset='3'/></cputune>",
            (2, 3),
            True,
        ),
        ("<vcpu cpuset='0-7'>2</vcpu>", (), True),
        ("<vcpu>2</vcpu><cputune><shares>2048</shares></cputune>", (), True),
        ("", (), True),
    ],
)
def test_pins(inner: str, cpus: tuple[int, ...], floats: bool) -> None:
    found = holding(inner)
    assert (found.cpus, found.floats) == (cpus, floats)


PIN = "<vcpu>1</vcpu><cputune><vcpupin vcpu='0' cpuset='{}'/></cputune>"
ANYWHERE = "<vcpu>1</vcpu>"


@pytest.mark.parametrize(
    ("defined", "live", "cpus", "floats"),
    [
        (ANYWHERE, PIN.format(2), (2,), True),
        (PIN.format(2), ANYWHERE, (2,), True),
        (PIN.format(2), PIN.format("0-7"), (2,), True),
        (PIN.format(2), PIN.format(5), (2, 5), False),
        (PIN.format(2), PIN.format(2), (2,), False),
    ],
)
def test_what_runs_is_judged_by_its_pins_and_by_those_of_its_next_start(
    defined: str, live: str, cpus: tuple[int, ...], floats: bool
) -> None:
    found = running(defined, live)
    assert (found.active, found.cpus, found.floats) == (True, cpus, floats)
    assert not holding_from_xml(DOMAIN.format(defined)).active


def test_what_was_changed_while_it_runs_is_held_as_well() -> None:
    card = "<address domain='0' bus='0x{}' slot='0' function='0'/>"
    one, other = (f"<hostdev type='pci'><source>{card.format(bus)}</source></hostdev>" for bus in ("01", "02"))
    nodes = "<numatune><memory mode='strict' nodeset='{}'/></numatune>"
    found = running(
        f"<vcpu>4</vcpu>{nodes.format(0)}<devices>{one}</devices>",
        f"<vcpu>2</vcpu>{nodes.format(1)}<devices>{other}</devices>",
    )
    assert (found.vcpus, found.nodes) == (4, (1,))
    assert found.node_devices == ("0000:01:00.0", "0000:02:00.0")


def test_all_cpus_one_by_one_are_pins() -> None:
    pins = "".join(f"<vcpupin vcpu='{cpu}' cpuset='{cpu}'/>" for cpu in range(8))
    found = holding(f"<vcpu>8</vcpu><cputune>{pins}</cputune>")
    assert found.cpus == tuple(range(8)) and not found.floats


def test_a_whole_host_can_be_dedicated() -> None:
    found = holding(METADATA.format("yes") + "<vcpu cpuset='0-7'>2</vcpu>")
    assert found.cpus == tuple(range(8)) and not found.floats and found.dedicated and found.owner == "shop"
    assert not holding(METADATA.format("no")).dedicated


def test_memory_nodes() -> None:
    assert holding("<numatune><memory mode='strict' nodeset='0-1'/></numatune>").nodes == (0, 1)
    assert holding("<numatune><memory mode='preferred' nodeset='0'/></numatune>").nodes == ()
    assert holding("<numatune><memory mode='strict' placement='auto'/></numatune>").nodes == ()
    cells = "<memnode cellid='0' mode='strict' nodeset='1'/><memnode cellid='1' mode='{}' nodeset='3'/>"
    assert holding(f"<numatune>{cells.format('strict')}</numatune>").nodes == (1, 3)
    assert holding(f"<numatune>{cells.format('preferred')}</numatune>").nodes == ()


def test_node_devices() -> None:
    pci = "<address domain='0x0000' bus='0x{}' slot='0x10' function='0x7'/>"
    found = holding(
        f"""<devices>
        <hostdev mode='subsystem' type='pci'><source>{pci.format("02")}</source>
          <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/></hostdev>
        <hostdev mode='subsystem' type='mdev' model='vfio-pci'><source>
          <address uuid='C2177883-F1BB-47F0-914D-32A22E3A8804'/></source></hostdev>
        <hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><address bus='2' device='1'/></source></hostdev>
        <hostdev mode='subsystem' type='scsi'><source><adapter name='h'/><address bus='0' target='0' unit='0'/>
          </source></hostdev>
        <interface type='hostdev'><source>{pci.format("03").replace("address", "address type='pci'")}</source>
          </interface>
        <disk type='nvme'><source type='pci' namespace='1'>{pci.format("04")}</source></disk></devices>"""
    )
    assert found.node_devices == (
        "0000:02:10.7",
        "0000:03:10.7",
        "0000:04:10.7",
        "c2177883-f1bb-47f0-914d-32a22e3a8804",
        "usb:2:1",
    )


def test_memory_is_rounded_up_to_kib() -> None:
    xml = "<domain><name>a</name><memory unit='b'>1025</memory></domain>"
    assert holding_from_xml(xml).memory == 2048


def test_errors_name_the_domain() -> None:
    with pytest.raises(DevicevmError, match="domain web: memory: 'x' is no number"):
        holding_from_xml("<domain><name>web</name><memory>x</memory></domain>")
    # A foreign domain must not cost time either.
    pin = "<vcpu>999999999999999</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/></cputune>"
    assert holding(pin).floats


def test_five_hundred_domains_cost_little() -> None:
    """Well under 0.3 s where it was measured (docs/inventory.md); the bound leaves room for slow machines."""
    devices = "".join(f"<disk type='file'><source file='/{n}'/><target dev='vd{n}'/></disk>" for n in range(40))
    domains = [(DOMAIN.format(f"<vcpu cpuset='{n % 8}'>2</vcpu><devices>{devices}</devices>"),) * 2 for n in range(500)]
    start = time.perf_counter()
    host = host_from_documents(
        "<capabilities><host><cpu><arch>x</arch></cpu></host></capabilities>", name="a", cpu_count=8, domains=domains
    )
    assert time.perf_counter() - start < 2
    assert len(host.holdings) == 500 and not any(one.floats for one in host.holdings)
