"""Plots over a number: how a figure grows with it, and what happens to latency as load comes near the peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.lab.report.palette import stand_in
from bench.lab.report.svg import SMALL, WIDTH, Plot, drawing, finished
from bench.lab.report.text import Tell
from bench.lab.rows import Spread

HEIGHT: Final = 260.0
_LEFT, _TOP, _BOTTOM = 48.0, 12.0, 44.0
_CHARACTER: Final = 6.3
_APART: Final = 13.0
_DECADES: Final = 30.0
"""From what ratio on a scale is logarithmic."""


@dataclass(frozen=True, slots=True)
class Line:
    """`points` are (x, spread), ascending; `dashed` for one that is not the main figure."""

    label: str
    colour: str
    points: Sequence[tuple[float, Spread]]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """What the axes say. `mark` is an x with a thin line and a word."""

    x_title: str
    tell_x: Tell
    tell_y: Tell
    log_y: bool = False
    mark: tuple[float, str] | None = None


def lines(name: str, title: str, description: str, every: Sequence[Line], frame: Frame) -> Plot | None:
    """One line for each; None where there are not two points to join."""
    drawn = [line for line in every if line.points]
    if not any(len(line.points) > 1 for line in drawn):
        return None
    right = 12 + _CHARACTER * max((len(line.label) for line in drawn), default=0)
    with drawing(HEIGHT) as figure:
        axes = _axes(figure, right)
        _scales(axes, drawn, frame)
        for line in drawn:
            _draw(axes, line)
        _mark(axes, frame)
        _ends(figure, axes, drawn)
        return finished(figure, name, title, description)


def _axes(figure: Figure, right: float) -> Axes:
    axes = figure.add_axes(
        (_LEFT / WIDTH, _BOTTOM / HEIGHT, (WIDTH - _LEFT - right) / WIDTH, 1 - (_TOP + _BOTTOM) / HEIGHT)
    )
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(stand_in("soft"))
    axes.tick_params(length=3, width=0.7, color=stand_in("soft"), labelcolor=stand_in("soft"), pad=4)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=stand_in("rule"), linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _scales(axes: Axes, every: Sequence[Line], frame: Frame) -> None:
    xs = sorted({x for line in every for x, _ in line.points})
    lows = [spread.low for line in every for _, spread in line.points]
    highs = [spread.high for line in every for _, spread in line.points]
    if xs[0] > 0 and xs[-1] / xs[0] >= _DECADES:
        axes.set_xscale("log")
    span = xs[-1] - xs[0]
    if axes.get_xscale() == "linear":
        axes.set_xlim(xs[0] - 0.04 * span, xs[-1] + 0.04 * span)
    shown = xs if len(xs) <= 7 else xs[:: len(xs) // 5]
    axes.set_xticks(shown, [frame.tell_x(x) for x in shown])
    axes.set_xticks([], minor=True)
    if min(lows) > 0 and (frame.log_y or max(highs) / min(lows) >= _DECADES):
        axes.set_yscale("log")
        _log_ticks(axes, min(lows), max(highs), frame)
    else:
        axes.set_ylim(0, 1.05 * max(highs))
        ticks = [tick for tick in axes.get_yticks() if 0 <= tick <= 1.05 * max(highs)]
        axes.set_yticks(ticks, [_short(frame.tell_y(tick)) for tick in ticks])
    axes.set_xlabel(frame.x_title, color=stand_in("soft"), labelpad=6)


def _log_ticks(axes: Axes, low: float, high: float, frame: Frame) -> None:
    axes.set_ylim(low / 1.3, high * 1.3)
    steps = (1, 2, 5) if high / low < 200 else (1,)
    ticks = [step * 10.0**power for power in range(-4, 9) for step in steps]
    shown = [tick for tick in ticks if low / 1.3 <= tick <= high * 1.3]
    axes.set_yticks(shown, [_short(frame.tell_y(tick)) for tick in shown])
    axes.set_yticks([], minor=True)


def _short(tick: str) -> str:
    """Without zeros that say nothing, as in `2.50`."""
    return tick.rstrip("0").rstrip(".") if "." in tick else tick


def _draw(axes: Axes, line: Line) -> None:
    colour = stand_in(line.colour)
    xs = [x for x, _ in line.points]
    middles = [spread.median for _, spread in line.points]
    axes.vlines(xs, [s.low for _, s in line.points], [s.high for _, s in line.points], color=colour, linewidth=1.0)
    style = (0, (3, 2)) if line.dashed else "solid"
    face = stand_in("paper") if line.dashed else colour
    axes.plot(xs, middles, color=colour, linewidth=1.5, linestyle=style)
    axes.plot(xs, middles, "o", markersize=4.5, markerfacecolor=face, markeredgecolor=colour)


def _mark(axes: Axes, frame: Frame) -> None:
    if frame.mark is None:
        return
    x, word = frame.mark
    axes.axvline(x, color=stand_in("soft"), linewidth=0.8, linestyle=(0, (1, 2)))
    axes.annotate(
        word,
        (x, 1),
        (-4, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        va="top",
        color=stand_in("soft"),
        fontsize=SMALL - 1,
    )


def _ends(figure: Figure, axes: Axes, every: Sequence[Line]) -> None:
    """Each line's name beside its end."""
    ends = sorted(((_height(axes, line), line) for line in every), key=lambda end: end[0])
    edge = axes.transAxes.transform((1, 0))[0]
    for place, (_, line) in zip(_apart([height for height, _ in ends]), ends, strict=True):
        at = ((edge + 8) / WIDTH, place / HEIGHT)
        figure.text(*at, line.label, color=stand_in(line.colour), va="center_baseline")


def _height(axes: Axes, line: Line) -> float:
    x, spread = line.points[-1]
    return float(axes.transData.transform((x, spread.median))[1])


def _apart(heights: Sequence[float]) -> list[float]:
    """Ascending heights, moved up where they meet, and all down where the topmost would not fit."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + _APART) if places else height)
    most = HEIGHT - _APART / 2
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], most)
        most = places[index] - _APART
    return places
