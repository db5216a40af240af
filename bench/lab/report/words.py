"""What the figures say, in sentences. Pure: rows in, sentences out.

Nothing is called better that is not beyond noise, and brokers are held against each other only where all else is the
same, durability included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.lab import noise
from bench.lab.axes import BROKER_NAMES, label, varying
from bench.lab.figures import COST, FRESHNESS, LATENCY, MEMORY, RPS, Figure, told_share
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
_QUESTIONS: Final = {
    COST: "Least processor time per rate",
    RPS: "Most rates per second",
    LATENCY["p99"]: "Lowest latency of a POST",
    FRESHNESS: "Soonest visible in Redis",
    MEMORY: "Least memory",
}
_WORTH: Final = {
    ("nats", "relaxed"): "held in the server's memory: gone when it is killed",
    ("nats", "confirmed"): "written to the stream's file, synced every 2 minutes: survives a kill of the server",
    ("nats", "fsync"): "synced to disk: survives a loss of power",
    ("kafka", "relaxed"): "written by the partition's leader alone, not synced",
    ("kafka", "confirmed"): "written by all in-sync replicas, not synced: survives a kill of the server",
    ("kafka", "fsync"): "synced to disk: survives a loss of power",
    ("rabbit", "relaxed"): "held in a classic queue: gone when the server is killed",
    ("rabbit", "confirmed"): "synced to disk by a quorum queue: survives a loss of power, more than the others promise",
    ("rabbit", "fsync"): "synced to disk by a quorum queue: survives a loss of power",
    ("redis", "relaxed"): "held in memory, whatever the server persists",
    ("redis", "confirmed"): "appended to a file, not synced: survives a kill of the server",
    ("redis", "fsync"): "synced to disk: survives a loss of power",
    ("nats+core", "relaxed"): "sent, and may be lost",
}
"""What a 200 is worth: docs/delivery.md has the whole table."""


@dataclass(frozen=True, slots=True)
class Answer:
    """To one question of somebody who must choose."""

    question: str
    sentences: list[str]


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
            found.setdefault((*rest, setup.settings, work), []).append(row)
    ordered = sorted(found.values(), key=lambda rows: (-len({row.setup.broker for row in rows}), _distance(rows[0])))
    return [Contest(rows) for rows in ordered]


def _distance(row: Row) -> tuple[object, ...]:
    """How far from the plainest set-up."""
    return row.setup.durability != "confirmed", row.setup.replicas, row.setup.dispatch != "group", row.setup.dispatch


def answers(rows: Sequence[Row]) -> list[Answer]:
    """What to choose: one answer for each figure that was taken."""
    held = contests(rows)
    if not held:
        return []
    found = [Answer(question, _answer(figure, held, rows)) for figure, question in _QUESTIONS.items()]
    return [answer for answer in found if answer.sentences]


def _answer(figure: Figure, held: Sequence[Contest], rows: Sequence[Row]) -> list[str]:
    shared = noise.pool([values for row in rows if (values := turns(row, figure))])
    told = [ranking for contest in held if (ranking := rank(contest, figure, shared))]
    if not told:
        return []
    first = told[0]
    sentences = [first.sentence]
    others = [each for each in told[1:] if len(each.names) > 1]
    if len(first.names) > 1 and others:
        sentences.append(_elsewhere(first, others))
    return sentences


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rows of a contest by one figure, best first, each against the best."""

    figure: Figure
    rows: list[Row]
    against: list[Difference]

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
        tell, unit = value_of(self.figure), unit_of(self.figure)
        values = [tell(_median(row, self.figure)) for row in self.rows]
        if len(self.rows) == 1:
            return f"Only {self.names[0]} was measured here: {values[0]} {unit}. There is nothing to choose from."
        if not self.known:
            named = listed([f"{name} {value}" for name, value in zip(self.names, values, strict=True)])
            return f"{named} {unit}, from one turn each: nothing is known about noise, so none is called better."
        best = self.best
        if len(best) == len(self.rows):
            return f"No difference beyond noise: {values[0]} to {values[-1]} {unit}; {self._noise(best[1:])}."
        if len(best) == 1:
            head = f"{best[0]} {_WINNERS[self.figure.name]}: {values[0]} {unit}. {self._behind()}"
        else:
            shown = listed([values[self.names.index(name)] for name in best])
            head = f"{listed(best)} are equal within noise: {shown} {unit}. {self._behind()}"
        return f"{head}; {self._noise(self.names[1:])}."

    def _behind(self) -> str:
        """Those beyond noise, against the first."""
        parts = []
        for row, name in zip(self.rows[1:], self.names[1:], strict=True):
            if name not in self.best:
                ratio = _median(row, self.figure) / _median(self.rows[0], self.figure)
                far = times(ratio) if ratio >= 2 else f"{percent(ratio - 1)} {'more' if ratio > 1 else 'less'}"
                parts.append(f"{name} {far}" + (" as much" if ratio >= 2 else ""))
        return listed(parts)

    def _noise(self, names: Sequence[str]) -> str:
        most = max(each.noise for name, each in zip(self.names[1:], self.against, strict=True) if name in names)
        return f"up to {percent(most)} would be noise"


