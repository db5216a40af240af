"""The tables of a section: rows in, text in cells out. HTML and markdown show the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from bench.lab.axes import AXES, BROKER_NAMES, Axis, grouped, shares, varying
from bench.lab.document import FANRATE, Tail
from bench.lab.figures import COST, FRESHNESS, MEMORY, OWN, PERCENTILES, RATES_PER_MESSAGE, RPS
from bench.lab.report.peers import against_fanrate
from bench.lab.report.text import (
    MISSING,
    Tell,
    megabytes,
    middle,
    number,
    percent,
    rounded,
    times,
    within,
)
from bench.lab.rows import Row, Spread, roles_in_order

_RANGE: Final = "range"


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    unit: str = ""
    figures: bool = True
    """Set to the right."""


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` hold as many cells as there are columns; a first cell is the row's head."""

    caption: str
    columns: list[Column]
    rows: list[list[str]]
    note: str = ""
    emphasized: list[bool] = field(default_factory=list)
    """Of each row; none where all are alike."""


_COUNTS: Final = ("sent, at most", "confirmed", "counted")
_BOOKS: Final = ("sent", "confirmed", "counted", "loss", "dup")
_REASON: Final = Column("reason", figures=False)


def tables(rows: Sequence[Row]) -> list[Table]:
    """All that can be told of the rows of a section."""
    measured = [row for row in rows if row.measured]
    if not measured:
        return []
    heads = heading(rows)
    made = [
        _peaks(measured, heads),
        _latencies(measured, heads),
        _roles(measured, heads, "CPU time per rate, by role, at full load", Row.cpu_us, number, "µs", OWN),
        _roles(measured, heads, "Memory peak, by role", Row.memory_bytes, megabytes, "MB", OWN),
        _books(measured, heads),
    ]
    return [table for table in made if table]


def troubles(rows: Sequence[Row]) -> Table | None:
    """What was not measured, and why."""
    heads = heading(rows)
    told = [
        [*_head(row, heads), outcome, grouped(turns), reason]
        for row in rows
        for (outcome, reason), turns in [*row.reasons.items(), *_void_loads(row)]
    ]
    if not told:
        return None
    columns = [
        *_head_columns(heads),
        Column("outcome", figures=False),
        Column("turns"),
        _REASON,
    ]
    return Table("Not measured", columns, told)


def _void_loads(row: Row) -> list[tuple[tuple[str, str], int]]:
    """Loads on a schedule that give no latency: each kind of reason once, as its worst turn tells it."""
    told: list[tuple[tuple[str, str], int]] = []
    for share, tails in row.void_loads().items():
        kinds: dict[tuple[bool, bool], list[Tail]] = {}
        for tail in tails:
            kinds.setdefault((tail.fell_behind, tail.unsent > 0), []).append(tail)
        for several in kinds.values():
            worst = max(several, key=lambda tail: (tail.unsent, tail.failed))
            told.append((("void load", f"at {percent(share)} of the peak: {worst.void}"), len(several)))
    return told


def heading(rows: Sequence[Row]) -> list[Axis]:
    """The axes that tell rows apart, the broker where none does."""
    return [axis for axis in varying(rows) if axis.name != "series"] or [axis for axis in AXES if axis.name == "broker"]


def _peaks(rows: Sequence[Row], heads: Sequence[Axis]) -> Table:
    columns = [
        *_head_columns(heads),
        Column("confirmed", "rates/s"),
        Column(_RANGE),
        Column("CPU per rate", "µs"),
        Column(_RANGE),
        Column("per message", "rates"),
        Column("memory", "MB"),
        Column("turns"),
    ]
    peers = against_fanrate(rows)
    if peers:
        columns.append(Column("Fanrate against it", "rates/s"))
    told = []
    for row in rows:
        rps, cost = row.spread(RPS), row.spread(COST)
        cells = [middle(rps, rounded), within(rps, rounded), middle(cost), within(cost)]
        cells += [middle(row.spread(RATES_PER_MESSAGE)), middle(row.spread(MEMORY), megabytes)]
        cells.append(grouped(len(row.measured)))
        if peers:
            ratio = peers.get(row.key)
            cells.append(times(ratio) if ratio else MISSING)
        told.append([*_head(row, heads), *cells])
    note = "Median of the turns and their range, in a closed loop, from which no latency is taken."
    if peers:
        note += " Fanrate's CPU time and memory hold the counting too, which the others leave undone."
    return Table("Full load", columns, told, note, _own(rows))


