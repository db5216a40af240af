"""What to choose, and why, in sentences. Pure: rows in, sentences out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.lab.axes import Axis, drop, label, varying
from bench.lab.figures import COST, FRESHNESS, LATENCY, MEMORY, RPS, Figure, told_share
from bench.lab.report.ranking import Contest, Ranking, contests, rank, shared_noise
from bench.lab.report.text import listed, number, percent, plural
from bench.lab.rows import Row

_QUESTIONS: Final = {
    COST: "Least processor time per rate",
    RPS: "Most rates per second",
    LATENCY["p99"]: "Lowest latency of a POST",
    FRESHNESS: "Soonest visible in Redis",
    MEMORY: "Least memory",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """To one question of somebody who must choose."""

    question: str
    sentences: list[str]


def answers(rows: Sequence[Row]) -> list[Answer]:
    """What to choose: one answer for each figure that was taken."""
    held = contests(rows)
    found = [Answer(question, _answer(figure, held, rows)) for figure, question in _QUESTIONS.items()]
    return [answer for answer in found if answer.sentences]


def introduction(rows: Sequence[Row]) -> list[str]:
    """What was held against what, and who is best most often."""
    held = contests(rows)
    several = [contest for contest in held if len(contest.rows) > 1]
    if not several:
        return []
    axes = _setups([contest.where for contest in several])
    rest = [label(contest.where, axes) for contest in several[1:]]
    also = f" Also measured: {'; '.join(rest)}. Where these come out otherwise it is said." if rest else ""
    return [*_tally(rows, several[0]), f"Held against each other: {_setup(several[0].where)}.{also}"]


def _setup(row: Row) -> str:
    """What is the same for all that are held against each other."""
    setup, work = row.setup, row.workload
    told = [plural(setup.replicas, "replica")]
    told += [setup.balancer] if setup.balancer != "none" else []
    told += [f"DISPATCH={setup.dispatch}", f"DURABILITY={setup.durability}"]
    told += [setup.settings] if setup.settings else []
    told.append(plural(work.connections, "connection"))
    told += [f"{number(work.rates_per_request)} rates per request"] if work.rates_per_request > 1 else []
    return ", ".join(told)


def _tally(rows: Sequence[Row], contest: Contest) -> list[str]:
    """How often each is best, or not to be told from the best."""
    rankings = [rank(contest, figure, shared_noise(rows, figure)) for figure in _QUESTIONS]
    known = [each for each in rankings if each and each.known and len(each.rows) == len(contest.rows)]
    if not known:
        return []
    counts = {name: sum(name in each.best for each in known) for name in known[0].names}
    questions = plural(len(known), "question")
    if len(set(counts.values())) == 1:
        return [
            f"No broker is ahead: each is best, or equal to the best, in {counts[known[0].names[0]]} of {questions}."
        ]
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    told = listed([f"{name} in {counts[name]}" for name in ordered])
    return [f"Of {questions} on this machine, best or equal to the best: {told}."]


def _answer(figure: Figure, held: Sequence[Contest], rows: Sequence[Row]) -> list[str]:
    told = [ranking for contest in held if (ranking := rank(contest, figure, shared_noise(rows, figure)))]
    if not told:
        return []
    first = told[0]
    others = [each for each in told[1:] if len(each.names) > 1]
    return [first.sentence, *_elsewhere(first, others)]


def _elsewhere(first: Ranking, others: Sequence[Ranking]) -> list[str]:
    """Where it is not so, as far as that is known."""
    differing = [each for each in others if first.known and each.known and set(each.best) != set(first.best)]
    axes = _setups([first.rows[0], *(each.rows[0] for each in others)])
    told = [f"{label(each.rows[0], axes)}: {_best(each)}" for each in differing]
    return [f"Not so with {'; '.join(told)}."] if told else []


def _setups(rows: Sequence[Row]) -> list[Axis]:
    return drop(varying(rows), "broker")


def _best(ranking: Ranking) -> str:
    if len(ranking.best) == len(ranking.rows):
        return "no difference beyond noise"
    return listed(ranking.best) + (" are equal" if len(ranking.best) > 1 else "")


def share_told(rows: Iterable[Row]) -> str:
    """At which load latency is told."""
    shares = sorted({share for row in rows if (share := told_share(row.workload)) is not None})
    return listed([percent(share) for share in shares])
