"""Who is best, and whether that is more than noise: rows that differ in the broker alone, held against each other.

Nothing is called better that is not beyond noise, and brokers stand against each other only where all else is the same,
durability included. Where nothing differs in the broker alone, set-ups of one broker are held against each other.

The best of several is found by looking at all of them, so the share of false calls is that of a whole contest: each of
its pairs gets an equal part. Latencies were taken at a share of each row's own peak: who is quicker under less load is
not called better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.lab import noise
from bench.lab.axes import AXES, Axis, label, varying
from bench.lab.document import FANRATE
from bench.lab.figures import COST, FRESHNESS, LATENCY, MEMORY, RPS, Figure, told_share
from bench.lab.noise import FALSE_CALLS, LEAST, Difference, Noise
from bench.lab.report.text import listed, percent, rounded, times, unit_of, value_of
from bench.lab.rows import Row

_WINNERS: Final = {
    COST.name: "costs the least processor time",
    RPS.name: "confirms the most",
    LATENCY["p99"].name: "answers soonest at the 99th percentile",
    FRESHNESS.name: "has rates visible soonest at the 99th percentile",
    MEMORY.name: "holds the least memory",
}
_SETUP: Final = ("dispatch", "balancer", "replicas", "processes", "settings")
"""What may be chosen once a broker and a durability are."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Rows that differ in the broker alone, or in the set-up alone."""

    rows: list[Row]
    axes: list[Axis]
    """What tells its rows apart."""

    @property
    def brokers(self) -> int:
        return len({row.setup.broker for row in self.rows})

    @property
    def names(self) -> list[str]:
        return [label(row, self.axes) for row in self.rows]

    def among(self, names: Sequence[str]) -> Contest:
        """Of these alone."""
        return Contest([row for row in self.rows if label(row, self.axes) in names], self.axes)

    @property
    def where(self) -> Row:
        return self.rows[0]


def contests(rows: Iterable[Row]) -> list[Contest]:
    """Of Fanrate's measured rows, those that may be held against each other; the largest contests first."""
    own = [row for row in rows if row.setup.system == FANRATE and row.measured]
    several = _apart(own, ["broker"], [axis for axis in AXES if axis.name == "broker"])
    if all(len(contest.rows) == 1 for contest in several):
        several = _apart(own, _SETUP, [axis for axis in varying(own) if axis.name in _SETUP])
    return sorted(several, key=lambda contest: (-len(contest.rows), _distance(contest.where)))


def _apart(rows: Sequence[Row], names: Sequence[str], axes: list[Axis]) -> list[Contest]:
    """Rows that differ in nothing but the axes of these names; `axes` are those that tell them apart."""
    rest = [axis for axis in AXES if axis.name not in names]
    found: dict[object, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(axis.of(row) for axis in rest), []).append(row)
    return [Contest(each, axes) for each in found.values()]


def _distance(row: Row) -> tuple[object, ...]:
    """How far from the plainest set-up."""
    return row.setup.durability != "confirmed", row.setup.replicas, row.setup.dispatch != "group", row.setup.dispatch


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rows of a contest by one figure, best first, each against the best."""

    figure: Figure
    rows: list[Row]
    names: list[str]
    against: list[Difference]
    missing: list[str]
    """Of the contest, those of which it was not measured."""

    @property
    def known(self) -> bool:
        return all(each.call != "unknown" for each in self.against)

    @property
    def fair(self) -> bool:
        """Whether those that come out worse were not offered more than the best."""
        loads = [self._per_s(row) for row in self.rows]
        least = loads[0] * (1 + LEAST)
        others = zip(self.names[1:], loads[1:], strict=True)
        return all(load <= least for name, load in others if name not in self.best)

    @property
    def decided(self) -> bool:
        return self.known and self.fair

    def _per_s(self, row: Row) -> float:
        """Requests that it was offered; 0 where the figure is of no schedule."""
        share = told_share(row.workload)
        if not self.figure.scheduled or share is None:
            return 0.0
        return row.scheduled_per_s(share)

    @property
    def best(self) -> list[str]:
        """All that cannot be told from the first."""
        equal = [name for name, each in zip(self.names[1:], self.against, strict=True) if each.call == "equal"]
        return [self.names[0], *equal]

    @property
    def sentence(self) -> str:
        left_out = f" Of {listed(self.missing)} it was not measured." if self.missing else ""
        return self._compared() + self._shares() + left_out

    def _shares(self) -> str:
        shares = sorted({told_share(row.workload) or 0.0 for row in self.rows if self._per_s(row)})
        return f" Each was offered {listed([percent(share) for share in shares])} of its own peak." if shares else ""

    def _load(self, row: Row) -> str:
        per_s = self._per_s(row)
        return f" at {rounded(per_s)} requests/s" if per_s else ""

    def _value(self, row: Row) -> str:
        told = value_of(self.figure)(median_of(row, self.figure))
        return f"{told} {unit_of(self.figure)}{self._load(row)}"

    def _compared(self) -> str:
        values = [self._value(row) for row in self.rows]
        named = listed([f"{name} {value}" for name, value in zip(self.names, values, strict=True)])
        if len(self.rows) == 1:
            return f"Only {self.names[0]} was measured here: {values[0]}. There is nothing to choose from."
        if not self.known:
            return f"{named}, from one turn each: nothing is known about noise, so none is called better."
        if not self.fair:
            return f"{named}: the quicker was offered less, so none is called better."
        best = self.best
        if len(best) == len(self.rows):
            return f"No difference beyond noise: {values[0]} to {values[-1]} ({self._noise(best[1:])})."
        if len(best) == 1:
            head = f"{best[0]} {_WINNERS[self.figure.name]}: {values[0]}. {self._behind()}"
        else:
            shown = listed([values[self.names.index(name)] for name in best])
            head = f"{listed(best)} are equal within noise: {shown}. {self._behind()}"
        return f"{head} ({self._noise(self.names[1:])})."

    def _behind(self) -> str:
        """Those beyond noise, against the first."""
        parts = []
        for row, name in zip(self.rows[1:], self.names[1:], strict=True):
            if name not in self.best:
                ratio = median_of(row, self.figure) / median_of(self.rows[0], self.figure)
                far = times(ratio) if ratio >= 2 else f"{percent(ratio - 1)} {'more' if ratio > 1 else 'less'}"
                parts.append(f"{name} {far}{' as much' if ratio >= 2 else ''}{self._load(row)}")
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
    pairs = max(1, len(having) * (len(having) - 1) // 2)
    against = [
        _against(noise.difference(best, turns(row, figure), shared, false_calls=FALSE_CALLS / pairs), sign)
        for row in ordered[1:]
    ]
    missing = [label(row, contest.axes) for row in contest.rows if row not in having]
    return Ranking(figure, ordered, [label(row, contest.axes) for row in ordered], against, missing)


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
