"""Who is best, and whether that is more than noise: rows that differ in the broker alone, held against each other.

Nothing is called better that is not beyond noise, and brokers stand against each other only where all else is the same,
durability included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.lab import noise
from bench.lab.axes import BROKER_NAMES
from bench.lab.figures import COST, FRESHNESS, LATENCY, MEMORY, RPS, Figure
from bench.lab.noise import Difference, Noise
from bench.lab.report.text import listed, percent, times, unit_of, value_of
from bench.lab.rows import FANRATE, Row

_WINNERS: Final = {
    COST.name: "costs the least processor time",
    RPS.name: "confirms the most",
    LATENCY["p99"].name: "answers soonest at the 99th percentile",
    FRESHNESS.name: "has rates visible soonest at the 99th percentile",
    MEMORY.name: "holds the least memory",
}


@dataclass(frozen=True, slots=True)
class Contest:
    """Rows that differ in the broker alone."""

    rows: list[Row]

    @property
    def where(self) -> Row:
        return self.rows[0]


def contests(rows: Iterable[Row]) -> list[Contest]:
    """Of Fanrate's measured rows, those that may be held against each other; where there are several brokers first."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        if row.setup.system == FANRATE and row.measured:
            setup, work = row.setup, row.workload
            rest = (row.series, setup.durability, setup.dispatch, setup.replicas, setup.processes, setup.balancer)
            found.setdefault((*rest, setup.settings, work, row.machine, row.build), []).append(row)
    ordered = sorted(found.values(), key=lambda rows: (-len({row.setup.broker for row in rows}), _distance(rows[0])))
    return [Contest(rows) for rows in ordered]


def _distance(row: Row) -> tuple[object, ...]:
    """How far from the plainest set-up."""
    return row.setup.durability != "confirmed", row.setup.replicas, row.setup.dispatch != "group", row.setup.dispatch


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rows of a contest by one figure, best first, each against the best."""

    figure: Figure
    rows: list[Row]
    against: list[Difference]
    missing: list[str]
    """Brokers of the contest of which it was not measured."""

    @property
    def names(self) -> list[str]:
        return [BROKER_NAMES[row.setup.broker] for row in self.rows]

    @property
    def known(self) -> bool:
        return all(each.call != "unknown" for each in self.against)

    @property
    def best(self) -> list[str]:
        """All that cannot be told from the first."""
        equal = [name for name, each in zip(self.names[1:], self.against, strict=True) if each.call == "equal"]
        return [self.names[0], *equal]

    @property
    def sentence(self) -> str:
        left_out = f" Of {listed(self.missing)} it was not measured." if self.missing else ""
        return self._compared() + left_out

    def _compared(self) -> str:
        tell, unit = value_of(self.figure), unit_of(self.figure)
        values = [tell(median_of(row, self.figure)) for row in self.rows]
        if len(self.rows) == 1:
            return f"Only {self.names[0]} was measured here: {values[0]} {unit}. There is nothing to choose from."
        if not self.known:
            named = listed([f"{name} {value}" for name, value in zip(self.names, values, strict=True)])
            return f"{named} {unit}, from one turn each: nothing is known about noise, so none is called better."
        best = self.best
        if len(best) == len(self.rows):
            return f"No difference beyond noise: {values[0]} to {values[-1]} {unit} ({self._noise(best[1:])})."
        if len(best) == 1:
            head = f"{best[0]} {_WINNERS[self.figure.name]}: {values[0]} {unit}. {self._behind()}"
        else:
            shown = listed([values[self.names.index(name)] for name in best])
            head = f"{listed(best)} are equal within noise: {shown} {unit}. {self._behind()}"
        return f"{head} ({self._noise(self.names[1:])})."

    def _behind(self) -> str:
        """Those beyond noise, against the first."""
        parts = []
        for row, name in zip(self.rows[1:], self.names[1:], strict=True):
            if name not in self.best:
                ratio = median_of(row, self.figure) / median_of(self.rows[0], self.figure)
                far = times(ratio) if ratio >= 2 else f"{percent(ratio - 1)} {'more' if ratio > 1 else 'less'}"
                parts.append(f"{name} {far}" + (" as much" if ratio >= 2 else ""))
        return listed(parts)

    def _noise(self, names: Sequence[str]) -> str:
        most = max(each.noise for name, each in zip(self.names[1:], self.against, strict=True) if name in names)
        return f"noise: up to {percent(most)}"


def rank(contest: Contest, figure: Figure, shared: Noise | None) -> Ranking | None:
    """None where no row has the figure."""
    having = [row for row in contest.rows if turns(row, figure)]
    if not having:
        return None
    sign = 1 if figure.better == "lower" else -1
    ordered = sorted(having, key=lambda row: sign * median_of(row, figure))
    best = turns(ordered[0], figure)
    missing = [BROKER_NAMES[row.setup.broker] for row in contest.rows if row not in having]
    against = [_against(noise.difference(best, turns(row, figure), shared), sign) for row in ordered[1:]]
    return Ranking(figure, ordered, against, missing)


def _against(difference: Difference, sign: int) -> Difference:
    """Two estimates that contradict the medians are equal."""
    if difference.call in ("lower", "higher") and difference.change * sign < 0:
        return Difference(difference.change, difference.noise, "equal")
    return difference


def turns(row: Row, figure: Figure) -> list[float]:
    """Its positive values."""
    spread = row.spread(figure)
    return [value for value in spread.values if value > 0] if spread else []


def median_of(row: Row, figure: Figure) -> float:
    spread = row.spread(figure)
    assert spread is not None
    return spread.median


def shared_noise(rows: Sequence[Row], figure: Figure) -> Noise | None:
    """Of a figure, from the turns of all rows."""
    return noise.pool([values for row in rows if (values := turns(row, figure))])
