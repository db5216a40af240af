"""Percentiles of each row as marks on a line, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes

from bench.lab.report.palette import stand_in
from bench.lab.report.rowwise import CHARACTER, GROUP, LINE, Bar, field, labels, places, room
from bench.lab.report.svg import SMALL, Plot, drawing, finished
from bench.lab.report.text import MISSING, Tell, number
from bench.lab.rows import Spread

_NAMES: Final = 8.0
_SCALE: Final = 22.0
_TOLD: Final = "p99"
"""The one that is filled, written out, and has its range below it."""


def spectra(
    name: str, title: str, description: str, lines: Sequence[tuple[Bar, Mapping[str, Spread]]], tell: Tell
) -> Plot | None:
    """A row without percentiles keeps its place."""
    every = [spread for _, spreads in lines for spread in spreads.values()]
    if not every:
        return None
    bars = [bar for bar, _ in lines]
    at, height = places(bars, above=_NAMES, below=_SCALE)
    texts = [tell(spreads[_TOLD].median) if _TOLD in spreads else MISSING for _, spreads in lines]
    low, high = min(spread.low for spread in every) / 1.15, max(spread.high for spread in every) * 1.15
    with drawing(height) as figure:
        axes, _ = field(figure, bars, height, right=room(texts), below=_SCALE)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        _decades(axes, low, high, at)
        labels(axes, bars, at)
        for (bar, spreads), place, text in zip(lines, at, texts, strict=True):
            if spreads:
                _spectrum(axes, bar, spreads, place)
            _behind(axes, place, text)
        if lines[0][1]:
            _percentile_names(axes, lines[0][1], at[0], grouped=bool(bars[0].group))
        return finished(figure, name, title, description)


def _spectrum(axes: Axes, bar: Bar, spreads: Mapping[str, Spread], place: float) -> None:
    middles = [spread.median for spread in spreads.values()]
    colour = stand_in(bar.colour)
    axes.plot([middles[0], middles[-1]], [place, place], color=colour, linewidth=1.0)
    for name, spread in spreads.items():
        face = colour if name == _TOLD else stand_in("paper")
        axes.plot(spread.median, place, "o", markersize=5.5, markerfacecolor=face, markeredgecolor=colour)
    if told := spreads.get(_TOLD):
        axes.plot([told.low, told.high], [place - 5.5, place - 5.5], color=stand_in("soft"), linewidth=0.8)


def _behind(axes: Axes, place: float, text: str) -> None:
    axes.annotate(
        text,
        (1, place),
        (5, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center_baseline",
        color=stand_in("ink"),
        annotation_clip=False,
    )


def _percentile_names(axes: Axes, spreads: Mapping[str, Spread], place: float, *, grouped: bool) -> None:
    """Above the first row's marks and its group's name: the one that is told, and others as far as there is room."""
    up = LINE / 2 + (GROUP if grouped else 3)
    taken: list[float] = []
    for name in sorted(spreads, key=lambda name: name != _TOLD):
        at = axes.transData.transform((spreads[name].median, place))[0]
        if all(abs(at - other) >= CHARACTER * (len(name) + 1) for other in taken):
            taken.append(at)
            axes.annotate(
                name,
                (spreads[name].median, place),
                (0, up),
                textcoords="offset points",
                ha="center",
                color=stand_in("soft"),
                fontsize=SMALL - 1.5,
                annotation_clip=False,
            )


def _decades(axes: Axes, low: float, high: float, places: Sequence[float]) -> None:
    """Thin lines at 1, 2, 5 and their tenfolds, few enough to be told apart."""
    steps = (1, 2, 5) if high / low < 300 else (1,)
    first = math.floor(math.log10(low))
    ticks = [step * 10.0**power for power in range(first, first + 9) for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [number(tick) if tick >= 1 else f"{tick:g}" for tick in shown], minor=False)
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="x", length=0, labelcolor=stand_in("soft"), pad=5, bottom=True, labelbottom=True)
    axes.vlines(shown, places[-1] - LINE / 2, places[0] + LINE / 2, color=stand_in("rule"), linewidth=0.6, zorder=0)
