"""The report as data: what both forms of it show, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.lab import speed
from bench.lab.axes import drop, label
from bench.lab.document import Run
from bench.lab.figures import OWN
from bench.lab.report import method, words
from bench.lab.report.peers import sentences
from bench.lab.report.plots import numbered, plots
from bench.lab.report.ranking import contests
from bench.lab.report.replicas import replicas
from bench.lab.report.svg import Plot
from bench.lab.report.tables import Table, heading, tables, troubles
from bench.lab.report.text import listed, percent, plural
from bench.lab.report.words import Answer, alike
from bench.lab.report.worth import worth
from bench.lab.rows import Row, rows

_BUSY: Final = 0.95
"""Share of its thread's time from which wrk counts as the limit."""


@dataclass(frozen=True, slots=True)
class Section:
    """One series of one experiment."""

    name: str
    title: str
    words: list[str]
    plots: list[Plot]
    tables: list[Table]
    troubles: Table | None


@dataclass(frozen=True, slots=True)
class Report:
    warnings: list[str]
    introduction: list[str]
    answers: list[Answer]
    worth: list[str]
    facts: list[tuple[str, str]]
    method: list[str]
    totals: str
    sections: list[Section]


def report(runs: Sequence[Run]) -> Report:
    """At least one run. Processor time is told at the usual speed of each sitting's machine."""
    factors = speed.factors(runs)
    runs = speed.at_usual_speed(runs)
    experiments = sorted({run.experiment for run in runs}, key=_place)
    held = [
        (experiment, series, rows([run for run in runs if (run.experiment, run.series) == (experiment, series)]))
        for experiment in experiments
        for series in _series(runs, experiment)
    ]
    every = [row for _, _, found in held for row in found]
    chosen = _to_choose_from([found for _, _, found in held])
    names = numbered([f"{experiment} {series}" if series != experiment else series for experiment, series, _ in held])
    return Report(
        method.warnings(runs),
        words.introduction(chosen),
        words.answers(chosen),
        worth(chosen),
        method.facts(runs),
        method.method(runs, every, factors),
        method.totals(runs),
        [_section(name, *one) for name, one in zip(names, held, strict=True)],
    )


def _section(name: str, experiment: str, series: str, found: Sequence[Row]) -> Section:
    title = series if series == experiment else f"{experiment}: {series}"
    said = [*replicas(found), *sentences(found)]
    if not any(row.measured for row in found):
        said.append(f"Nothing was measured of {plural(len(found), 'row')}.")
    elif not any(row.offered() for row in found):
        said.append("Latency was not measured here.")
    said += _overloaded(found)
    said += _generator_busy(found)
    drawn = plots(found, name)
    if not drawn and any(row.measured for row in found):
        said.append(f"{plural(len(found), 'row')} are too many for plots.")
    said.append(alike(found))
    return Section(name, title[0].upper() + title[1:], said, drawn, tables(found), troubles(found))


def _overloaded(found: Sequence[Row]) -> list[str]:
    """Where a line of latency over load ends, and why."""
    axes = drop(heading(found), "offered")
    told = [
        f"{label(row, axes)} {listed([percent(share) for share in shares])}"
        for row in found
        if (shares := row.overloaded())
    ]
    head = "Not all that was offered was confirmed, so no latency is told, at so much of the peak"
    return [f"{head}: {listed(told)}."] if told else []


def _generator_busy(found: Sequence[Row]) -> list[str]:
    """Where the load itself may have been the limit of a peak: wrk has one thread for each address."""
    axes = heading(found)
    told = [label(row, axes) for row in found if any(map(_busy, row.measured))]
    return [f"wrk was as busy as it can be under {listed(told)}, so these may take more."] if told else []


def _busy(run: Run) -> bool:
    threads = run.setup.replicas if run.setup.balancer == "none" else 1
    peak = run.peak
    return peak is not None and peak.cpu_us_per_rate.get(OWN, 0.0) * peak.rates_per_s / 1e6 > _BUSY * threads


def _to_choose_from(series: Sequence[Sequence[Row]]) -> Sequence[Row]:
    """The series that holds most brokers against each other; of those that hold the same number, most set-ups."""
    return max(series, key=_contested)


def _contested(found: Sequence[Row]) -> tuple[int, int, int]:
    held = contests(found)
    sizes = [len(contest.rows) for contest in held]
    latency = any(row.offered() for row in found)
    brokers = max((contest.brokers for contest in held), default=0)
    return brokers, int(latency), sum(size > 1 for size in sizes)


def _series(runs: Sequence[Run], experiment: str) -> list[str]:
    """By name, that of the experiment first."""
    return sorted(
        {run.series for run in runs if run.experiment == experiment}, key=lambda each: (each != experiment, each)
    )


def _place(experiment: str) -> tuple[int, str]:
    """The known ones first."""
    known = ("brokers", "peers", "scale")
    return known.index(experiment) if experiment in known else len(known), experiment
