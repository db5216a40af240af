"""Two sittings, row by row: what became lower or higher beyond noise. A regression check for builds and settings.

A machine that was slower in one sitting is not a worse build: CPU figures of both are told as on A's machine
(`bench.lab.alike`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.lab import noise, speed
from bench.lab.alike import alike
from bench.lab.axes import drop, label, varying
from bench.lab.document import Run
from bench.lab.figures import COST, LATENCY, RPS, Figure
from bench.lab.noise import NO_ERROR, Difference, Error
from bench.lab.report import method
from bench.lab.report.text import listed, plural
from bench.lab.rows import Asked, NoDocuments, Row, machine_of, read, rows

DEFAULT: Final = (COST, RPS, LATENCY["p99"])
Turns = tuple[list[float], list[float]]
"""Of one row: in A, in B."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One row in both sittings. Figures are `noise.typical` ones, B's as on A's machine."""

    label: str
    a: float
    b: float
    difference: Difference


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure over all rows that have it in both; `together` is what all of them did."""

    figure: Figure
    pairs: list[Pair]
    together: Difference | None
    missing: list[str]
    """Rows that have it in A and not in B, as where all loads on a schedule were void, though they were measured."""

    @property
    def worse(self) -> bool:
        call = "higher" if self.figure.better == "lower" else "lower"
        return bool(self.missing) or any(pair.difference.call == call for pair in self.pairs)

    @property
    def known(self) -> bool:
        """Whether anything can be told from noise."""
        return any(pair.difference.call != "unknown" for pair in self.pairs)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`slower` is how much more CPU time B's machine took for the same work, as a factor; None where it is not known.
    `gauges` are by what CPU figures were brought to one speed, in words; empty if by none.
    `lost` are rows that were measured in A and not in B, or failed there in a turn and never in A; `open_books` are the
    ledgers of B that did not close, whether A's did or not."""

    figures: list[Compared]
    slower: float | None
    gauges: str
    doubts: list[str]
    """What casts doubt on the figures of either, and on holding one against the other."""
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    open_books: list[str] = field(default_factory=list)

    def worse(self, deciding: Sequence[Figure]) -> bool:
        """Whether B is worse in one of these figures, lost a row or rates."""
        return self.broken or any(each.worse for each in self.figures if each.figure in deciding)

    @property
    def broken(self) -> bool:
        """Whether B is worse whatever its figures are."""
        return bool(self.lost or self.open_books)


def compare(a: Path, b: Path, figures: Sequence[Figure] = DEFAULT) -> Comparison:
    """Raises NoDocuments, also where nothing is in both or no noise is known, unless B lost something; BadDocument and
    OSError."""
    compared = compare_runs(read([a]), read([b]), figures)
    if compared.broken:
        return compared
    if not any(each.pairs for each in compared.figures):
        raise NoDocuments(f"{a} and {b} have no measured row in common")
    if not any(each.known for each in compared.figures):
        raise NoDocuments("no row was measured twice in one sitting: without turns nothing is known about noise")
    return compared


def compare_runs(a: Sequence[Run], b: Sequence[Run], figures: Sequence[Figure] = DEFAULT) -> Comparison:
    """The same of documents that were read."""
    slower, doubts = _slower(a, b), _doubts(a, b)
    a, b, error, gauges = _at_one_speed(a, b)
    rows_a, rows_b = _by_what_was_asked("A", a), _by_what_was_asked("B", b)
    every = [*rows_a.values(), *(row for key, row in rows_b.items() if key not in rows_a)]
    axes = drop(varying(every), "machine", "build")
    labels = {row.asked: label(row, axes) for row in every}
    both = [key for key in rows_a if key in rows_b]
    pairs = {key: (rows_a[key], rows_b[key]) for key in both}
    comparison = Comparison(
        [_compared(figure, pairs, labels, error if figure is COST else NO_ERROR) for figure in figures],
        slower,
        gauges,
        doubts,
        only_a=[labels[key] for key in rows_a if key not in rows_b],
        only_b=[labels[key] for key in rows_b if key not in rows_a],
    )
    for key, pair in pairs.items():
        for name, row in zip("AB", pair, strict=True):
            if row.reasons:
                comparison.unmeasured.append(f"{labels[key]}: {_how_many(row)} not measured in {name}: {_why(row)}")
        if why := _lost(*pair):
            comparison.lost.append(f"{labels[key]}: {why}")
    for key, row in rows_b.items():
        comparison.open_books.extend(f"{labels[key]}: {text}" for text in _open_books(row))
    return comparison


def _at_one_speed(a: Sequence[Run], b: Sequence[Run]) -> tuple[Sequence[Run], Sequence[Run], Error, str]:
    """All runs with their CPU figures as on A's machine, what B's may be wrong by, and by which gauges; as they are
    where none is told, or nothing is known about how it bears on them."""
    if both := alike(a, b):
        return both.a, both.b, both.error, "the load generator and the fixed piece of work"
    usual_us, slope = speed.usual_us(a), speed.slope([*a, *b])
    if not usual_us or not speed.usual_us(b) or slope is None:
        return a, b, NO_ERROR, ""
    return speed.at_speed(a, usual_us, slope), speed.at_speed(b, usual_us, slope), NO_ERROR, "the fixed piece of work"


def _doubts(a: Sequence[Run], b: Sequence[Run]) -> list[str]:
    told = [f"{name}: {warning}" for name, runs in (("A", a), ("B", b)) for warning in method.warnings(runs)]
    machines = [listed(sorted({machine_of(run) for run in runs})) for runs in (a, b)]
    if machines[0] != machines[1]:
        told.append(
            f"A and B come from different machines, so no change is the build's alone: {' against '.join(machines)}."
        )
    return told


