"""Plots with a line for each row: lengths with their range, stacks of roles, spectra of percentiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.lab.report import palette
from bench.lab.report.palette import stand_in
from bench.lab.report.svg import SMALL, WIDTH, Plot, drawing, finished
from bench.lab.report.text import Tell, middle
from bench.lab.rows import Spread, roles_in_order

_LINE: Final = 21.0
_GROUP: Final = 23.0
_MARGIN: Final = 8.0
_CHARACTER: Final = 6.3
"""Width of one, about, at SMALL."""
_THICK: Final = 11.0
_LEGEND: Final = 24.0
_NAMES: Final = 8.0
_SCALE: Final = 22.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One row under the name of its group. `colour` is a name of the palette; `text` stands behind its end."""

    group: str
    label: str
    colour: str
    text: str = ""


def lengths(
    name: str, title: str, description: str, bars: Sequence[tuple[Bar, Spread | None]], tell: Tell
) -> Plot | None:
    """Medians from zero, with the range as a whisker."""
    if not any(spread for _, spread in bars):
        return None
    places, height = _places([bar for bar, _ in bars])
    texts = [f"{middle(spread, tell)}{bar.text}" for bar, spread in bars]
    most = max(spread.high for _, spread in bars if spread)
    with drawing(height) as figure:
        axes, width = _field(figure, [bar for bar, _ in bars], height, right=_room(texts))
        axes.set_xlim(0, most)
        _labels(axes, [bar for bar, _ in bars], places)
        for (bar, spread), place, text in zip(bars, places, texts, strict=True):
            if spread is None:
                _text(axes, 0, place, text, colour="soft")
                continue
            axes.barh(place, spread.median, _THICK, color=stand_in(bar.colour), linewidth=0)
            _whisker(axes, spread, place)
            _text(axes, spread.high + 5 * most / width, place, text)
        return finished(figure, name, title, description)


def stacks(
    name: str, title: str, description: str, bars: Sequence[tuple[Bar, Mapping[str, Spread]]], tell: Tell
) -> Plot | None:
    """Medians of roles side by side, and their sum."""
    roles = roles_in_order(role for _, spreads in bars for role in spreads)
    if not roles:
        return None
    places, height = _places([bar for bar, _ in bars], above=_LEGEND)
    sums = [sum(each.median for each in spreads.values()) for _, spreads in bars]
    texts = [tell(total) for total in sums]
    with drawing(height) as figure:
        axes, width = _field(figure, [bar for bar, _ in bars], height, right=_room(texts))
        axes.set_xlim(0, max(sums))
        _legend(figure, roles, height)
        _labels(axes, [bar for bar, _ in bars], places)
        for (_, spreads), place, text, total in zip(bars, places, texts, sums, strict=True):
            start = 0.0
            for role, spread in spreads.items():
                colour = stand_in(palette.role(role))
                axes.barh(
                    place, spread.median, _THICK, left=start, color=colour, edgecolor=stand_in("paper"), linewidth=0.6
                )
                start += spread.median
            _text(axes, total + 5 * max(sums) / width, place, text)
        return finished(figure, name, title, description)


