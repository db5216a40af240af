"""Plots with a length for each row: medians with their range, and stacks of roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.lab.report import palette
from bench.lab.report.palette import stand_in
from bench.lab.report.rowwise import CHARACTER, MARGIN, Bar, field, labels, places, room, text
from bench.lab.report.svg import WIDTH, Plot, drawing, finished
from bench.lab.report.text import Tell, middle
from bench.lab.rows import Spread, roles_in_order

_THICK: Final = 11.0
_LEGEND: Final = 24.0


def lengths(
    name: str, title: str, description: str, bars: Sequence[tuple[Bar, Spread | None]], tell: Tell
) -> Plot | None:
    """Medians from zero, with the range as a whisker."""
    if not any(spread for _, spread in bars):
        return None
    at, height = places([bar for bar, _ in bars])
    texts = [f"{middle(spread, tell)}{bar.text}" for bar, spread in bars]
    most = max(spread.high for _, spread in bars if spread)
    with drawing(height) as figure:
        axes, width = field(figure, [bar for bar, _ in bars], height, right=room(texts))
        axes.set_xlim(0, most)
        labels(axes, [bar for bar, _ in bars], at)
        for (bar, spread), place, told in zip(bars, at, texts, strict=True):
            if spread is None:
                text(axes, 0, place, told, colour="soft")
                continue
            axes.barh(place, spread.median, _THICK, color=stand_in(bar.colour), linewidth=0)
            _whisker(axes, spread, place)
            text(axes, spread.high + 5 * most / width, place, told)
        return finished(figure, name, title, description)


def stacks(
    name: str, title: str, description: str, bars: Sequence[tuple[Bar, Mapping[str, Spread]]], tell: Tell
) -> Plot | None:
    """Medians of roles side by side, and their sum."""
    roles = roles_in_order(role for _, spreads in bars for role in spreads)
    if not roles:
        return None
    at, height = places([bar for bar, _ in bars], above=_LEGEND)
    sums = [sum(each.median for each in spreads.values()) for _, spreads in bars]
    texts = [tell(total) for total in sums]
    with drawing(height) as figure:
        axes, width = field(figure, [bar for bar, _ in bars], height, right=room(texts))
        axes.set_xlim(0, max(sums))
        _legend(figure, roles, height)
        labels(axes, [bar for bar, _ in bars], at)
        for (_, spreads), place, told, total in zip(bars, at, texts, sums, strict=True):
            start = 0.0
            for role, spread in spreads.items():
                colour = stand_in(palette.role(role))
                axes.barh(
                    place, spread.median, _THICK, left=start, color=colour, edgecolor=stand_in("paper"), linewidth=0.6
                )
                start += spread.median
            text(axes, total + 5 * max(sums) / width, place, told)
        return finished(figure, name, title, description)


def _whisker(axes: Axes, spread: Spread, place: float) -> None:
    """Light within the bar, dark beyond it."""
    for end, colour in ((spread.low, "paper"), (spread.high, "ink")):
        if end != spread.median:
            axes.plot([spread.median, end], [place, place], color=stand_in(colour), linewidth=1.0)
            axes.plot([end, end], [place - 3, place + 3], color=stand_in(colour), linewidth=1.0)


def _legend(figure: Figure, roles: Sequence[str], height: float) -> None:
    at = 2.0
    for role in roles:
        top = 1 - (MARGIN + 7) / height
        figure.text(at / WIDTH, top, "\N{BLACK SQUARE}", color=stand_in(palette.role(role)), va="center_baseline")
        figure.text((at + 13) / WIDTH, top, role, color=stand_in("soft"), va="center_baseline")
        at += 13 + CHARACTER * (len(role) + 2)