def _by_what_was_asked(name: str, runs: Sequence[Run]) -> dict[Asked, Row]:
    """Between A and B machine and build may differ, that is what is asked; within one of them they must not."""
    found: dict[Asked, Row] = {}
    for row in rows(runs):
        other = found.setdefault(row.asked, row)
        if axes := varying([other, row]):
            told = f"{label(other, axes)} and {label(row, axes)}"
            raise NoDocuments(f"{name} holds a row twice, of {told}: which of them is to be compared?")
    return found


def _lost(a: Row, b: Row) -> str:
    """Why a row of B is worse than A's whatever its figures are; empty if it is not."""
    if a.measured and not b.measured:
        return f"measured in A, not in B: {_why(b)}"
    if _failed(b) and not _failed(a):
        return f"failed in {_failed(b)} of {plural(len(b.runs), 'turn')}, in none of A: {_why(b)}"
    return ""


def _failed(row: Row) -> int:
    return sum(run.outcome == "failed" for run in row.runs)


def _open_books(row: Row) -> list[str]:
    return [
        f"LOSS {run.ledger.loss:,} DUP {run.ledger.dup:,} in turn {run.turn} of {run.sitting}"
        for run in row.runs
        if run.ledger and not run.ledger.closed
    ]


def lines(comparison: Comparison) -> list[str]:
    """For a terminal."""
    told = [f"WARNING: {each}" for each in comparison.doubts]
    told.append(_machine(comparison))
    for compared in comparison.figures:
        told += ["", f"{compared.figure.title}, {_unit(compared.figure)}{compared.figure.better} is better"]
        told += _table(compared) if compared.pairs else ["no row has it in both"]
        told += [f"LOST, it is told in A and not in B: {each}" for each in compared.missing]
    told += [""] if comparison.unmeasured or comparison.only_a or comparison.only_b else []
    told += comparison.unmeasured
    told += [f"only in A: {each}" for each in comparison.only_a]
    told += [f"only in B: {each}" for each in comparison.only_b]
    told += [""] if comparison.broken else []
    told += [f"LOST in B: {each}" for each in comparison.lost]
    told += [f"OPEN LEDGER in B: {each}" for each in comparison.open_books]
    return told


def _compared(
    figure: Figure, both: Mapping[Asked, tuple[Row, Row]], labels: Mapping[Asked, str], error: Error
) -> Compared:
    pairs = _turns_of(figure, both)
    measured = [key for key, (a, b) in both.items() if _turns(a, figure) and b.measured]
    found, together = noise.differences(pairs, error=error)
    shared = noise.pool_pairs(list(pairs.values()))
    told = [
        Pair(labels[key], noise.typical(a, shared), noise.typical(b, shared), found[key])
        for key, (a, b) in pairs.items()
    ]
    return Compared(figure, told, together, [labels[key] for key in measured if key not in pairs])


def _turns_of(figure: Figure, pairs: Mapping[Asked, tuple[Row, Row]]) -> dict[Asked, Turns]:
    """The turns of rows that have the figure in both."""
    turns = {key: (_turns(a, figure), _turns(b, figure)) for key, (a, b) in pairs.items()}
    return {key: pair for key, pair in turns.items() if all(pair)}


def _turns(row: Row, figure: Figure) -> list[float]:
    """Zero has no logarithm; no figure is zero but one that was not taken."""
    return [value for run in row.measured if (value := figure.of(run))]


def _slower(a: Sequence[Run], b: Sequence[Run]) -> float | None:
    """None where it is not told in both."""
    used_a, used_b = speed.usual_us(a), speed.usual_us(b)
    return used_b / used_a if used_a and used_b else None


def _how_many(row: Row) -> str:
    return f"{len(row.runs) - len(row.measured)} of {plural(len(row.runs), 'turn')}"


def _why(row: Row) -> str:
    return "; ".join(f"{outcome}: {reason}" for outcome, reason in row.reasons)


def _machine(comparison: Comparison) -> str:
    slower, gauges = comparison.slower, comparison.gauges
    if slower is None or not gauges:
        return "How much faster or slower B's machine was is not known: CPU figures are compared as they are."
    share = slower - 1
    corrected = f"CPU figures are told as on A's machine, by {gauges}."
    if abs(share) < 0.0005:
        return f"B's machine took as much CPU time for the fixed piece of work as A's; {corrected}"
    much = f"{100 * abs(share):.1f} % {'more' if share > 0 else 'less'}"
    return f"B's machine took {much} CPU time for the fixed piece of work than A's; {corrected}"


def _unit(figure: Figure) -> str:
    return f"{figure.unit}; " if figure.unit else ""


def _table(compared: Compared) -> list[str]:
    cells = [["", "A", "B", "change", "noise", ""]]
    cells += [[pair.label, number(pair.a), number(pair.b), *_difference(pair.difference)] for pair in compared.pairs]
    if compared.together:
        cells.append(["all together", "", "", *_difference(compared.together)])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(_padded(row, widths)).rstrip() for row in cells]


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The first and the last column to the left, figures to the right."""
    last = len(row) - 1
    pairs = enumerate(zip(row, widths, strict=True))
    return [text.ljust(width) if place in (0, last) else text.rjust(width) for place, (text, width) in pairs]


def _difference(difference: Difference) -> list[str]:
    told = "?" if difference.call == "unknown" else f"{100 * difference.noise:.1f} %"
    return [f"{100 * difference.change:+.1f} %", told, difference.call]


def number(value: float) -> str:
    """Four digits are enough."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.4g}"
