"""Results as text: on the terminal, in the page, and as JSON from which both can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from devicevm.record import from_data, to_data

from .growth import growth_plot
from .machine import describe
from .measuring import Result, Series

HEAD = """\
# Benchmarks

<!-- Made by `make bench`. -->

What devicevm adds to the work that it has others do. Each side runs in turn (A B A B); figures are medians, with the
least and the greatest in parentheses; a ratio is that of neighbouring runs. Ratios say more than figures, which are
those of one small machine without hardware virtualisation, unless it says otherwise below.

    make bench                                  # everything; makes this page
    make bench ARGS='start --runs 15'           # one of them, or several; --help names them
    make bench ARGS='peers'                     # the planner against the optimum and against OpenStack Nova

"""


def keep(result: Result, path: Path) -> None:
    """Put a result beside those that are there; one of the same name is replaced."""
    results = {**known(path), result.name: result}
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": describe(), "results": [to_data(item) for item in results.values()]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def known(path: Path) -> dict[str, Result]:
    """The results that are kept, by name."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {item["name"]: from_data(Result, item) for item in found}


def page(results: Iterable[Result]) -> str:
    """The whole page."""
    machine = "".join(f"| {key} | {value} |\n" for key, value in describe().items())
    sections = "".join(f"\n{_section(result)}{_image(result)}" for result in results)
    return HEAD + "| machine | |\n|---|---|\n" + machine + sections


def plots(results: Iterable[Result]) -> dict[str, str]:
    """The SVG files that the page shows, by name."""
    return {_plot_name(result): growth_plot(result.title, result.growth) for result in results if result.growth}


def table(result: Result) -> str:
    """A result for the terminal."""
    return _section(result)


def _plot_name(result: Result) -> str:
    return f"benchmarks-{result.name}.svg"


def _image(result: Result) -> str:
    return f"\n![{result.title}]({_plot_name(result)})\n" if result.growth else ""


def _section(result: Result) -> str:
    load = f" The machine's load average was {result.load:g} before."
    lines = [f"## {result.title}", "", result.text, "", f"Measured {result.date}.{load}", ""]
    if result.comparisons:
        lines += ["| | devicevm | against | its figure | ratio | target |", "|---|---|---|---|---|---|"]
    for item in result.comparisons:
        target = f"<= {item.target:g}: {'met' if item.met else 'missed'}" if item.target else ""
        ours, peer = (f"{_text(figures)} {item.unit}" for figures in (item.ours, item.peer))
        lines.append(f"| {item.what} | {ours} | {item.against} | {peer} | {_text(item.ratios)} | {target} |")
    if result.parts:
        head = ["", "| where it goes | |"] if result.comparisons else ["| what | |"]
        lines += [*head, "|---|---|"]
        lines += [f"| {part.what} | {_text(part.series)} {part.unit} |" for part in result.parts]
    return "\n".join(lines) + "\n"


def _text(figures: Series) -> str:
    if len(figures.values) == 1:
        return _number(figures.median)
    return f"{_number(figures.median)} ({_number(figures.low)}-{_number(figures.high)})"


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