def spectra(
    name: str, title: str, description: str, bars: Sequence[tuple[Bar, Mapping[str, Spread]]], tell: Tell, told: str
) -> Plot | None:
    """Percentiles of each row on a logarithmic scale; `told` is the one that is written out and has its range."""
    having = [(bar, spreads) for bar, spreads in bars if told in spreads]
    if not having:
        return None
    places, height = _places([bar for bar, _ in having], above=_NAMES, below=_SCALE)
    low = min(spread.low for _, spreads in having for spread in spreads.values())
    high = max(spread.high for _, spreads in having for spread in spreads.values())
    with drawing(height) as figure:
        axes, _ = _field(figure, [bar for bar, _ in having], height, right=_room(["0000"]), below=_SCALE)
        axes.set_xscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
        _decades(axes, low / 1.15, high * 1.15, places)
        _labels(axes, [bar for bar, _ in having], places)
        for (bar, spreads), place in zip(having, places, strict=True):
            _spectrum(axes, bar, spreads, place, told)
            axes.annotate(
                middle(spreads[told], tell),
                (1, place),
                (5, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center_baseline",
                color=stand_in("ink"),
                annotation_clip=False,
            )
        _percentile_names(axes, having[0][1], places[0], grouped=bool(having[0][0].group))
        return finished(figure, name, title, description)


def _spectrum(axes: Axes, bar: Bar, spreads: Mapping[str, Spread], place: float, told: str) -> None:
    middles = [spread.median for spread in spreads.values()]
    colour = stand_in(bar.colour)
    axes.plot([middles[0], middles[-1]], [place, place], color=colour, linewidth=1.0)
    for name, spread in spreads.items():
        face = colour if name == told else stand_in("paper")
        axes.plot(spread.median, place, "o", markersize=5.5, markerfacecolor=face, markeredgecolor=colour)
    spread = spreads[told]
    axes.plot([spread.low, spread.high], [place - 5.5, place - 5.5], color=stand_in("soft"), linewidth=0.8)


def _percentile_names(axes: Axes, spreads: Mapping[str, Spread], place: float, *, grouped: bool) -> None:
    """Above the first row's marks and its group's name, as far as there is room between them."""
    last = -math.inf
    up = _LINE / 2 + (_GROUP if grouped else 3)
    for name, spread in spreads.items():
        at = axes.transData.transform((spread.median, place))[0]
        if at - last >= _CHARACTER * len(name):
            axes.annotate(
                name,
                (spread.median, place),
                (0, up),
                textcoords="offset points",
                ha="center",
                color=stand_in("soft"),
                fontsize=SMALL - 1.5,
                annotation_clip=False,
            )
            last = at


def _decades(axes: Axes, low: float, high: float, places: Sequence[float]) -> None:
    """Thin lines at 1, 2, 5 and their tenfolds, few enough to be told apart."""
    steps = (1, 2, 5) if high / low < 300 else (1,)
    first = math.floor(math.log10(low))
    ticks = [step * 10.0**power for power in range(first, first + 9) for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown], minor=False)
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="x", length=0, labelcolor=stand_in("soft"), pad=5, bottom=True, labelbottom=True)
    axes.vlines(shown, places[-1] - _LINE / 2, places[0] + _LINE / 2, color=stand_in("rule"), linewidth=0.6, zorder=0)


def _places(bars: Sequence[Bar], *, above: float = 0.0, below: float = 0.0) -> tuple[list[float], float]:
    """The middle of each row, from the bottom, and the height of it all."""
    tops, at, group = [], _MARGIN + above, ""
    for bar in bars:
        if bar.group != group:
            at += _GROUP
            group = bar.group
        tops.append(at + _LINE / 2)
        at += _LINE
    height = at + _MARGIN + below
    return [height - below - top for top in tops], height


def _field(
    figure: Figure, bars: Sequence[Bar], height: float, *, right: float, below: float = 0.0
) -> tuple[Axes, float]:
    """Axes in which a unit of y is a pixel, between labels and texts; and their width."""
    left = min(WIDTH * 0.42, max(_room([bar.label for bar in bars]), 40.0))
    width = WIDTH - left - right
    axes = figure.add_axes((left / WIDTH, below / height, width / WIDTH, 1 - below / height))
    axes.set_ylim(0, height - below)
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_yticks([])
    axes.set_xticks([])
    return axes, width


def _labels(axes: Axes, bars: Sequence[Bar], places: Sequence[float]) -> None:
    group = ""
    for bar, place in zip(bars, places, strict=True):
        _beside(axes, bar.label, place, colour="ink")
        if bar.group != group:
            group = bar.group
            left = -axes.get_position().x0 / axes.get_position().width
            axes.text(
                left,
                place + _LINE / 2 + 4,
                group,
                transform=axes.get_yaxis_transform(),
                color=stand_in("ink"),
                fontweight="bold",
            )


def _beside(axes: Axes, text: str, place: float, colour: str) -> None:
    axes.annotate(
        text,
        (0, place),
        (-7, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="center_baseline",
        color=stand_in(colour),
        annotation_clip=False,
    )


def _text(axes: Axes, x: float, place: float, text: str, colour: str = "ink") -> None:
    axes.text(x, place, text, va="center_baseline", color=stand_in(colour))


def _whisker(axes: Axes, spread: Spread, place: float) -> None:
    """Light within the bar, dark beyond it."""
    for end, colour in ((spread.low, "paper"), (spread.high, "ink")):
        if end != spread.median:
            axes.plot([spread.median, end], [place, place], color=stand_in(colour), linewidth=1.0)
            axes.plot([end, end], [place - 3, place + 3], color=stand_in(colour), linewidth=1.0)


def _legend(figure: Figure, roles: Sequence[str], height: float) -> None:
    at = 2.0
    for role in roles:
        top = 1 - (_MARGIN + 7) / height
        figure.text(at / WIDTH, top, "\N{BLACK SQUARE}", color=stand_in(palette.role(role)), va="center_baseline")
        figure.text((at + 13) / WIDTH, top, role, color=stand_in("soft"), va="center_baseline")
        at += 13 + _CHARACTER * (len(role) + 2)


def _room(texts: Sequence[str]) -> float:
    return 14 + _CHARACTER * max((len(text) for text in texts), default=0)
