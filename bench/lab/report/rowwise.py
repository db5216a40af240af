"""What plots with a line for each row have in common: groups, labels at the left, text behind the ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.lab.report.palette import stand_in
from bench.lab.report.svg import SMALL, WIDTH

LINE: Final = 21.0
GROUP: Final = 23.0
MARGIN: Final = 8.0
_LONG: Final = 26
_LEADING: Final = 9.5
CHARACTER: Final = 6.3
"""Width of one, about."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One row under the name of its group. `colour` is a name of the palette; `text` stands behind its end."""

    group: str
    label: str
    colour: str
    text: str = ""


def places(bars: Sequence[Bar], *, above: float = 0.0, below: float = 0.0) -> tuple[list[float], float]:
    """The middle of each row, from the bottom, and the height of it all."""
    tops, at, group = [], MARGIN + above, ""
    for bar in bars:
        if bar.group != group:
            at += GROUP
            group = bar.group
        tops.append(at + LINE / 2)
        at += LINE
    height = at + MARGIN + below
    return [height - below - top for top in tops], height


def field(
    figure: Figure, bars: Sequence[Bar], height: float, *, right: float, below: float = 0.0
) -> tuple[Axes, float]:
    """Axes in which a unit of y is a pixel, between labels and texts; and their width."""
    left = min(WIDTH * 0.42, max(room([_wrapped(bar.label) for bar in bars]), 40.0))
    width = WIDTH - left - right
    axes = figure.add_axes((left / WIDTH, below / height, width / WIDTH, 1 - below / height))
    axes.set_ylim(0, height - below)
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_yticks([])
    axes.set_xticks([])
    return axes, width


def labels(axes: Axes, bars: Sequence[Bar], places: Sequence[float]) -> None:
    """Names of rows, and of their groups above them."""
    group = ""
    for bar, place in zip(bars, places, strict=True):
        _beside(axes, bar.label, place)
        if bar.group != group:
            group = bar.group
            left = -axes.get_position().x0 / axes.get_position().width
            axes.text(
                left,
                place + LINE / 2 + 4,
                group,
                transform=axes.get_yaxis_transform(),
                color=stand_in("ink"),
                fontweight="bold",
            )


def _beside(axes: Axes, label: str, place: float) -> None:
    """Each line is a text of its own: only so does it end where it should in the reader's font."""
    told = _wrapped(label).splitlines()
    for number, line in enumerate(told):
        axes.annotate(
            line,
            (0, place),
            (-7, (len(told) - 1) * _LEADING / 2 - number * _LEADING),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="center_baseline",
            color=stand_in("ink"),
            fontsize=SMALL if len(told) == 1 else SMALL - 1,
            annotation_clip=False,
        )


def text(axes: Axes, x: float, place: float, text: str, colour: str = "ink") -> None:
    """Beginning at `x`."""
    axes.text(x, place, text, va="center_baseline", color=stand_in(colour))


def room(texts: Sequence[str]) -> float:
    """About the width of the longest line."""
    return 14 + CHARACTER * max((len(line) for text in texts for line in text.splitlines()), default=0)


def _wrapped(label: str) -> str:
    """A long label in two lines of about the same length, broken at a comma."""
    parts = label.split(", ")
    if len(label) <= _LONG or len(parts) < 2:
        return label
    ways = [(", ".join(parts[:at]) + ",", ", ".join(parts[at:])) for at in range(1, len(parts))]
    return "\n".join(min(ways, key=lambda lines: max(map(len, lines))))