def _latencies(rows: Sequence[Row], heads: Sequence[Axis]) -> Table | None:
    """One line for each offered load that was kept."""
    fresh = any(row.spread(FRESHNESS) for row in rows)
    columns = [*_head_columns(heads), Column("of the peak"), Column("offered", "requests/s")]
    columns += [Column(name, "ms") for name in PERCENTILES] + [Column("p99, range", "ms")]
    columns += [Column("visible, p50", "ms"), Column("visible, p99", "ms")] if fresh else []
    failing = any(_failed(row, share) for row in rows for share in row.offered())
    columns += [Column("not confirmed", "requests")] if failing else []
    columns.append(Column("turns"))
    told, emphasized = [], []
    for row in rows:
        for share in row.offered():
            at = {name: row.latency_ms(share, name) for name in PERCENTILES}
            cells = [percent(share), rounded(row.scheduled_per_s(share)), *(middle(each) for each in at.values())]
            cells.append(within(at["p99"]))
            cells += [middle(row.freshness_ms(share, name)) for name in ("p50", "p99")] if fresh else []
            cells += [number(_failed(row, share))] if failing else []
            cells.append(grouped(row.counting(share)))
            told.append([*_head(row, heads), *cells])
            emphasized.append(row.setup.system == FANRATE)
    if not told:
        return None
    note = "Open loop: requests leave on a schedule, and each counts from when it should have left."
    if fresh:
        note += " Visible: from sending a rate until Redis shows it."
    if failing:
        note += " Requests that were not confirmed have no latency; they are counted over all turns."
    return Table("Latency on a schedule", columns, told, note, emphasized if not all(emphasized) else [])


def _failed(row: Row, share: float) -> int:
    """Requests without a confirm, few enough for the latencies of the others to count."""
    return sum(tail.failed for run in row.measured for tail in run.tails if tail.offered == share and not tail.void)


def _roles(
    rows: Sequence[Row],
    heads: Sequence[Axis],
    caption: str,
    of: Callable[[Row], Mapping[str, Spread]],
    tell: Tell,
    unit: str,
    apart: str,
) -> Table | None:
    """Medians, and a sum over all roles but the generator, which stands apart."""
    told = {row.key: of(row) for row in rows}
    roles = roles_in_order(role for spreads in told.values() for role in spreads if role != apart)
    if not roles:
        return None
    loaded = any(apart in spreads for spreads in told.values())
    columns = [*_head_columns(heads), *(Column(role, unit) for role in roles), Column("together", unit)]
    columns += [Column("generator", unit)] if loaded else []
    lines = []
    for row in rows:
        spreads = told[row.key]
        together = sum(each.median for role, each in spreads.items() if role != apart)
        cells = [middle(spreads.get(role), tell) for role in roles] + [tell(together) if spreads else MISSING]
        lines.append([*_head(row, heads), *cells, *([middle(spreads.get(apart), tell)] if loaded else [])])
    return Table(caption, columns, lines, "The generator is no part of the sum.", _own(rows))


def _books(rows: Sequence[Row], heads: Sequence[Axis]) -> Table:
    """What the broker held after the peak, and the ledger over all turns."""
    holding = any(run.holding for row in rows for run in row.measured)
    held = [Column("broker held", "messages"), Column("stored", "MB"), Column("unread", "messages")] if holding else []
    columns = [
        *_head_columns(heads),
        *held,
        *(Column(name, "rates") for name in _COUNTS),
    ]
    columns += [Column("LOSS"), Column("DUP")]
    told = []
    for row in rows:
        ledgers = [run.ledger for run in row.runs if run.ledger]
        sums = [sum(getattr(each, name) for each in ledgers) for name in _BOOKS]
        told.append([*_head(row, heads), *(_holding(row) if holding else []), *(number(each) for each in sums)])
    note = "The ledger is over all turns, failed ones too: what was counted lies between what was confirmed and sent."
    if holding:
        note = f"What the broker tells of itself is taken after the full load, a median. {note}"
    return Table("The broker's holding, and the ledger", columns, told, note, _own(rows))


def _holding(row: Row) -> list[str]:
    held = [run.holding for run in row.measured if run.holding]
    if not held:
        return [MISSING] * 3
    depths = [each.depth for each in held if each.depth is not None]
    return [
        number(round(median(each.messages for each in held))),
        megabytes(median(each.stored_bytes for each in held)),
        number(round(median(depths))) if depths else MISSING,
    ]


def _own(rows: Sequence[Row]) -> list[bool]:
    """Fanrate's own rows, where there are others."""
    own = [row.setup.system == FANRATE for row in rows]
    return own if not all(own) else []


def _head_columns(heads: Sequence[Axis]) -> list[Column]:
    return [Column(axis.title, figures=axis.number) for axis in heads]


def _head(row: Row, heads: Sequence[Axis]) -> list[str]:
    return [_told(axis, axis.of(row)) for axis in heads]


def _told(axis: Axis, value: object) -> str:
    """As it stands below the column's head."""
    if axis.name == "offered":
        return shares(value)
    return grouped(value) if str(value) else MISSING


def names(rows: Sequence[Row]) -> str:
    """The brokers of some rows."""
    return ", ".join(dict.fromkeys(BROKER_NAMES[row.setup.broker] for row in rows))
