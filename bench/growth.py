"""A plot of growth as SVG: both axes logarithmic, so a straight line is a power and its slope the exponent."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from xml.etree import ElementTree

from .measuring import Growth, Line

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 110, 60
COLOURS = ("#1f6fb2", "#c2571a", "#2c8a4b", "#7a4fa3")


def growth_plot(title: str, growth: Growth) -> str:
    """The plot as an SVG document: each curve with its slope (the exponent of growth at its end) in the key."""
    scale = _Scale(growth.lines)
    svg = ElementTree.Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "font-family": "sans-serif"},
    )
    ElementTree.SubElement(svg, "rect", {"width": str(WIDTH), "height": str(HEIGHT), "fill": "white"})
    _text(svg, WIDTH / 2, 20, title, size=15, anchor="middle")
    scale.draw(svg)
    _text(svg, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 15, growth.across, anchor="middle")
    _text(svg, 10, TOP - 12, growth.up)
    for number, (line, colour) in enumerate(zip(growth.lines, COLOURS, strict=False)):
        places = [scale.place(x, y) for x, y in line.points]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        ElementTree.SubElement(
            svg, "polyline", {"points": joined, "fill": "none", "stroke": colour, "stroke-width": "2"}
        )
        for x, y in places:
            ElementTree.SubElement(svg, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3", "fill": colour})
        _text(svg, LEFT, 45 + 17 * number, f"{line.name}{_exponent(line)}", colour=colour)
        if line.limit:
            x, y = scale.place(10.0**scale.right, line.limit)
            ends = {"x1": f"{x - 40:.1f}", "x2": f"{x:.1f}", "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
            ElementTree.SubElement(svg, "line", {**ends, "stroke": colour, "stroke-dasharray": "4 3"})
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


class _Scale:
    """Whole decades that hold every point."""

    def __init__(self, lines: Sequence[Line]) -> None:
        across = [x for line in lines for x, _ in line.points] or [1.0]
        up = [y for line in lines for y in (*(y for _, y in line.points), line.limit) if y > 0] or [1.0]
        self.left, self.right = _decades(across)
        self.low, self.high = _decades(up)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is drawn."""
        across = (log10(x) - self.left) / (self.right - self.left)
        up = (log10(y) - self.low) / (self.high - self.low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def draw(self, svg: ElementTree.Element) -> None:
        """A line and a number for each decade."""
        for power in range(self.left, self.right + 1):
            x, y = self.place(10.0**power, 10.0**self.low)
            _rule(svg, (x, x), (TOP, y))
            _text(svg, x, y + 20, f"{10**power:,}", anchor="middle")
        for power in range(self.low, self.high + 1):
            x, y = self.place(10.0**self.left, 10.0**power)
            _rule(svg, (x, WIDTH - RIGHT), (y, y))
            _text(svg, x - 8, y + 4, f"{10.0**power:g}", anchor="end")


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    return low, max(high, low + 1)


def _exponent(line: Line) -> str:
    if len(line.points) < 2:
        return ""
    (x1, y1), (x2, y2) = line.points[-2:]
    return f" (~n^{(log10(y2) - log10(y1)) / (log10(x2) - log10(x1)):.2f})"


def _rule(svg: ElementTree.Element, across: tuple[float, float], up: tuple[float, float]) -> None:
    ends = {"x1": across[0], "x2": across[1], "y1": up[0], "y2": up[1]}
    ElementTree.SubElement(svg, "line", {**{key: f"{value:.1f}" for key, value in ends.items()}, "stroke": "#ddd"})


def _text(
    svg: ElementTree.Element,
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    anchor: str = "start",
    colour: str = "#222",
) -> None:
    where = {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-size": str(size), "text-anchor": anchor, "fill": colour}
    ElementTree.SubElement(svg, "text", where).text = words