def rank(contest: Contest, figure: Figure, shared: Noise | None) -> Ranking | None:
    """None where no row has the figure."""
    having = [row for row in contest.rows if turns(row, figure)]
    if not having:
        return None
    sign = 1 if figure.better == "lower" else -1
    ordered = sorted(having, key=lambda row: sign * _median(row, figure))
    best = turns(ordered[0], figure)
    return Ranking(
        figure, ordered, [_against(noise.difference(best, turns(row, figure), shared), sign) for row in ordered[1:]]
    )


def _against(difference: Difference, sign: int) -> Difference:
    """Two estimates that contradict the medians are equal."""
    if difference.call in ("lower", "higher") and difference.change * sign < 0:
        return Difference(difference.change, difference.noise, "equal")
    return difference


def _elsewhere(first: Ranking, others: Sequence[Ranking]) -> str:
    differing = [each for each in others if set(each.best) != set(first.best)]
    axes = [axis for axis in varying([each.rows[0] for each in (first, *others)]) if axis.name != "broker"]
    here = label(first.rows[0], axes)
    if not differing:
        rest = listed([label(each.rows[0], axes) for each in others])
        return f"That is with {here}; with {rest} it is the same."
    told = [f"with {label(each.rows[0], axes)}: {_best(each)}" for each in differing]
    return f"That is with {here}; " + "; ".join(told) + "."


def _best(ranking: Ranking) -> str:
    if not ranking.known:
        return "not known"
    if len(ranking.best) == len(ranking.rows):
        return "no difference beyond noise"
    return listed(ranking.best) + (", equal" if len(ranking.best) > 1 else "")


def worth(rows: Iterable[Row]) -> list[str]:
    """What a 200 is worth on each broker that was measured."""
    kinds = {(row.setup.broker, row.setup.durability): None for row in rows if row.measured}
    return [
        f"{BROKER_NAMES[broker]}, {durability}: {_WORTH[broker, durability]}"
        for broker, durability in kinds
        if (broker, durability) in _WORTH
    ]


def replicas(rows: Sequence[Row]) -> list[str]:
    """What further replicas on the same machine do, of the set-ups that were measured with one and with several."""
    sentences = []
    for contest in _grown(rows):
        few, many = contest
        for figure, verb in ((COST, "a rate costs"), (RPS, "confirmed rates/s are")):
            shared = noise.pool([values for row in rows if (values := turns(row, figure))])
            if turns(few, figure) and turns(many, figure):
                difference = noise.difference(turns(few, figure), turns(many, figure), shared)
                told = _NO_CALL.get(difference.call) or times(1 + difference.change)
                sentences.append((many.setup.replicas, few.setup.replicas, verb, BROKER_NAMES[few.setup.broker], told))
    merged: dict[tuple[int, int, str], list[str]] = {}
    for most, least, verb, name, told in sentences:
        merged.setdefault((most, least, verb), []).append(f"{told} on {name}")
    return [
        f"{most} replicas against {least}: {verb} {listed(parts)}." for (most, least, verb), parts in merged.items()
    ]


_NO_CALL: Final[dict[str, str]] = {"equal": "the same within noise", "unknown": "not known beyond noise"}


def _grown(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Of each broker the plainest set-up with fewest replicas, and the same with most."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        if row.setup.system == FANRATE and row.measured and row.setup.dispatch == "group":
            setup = row.setup
            found.setdefault((setup.broker, setup.durability, setup.settings, row.workload), []).append(row)
    pairs = []
    for several in found.values():
        ordered = sorted(several, key=lambda row: row.setup.replicas)
        if ordered[0].setup.replicas < ordered[-1].setup.replicas:
            pairs.append((ordered[0], ordered[-1]))
    return pairs


def turns(row: Row, figure: Figure) -> list[float]:
    """Its positive values."""
    spread = row.spread(figure)
    return [value for value in spread.values if value > 0] if spread else []


def _median(row: Row, figure: Figure) -> float:
    spread = row.spread(figure)
    assert spread is not None
    return spread.median


def share_told(rows: Iterable[Row]) -> str:
    """At which load latency is told."""
    shares = sorted({share for row in rows if (share := told_share(row.workload)) is not None})
    return listed([percent(share) for share in shares])
