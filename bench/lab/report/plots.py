"""Which plots a section has: found from what its rows differ in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bench.lab.axes import BROKER_NAMES, Axis, drop, grouped, label, varying
from bench.lab.document import FANRATE
from bench.lab.figures import COST, FRESHNESS, LATENCY, MEMORY, OWN, PERCENTILES, RPS, Figure, told_share
from bench.lab.report import bars, lines, palette
from bench.lab.report.lines import Frame, Line
from bench.lab.report.peers import against_fanrate, better_settings
from bench.lab.report.rowwise import Bar
from bench.lab.report.spectra import spectra
from bench.lab.report.svg import Plot
from bench.lab.report.text import SPACE, listed, megabytes, number, percent, rounded, times, value_of
from bench.lab.rows import Row, Spread

_CURVE: Final = 3
"""From so many values on, a number is an axis of its own."""
_GROWING: Final = (RPS, COST, LATENCY["p99"], FRESHNESS, MEMORY)
_TITLES: Final = {
    RPS.name: "Confirmed rates/s at full load",
    COST.name: "CPU time per rate, µs",
    LATENCY["p99"].name: "99th percentile of a POST, ms",
    FRESHNESS.name: "From POST to visible in Redis, 99th percentile, ms",
    MEMORY.name: "Memory peak, MB",
}
_MOST_BARS: Final = 48


def plots(rows: Sequence[Row], prefix: str) -> list[Plot]:
    """Those that say something about the measured rows; `prefix` makes their names unique."""
    measured = [row for row in rows if row.measured]
    if not measured:
        return []
    drawn = _hockey(measured, prefix) or _over_a_number(measured, prefix) or _by_row(measured, prefix)
    return [plot for plot in drawn if plot]


def _hockey(rows: Sequence[Row], prefix: str) -> list[Plot | None]:
    """Latency over offered load, where rows have several loads."""
    if max(len(row.offered()) for row in rows) < _CURVE:
        return []
    axes = [axis for axis in varying(rows) if axis.name != "offered"]
    every = []
    for row in rows:
        name = label(row, axes) if axes else ""
        for percentile, dashed in (("p99", False), ("p50", True)):
            points = [(100 * share, spread) for share in row.offered() if (spread := row.latency_ms(share, percentile))]
            every.append(Line(f"{name} {percentile}".strip(), _colour(row), points, dashed))
    frame = Frame("offered load, % of the peak", number, number, log_y=True, mark=(100.0, "peak"))
    told = f"Latency of a POST over the offered load, {_brokers(rows)}: 99th percentile and median, logarithmic."
    return [lines.lines(f"{prefix}-hockey", "Latency of a POST over offered load, ms", told, every, frame)]


def _over_a_number(rows: Sequence[Row], prefix: str) -> list[Plot | None]:
    """One plot for each figure, over the one number that takes several values."""
    axes = varying(rows)
    numbers = [axis for axis in axes if axis.number and len({axis.of(row) for row in rows}) >= _CURVE]
    if len(numbers) != 1:
        return []
    over, rest = numbers[0], drop(axes, numbers[0].name, "series")
    return [_growth(rows, figure, over, rest, prefix) for figure in _GROWING]


def _growth(rows: Sequence[Row], figure: Figure, over: Axis, rest: Sequence[Axis], prefix: str) -> Plot | None:
    points: dict[str, list[tuple[float, Spread]]] = {}
    colours: dict[str, str] = {}
    for row in rows:
        name = label(row, rest) if rest else ""
        x, spread = over.of(row), row.spread(figure)
        assert isinstance(x, int | float)
        points.setdefault(name, [])
        colours[name] = _colour(row)
        if spread:
            points[name].append((float(x), spread))
    every = [Line(name, colours[name], sorted(found, key=_x)) for name, found in points.items()]
    frame = Frame(over.title, lambda x: grouped(round(x)), value_of(figure))
    title = _title(figure, rows)
    description = f"{title}, over {over.title}, {_brokers(rows)}: medians and ranges."
    return lines.lines(f"{prefix}-{figure.name}", title, description, every, frame)


def _x(point: tuple[float, Spread]) -> float:
    return point[0]


def _by_row(rows: Sequence[Row], prefix: str) -> list[Plot | None]:
    """A line for each row."""
    ratios = against_fanrate(rows)
    shown = better_settings(rows) if ratios else list(rows)
    if len(shown) > _MOST_BARS:
        return []
    held = list(zip(_bars(shown), shown, strict=True))
    return [
        bars.lengths(
            f"{prefix}-rps",
            _title(RPS, rows) + (", and how many times as many Fanrate confirms" if ratios else ""),
            f"{_brokers(rows)}: medians with the range of the turns as a whisker.",
            [(_with_ratio(bar, ratios.get(row.key)), row.spread(RPS)) for bar, row in held],
            rounded,
        ),
        bars.stacks(
            f"{prefix}-cpu",
            "CPU time per rate, µs, by role",
            f"{_brokers(rows)}: medians of each role at full load and their sum, the generator left out.",
            [(bar, _without_generator(row.cpu_us())) for bar, row in held],
            number,
        ),
        spectra(
            f"{prefix}-latency",
            f"Latency of a POST at {_shares(rows)} of the peak, ms: p50, p90, p99 (filled), p99.9",
            f"{_brokers(rows)}: percentiles on a logarithmic scale; p99 is filled and written out, below it its range.",
            [(bar, _percentiles(row, Row.latency_ms)) for bar, row in held],
            number,
        ),
        spectra(
            f"{prefix}-freshness",
            f"From POST to visible in Redis at {_shares(rows)} of the peak, ms: p50, p90, p99 (filled), p99.9",
            f"{_brokers(rows)}: percentiles on a logarithmic scale; p99 is filled and written out, below it its range.",
            [(bar, _percentiles(row, Row.freshness_ms)) for bar, row in held if row.setup.system == FANRATE],
            number,
        ),
        bars.stacks(
            f"{prefix}-memory",
            "Memory peak, MB, by role",
            f"{_brokers(rows)}: medians of each role and their sum, the generator left out.",
            [(bar, _without_generator(row.memory_bytes())) for bar, row in held],
            megabytes,
        ),
    ]


def _bars(rows: Sequence[Row]) -> list[Bar]:
    """Grouped by the first thing that varies, where more than one does."""
    axes = [axis for axis in varying(rows) if axis.name != "series"]
    if len(axes) < 2:
        return [Bar("", label(row, axes), _bar_colour(row, rows)) for row in rows]
    first, *rest = axes
    return [Bar(label(row, [first]), label(row, rest), _bar_colour(row, rows)) for row in rows]


def _bar_colour(row: Row, rows: Sequence[Row]) -> str:
    """Of the broker; where systems stand side by side Fanrate alone has one."""
    if len({each.setup.system for each in rows}) < 2:
        return _colour(row)
    return "accent" if row.setup.system == FANRATE else "other"


def _with_ratio(bar: Bar, ratio: float | None) -> Bar:
    if ratio is None:
        return bar
    return Bar(bar.group, bar.label, bar.colour, f"{3 * SPACE}{times(ratio)}")


def _without_generator(spreads: dict[str, Spread]) -> dict[str, Spread]:
    return {role: spread for role, spread in spreads.items() if role != OWN}


def _percentiles(row: Row, of: Callable[[Row, float, str], Spread | None]) -> dict[str, Spread]:
    share = told_share(row.workload)
    if share is None:
        return {}
    return {name: spread for name in PERCENTILES if (spread := of(row, share, name))}


def _colour(row: Row) -> str:
    return palette.broker(row.setup.broker)


def _title(figure: Figure, rows: Sequence[Row]) -> str:
    timed = figure.name in (LATENCY["p99"].name, FRESHNESS.name)
    return f"{_TITLES[figure.name]}, at {_shares(rows)} of the peak" if timed else _TITLES[figure.name]


def _shares(rows: Sequence[Row]) -> str:
    found = {share for row in rows if (share := told_share(row.workload)) is not None}
    return listed([percent(share) for share in sorted(found)])


def _brokers(rows: Sequence[Row]) -> str:
    return listed(list(dict.fromkeys(BROKER_NAMES[row.setup.broker] for row in rows)))


def slug(text: str) -> str:
    """For names of files and places on the page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "series"


def numbered(names: Sequence[str]) -> Iterator[str]:
    """Slugs of which no two are alike."""
    seen: dict[str, int] = {}
    for name in map(slug, names):
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"
