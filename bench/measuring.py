"""Figures and how they are taken: several runs of each side in turn, medians, and ratios pair by pair.

Machines are noisy, and noise comes in waves. So the sides take turns (A B A B), a ratio is that of two neighbours,
and what is reported is the median with the extremes beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Figures = dict[str, float]


@dataclass(frozen=True)
class Series:
    """The same figure of several runs."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The least one."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The greatest one."""
        return max(self.values)


@dataclass(frozen=True)
class Comparison:
    """One figure of devicevm's and the same of a peer's, run by run. `target`: the ratio not to exceed; 0 = none."""

    what: str
    unit: str
    ours: Series
    peer: Series
    against: str
    target: float = 0.0

    @property
    def ratios(self) -> Series:
        """Ours to the peer's, pair by pair."""
        return Series(tuple(ours / peer for ours, peer in zip(self.ours.values, self.peer.values, strict=True)))

    @property
    def met(self) -> bool:
        """Whether the target, if there is one, is met."""
        return not self.target or self.ratios.median <= self.target


@dataclass(frozen=True)
class Part:
    """A figure by itself: where time goes, or what stands beside a comparison."""

    what: str
    unit: str
    series: Series


@dataclass(frozen=True)
class Line:
    """One curve: its points, all positive, and the limit to keep below at the right end (0 = none)."""

    name: str
    points: tuple[tuple[float, float], ...]
    limit: float = 0.0


@dataclass(frozen=True)
class Growth:
    """Curves to plot, and what the axes are: `across` of the x, `up` of the y, with its unit."""

    across: str
    up: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Result:
    """What a benchmark found. `text`: what is compared, and how. `date`: when (ISO 8601, UTC). `growth` is plotted."""

    name: str
    title: str
    text: str
    comparisons: tuple[Comparison, ...]
    parts: tuple[Part, ...] = ()
    date: str = ""
    load: float = 0.0
    """The load average of the machine before it began: what others did."""
    growth: Growth | None = None


def take_turns(
    runs: int, sides: Sequence[Callable[[], Figures]], say: Callable[[str], None], *, warm: bool = True
) -> list[list[Figures]]:
    """The figures of each side, one a run; with `warm` each side runs once before that for nothing, to fill caches."""
    for side in sides if warm else ():
        side()
    found: list[list[Figures]] = [[] for _ in sides]
    for run in range(runs):
        for side, figures in zip(sides, found, strict=True):
            figures.append(side())
        first = ", ".join(f"{next(iter(figures[-1].values())):.4g}" for figures in found)
        say(f"run {run + 1} of {runs}: {first}")
    return found


def series(figures: Sequence[Figures], key: str) -> Series:
    """One figure of all runs."""
    return Series(tuple(figure[key] for figure in figures))


def parts_of(figures: Sequence[Figures], unit: str, prefix: str = "") -> tuple[Part, ...]:
    """Every figure of a side, as parts."""
    return tuple(Part(prefix + key, unit, series(figures, key)) for key in figures[0])
