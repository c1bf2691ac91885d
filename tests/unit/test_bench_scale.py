"""What the benchmark of large fleets begins with, and its plot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from devicevm.inventory.free import free
from devicevm.planner.plan import Action
from world import ME, ModelVmm

from bench.fleets import GIB, make_fleet, make_host
from bench.growth import growth_plot
from bench.measuring import Growth, Line, Result
from bench.report import keep, known, page, plots
from bench.scale import State, against_targets, applied, measure, run, with_one_more
from bench.stage import Stage

SQUARE = Growth("clients", "seconds", (Line("square", ((10.0, 1.0), (100.0, 100.0), (1000.0, 1e4)), 1e4),))
SVG = "{http://www.w3.org/2000/svg}"


def test_a_seed_is_a_fleet() -> None:
    assert make_fleet(5, 4, 12) == make_fleet(5, 4, 12)
    assert make_fleet(5, 4, 12) != make_fleet(6, 4, 12)


def test_hosts_are_numbered_as_by_linux() -> None:
    host = make_host("h", sockets=2, cores=2, threads=2, memory=8 * GIB)
    assert [cpu.core for cpu in host.cpus] == ["core0", "core1", "core2", "core3"] * 2
    assert [cpu.node for cpu in host.cpus] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert all(cpu.id in cpu.siblings and len(cpu.siblings) == 2 for cpu in host.cpus)
    assert [(node.memory, node.cpus) for node in host.nodes] == [(4 * GIB, (0, 1, 4, 5)), (4 * GIB, (2, 3, 6, 7))]


def test_applied_is_what_the_model_of_a_vmm_has() -> None:
    fleet = make_fleet(1, hosts=4, clients=12)
    vmm = ModelVmm(*fleet.hosts)
    state = applied(fleet, vmm.apply(fleet.topology))
    assert state.observed == vmm.observe()
    policies = {policy.name: policy for policy in fleet.topology.hosts}
    for ours, theirs in zip(state.hosts, vmm.inventory(), strict=True):
        assert replace(ours, holdings=()) == replace(theirs, holdings=())
        assert sorted(ours.holdings, key=lambda one: one.domain) == sorted(theirs.holdings, key=lambda one: one.domain)
        assert free(ours, policies[ours.name]).vcpus == free(theirs, policies[ours.name]).vcpus


def test_only_a_first_plan_can_be_taken_as_applied() -> None:
    fleet = make_fleet(1, hosts=4, clients=12)
    vmm = ModelVmm(*fleet.hosts)
    vmm.apply(fleet.topology)
    fewer = replace(fleet.topology, clients=fleet.topology.clients[1:])
    plan = vmm.plan(fewer, replace(ME, remove=frozenset({fleet.topology.clients[0].name})))
    assert Action.UNDEFINE in {step.action for step in plan.steps}
    with pytest.raises(ValueError, match="undefine"):
        applied(fleet, plan)


def test_one_more_client_is_one_more() -> None:
    fleet = make_fleet(1, hosts=4, clients=12)
    state = State(fleet.topology, fleet.hosts)
    more = with_one_more(state)
    assert len(more.topology.clients) == 13
    assert more.topology.clients[:-1] == state.topology.clients
    names = [client.name for client in more.topology.clients]
    assert names == sorted(names)


def test_growth_plot() -> None:
    """A straight line of slope 2 is drawn straight and named so; its limit is where its end would be at the limit."""
    svg = ElementTree.fromstring(growth_plot("T", SQUARE))
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert {"T", "clients", "seconds"} <= set(texts)
    assert "square (~n^2.00)" in texts
    places = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in svg.iter(f"{SVG}circle")]
    (x1, y1), (x2, y2), (x3, y3) = places
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    (limit,) = [line for line in svg.iter(f"{SVG}line") if "stroke-dasharray" in line.attrib]
    assert float(limit.attrib["y1"]) == pytest.approx(y3, abs=0.1)


def test_the_smallest_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark itself, down to the processes in which it measures."""
    monkeypatch.setattr("bench.scale.SIZES", {10: 3})
    result = run(Stage(tmp_path, tmp_path, "tcg"), 1)
    assert [item.what for item in result.comparisons if not item.met] == []
    steps = measure("full", 10, tmp_path)["steps"], measure("again", 10, tmp_path)["steps"]
    assert steps[0] > steps[1] == 0
    memory = [part.series.median for part in result.parts if part.unit == "MiB"]
    assert len(memory) == 3
    assert all(5 < figure < 1000 for figure in memory)
    assert result.growth is not None
    assert [len(line.points) for line in result.growth.lines] == [1, 1, 1]


def test_what_was_stopped_misses_its_target() -> None:
    reached = {("full", 10000): [{"seconds": 9.0, "MiB": 500.0}]}
    met = {item.what: item.met for item in against_targets(reached)}
    assert met == {
        "10,000 clients: a plan of everything": True,
        "10,000 clients: a plan of everything, peak memory": True,
        "10,000 clients: a plan when nothing is to do (not reached)": False,
        "10,000 clients: a plan of one more client (not reached)": False,
    }


def test_a_plot_is_made_of_what_is_kept(tmp_path: Path) -> None:
    result = Result("scale", "T", "text", (), growth=SQUARE)
    keep(result, tmp_path / "kept.json")
    (found,) = known(tmp_path / "kept.json").values()
    assert found == result
    ((name, plot),) = plots([found]).items()
    assert f"![T]({name})" in page([found])
    assert "square (~n^2.00)" in plot
