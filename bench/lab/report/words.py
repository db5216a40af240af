"""What to choose, and why, in sentences. Pure: rows in, sentences out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.lab.axes import BROKER_NAMES, Axis, drop, label, same, varying
from bench.lab.figures import COST, FRESHNESS, LATENCY, MEMORY, RPS, Figure, told_share
from bench.lab.noise import Noise
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
_ALONE: Final = (
    "No two of these differ in the broker or in the set-up alone, so there is nothing to choose from; the figures "
    "stand below."
)


@dataclass(frozen=True, slots=True)
class Answer:
    """To one question of somebody who must choose."""

    question: str
    sentences: list[str]


def answers(rows: Sequence[Row]) -> list[Answer]:
    """What to choose: one answer for each figure that was taken."""
    held = [contest for contest in contests(rows) if len(contest.rows) > 1]
    found = [Answer(question, _answer(figure, held, rows)) for figure, question in _QUESTIONS.items()]
    return [answer for answer in found if answer.sentences]


def introduction(rows: Sequence[Row]) -> list[str]:
    """What was held against what, and who is best most often."""
    held = contests(rows)
    several = [contest for contest in held if len(contest.rows) > 1]
    if not several:
        return [_ALONE] if held else []
    axes = _setups([contest.where for contest in several])
    rest = [label(contest.where, axes) for contest in several[1:]]
    also = f" Also measured: {'; '.join(rest)}. Where these come out otherwise it is said." if rest else ""
    of = f" of {BROKER_NAMES[several[0].where.setup.broker]}, set-ups" if several[0].brokers == 1 else ""
    return [*_tally(rows, several[0]), f"Held against each other{of}: {_setup(several[0])}.{also}"]


def _setup(contest: Contest) -> str:
    """What is the same for all that are held against each other."""
    setup, work = contest.where.setup, contest.where.workload
    differ = {axis.name for axis in contest.axes}
    told = {
        "replicas": plural(setup.replicas, "replica"),
        "balancer": setup.balancer if setup.balancer != "none" else "",
        "dispatch": f"DISPATCH={setup.dispatch}",
        "durability": f"DURABILITY={setup.durability}",
        "settings": setup.settings,
        "connections": plural(work.connections, "connection"),
    }
    if work.rates_per_request > 1:
        told["rates_per_request"] = f"{number(work.rates_per_request)} rates per request"
    return ", ".join(text for name, text in told.items() if text and name not in differ)


def _tally(rows: Sequence[Row], contest: Contest) -> list[str]:
    """How often each is best, or not to be told from the best."""
    rankings = [rank(contest, figure, shared_noise(rows, figure)) for figure in _QUESTIONS]
    known = [each for each in rankings if each and each.decided and len(each.rows) == len(contest.rows)]
    if not known:
        return []
    counts = {name: sum(name in each.best for each in known) for name in known[0].names}
    questions = plural(len(known), "question")
    if len(set(counts.values())) == 1:
        return [f"None is ahead: each is best, or equal to the best, in {counts[known[0].names[0]]} of {questions}."]
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    told = listed([f"{name} in {counts[name]}" for name in ordered])
    return [f"Of {questions} on this machine, best or equal to the best: {told}."]


def _answer(figure: Figure, held: Sequence[Contest], rows: Sequence[Row]) -> list[str]:
    shared = shared_noise(rows, figure)
    having = [(contest, ranking) for contest in held if (ranking := rank(contest, figure, shared))]
    if not having:
        return []
    first, ranking = having[0]
    others = [contest for contest, _ in having[1:]]
    axes = _setups([first.where, *(each.where for each in others)])
    told = [
        f"{label(each.where, axes)}: {found}" for each in others if (found := _otherwise(first, each, figure, shared))
    ]
    return [ranking.sentence, *([f"Not so with {'; '.join(told)}."] if told else [])]


def _otherwise(first: Contest, other: Contest, figure: Figure, shared: Noise | None) -> str:
    """Who is best in the other, if that is known and not the same: of those alone that were measured in both."""
    whole, found = rank(first, figure, shared), rank(other, figure, shared)
    names = [name for name in whole.names if name in found.names] if whole and found else []
    here, there = (rank(contest.among(names), figure, shared) for contest in (first, other))
    if not here or not there or len(names) < 2 or not here.decided or not there.decided:
        return ""
    if set(here.best) == set(there.best):
        return ""
    return _best(there) + (f" (of {listed(names)})" if len(names) < len(first.rows) else "")


def _setups(rows: Sequence[Row]) -> list[Axis]:
    return drop(varying(rows), "broker")


def _best(ranking: Ranking) -> str:
    if len(ranking.best) == len(ranking.rows):
        return "no difference beyond noise"
    return listed(ranking.best) + (" are equal" if len(ranking.best) > 1 else "")


def alike(rows: Sequence[Row]) -> str:
    """What is the same for all rows of a section: the tables name only what differs."""
    told = [text for axis in same(rows) if (text := _constant(axis, axis.of(rows[0])))]
    return f"{'In all rows' if len(rows) > 1 else 'The row'}: {', '.join(told)}."


def _constant(axis: Axis, value: object) -> str:
    """Empty for what goes without saying."""
    match axis.name, value:
        case ("series" | "machine" | "build", _) | ("settings", "") | ("offered", ()) | ("arrivals", "even"):
            return ""
        case "balancer", "none":
            return "no balancer"
        case (("durability" | "dispatch"), _):
            return f"{axis.name} {value}"
        case "seconds", _:
            return f"loads of {axis.tell(value)}"
        case "offered", _:
            return f"{axis.tell(value)} of the peak"
        case "consumers", "running":
            return "rates counted under load"
        case "consumers", _:
            return "consumers standing still under load and counting afterwards"
        case _:
            return axis.tell(value)


def share_told(rows: Iterable[Row]) -> str:
    """At which load latency is told."""
    shares = sorted({share for row in rows if (share := told_share(row.workload)) is not None})
    return listed([percent(share) for share in shares])
