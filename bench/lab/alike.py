"""Two sittings as on one machine: the processor time of B as A's machine would have taken it.

There are two gauges of a machine's speed in every run (`bench.lab.speed` has the first alone):

- *The fixed piece of work* beside the load. No build changes it, but it is a loop in one process, and tells little of a
  slower kernel or of crowded caches.
- *The load generator*, which shares the cores of the other roles and reads and writes sockets as they do. On a host
  that became up to 40 % slower and faster, turns of a row scattered by 12.6 %, by 5.6 % once the piece of work was
  allowed for, and by 2.2 % with the generator. But a build can make the generator dearer, as by answers that come one
  by one: services with 7 and 15 % added made it 4 and 8 % dearer.

So turns of a row are held against each other by the generator. What the machine did between the sittings is, for a row,
what the generator tells plus what the piece of work tells differently; the latter is noisy, so it is taken as the mean
over all rows, and a row keeps of its own as much as rows differ by more than their turns explain (an empirical Bayes
estimate of a mean of means). What these may be wrong by belongs to the noise of the comparison: `noise.Error`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance
from typing import Final, TypeAlias

from bench.lab.document import Run
from bench.lab.figures import OWN, cost
from bench.lab.noise import Error, squares_within
from bench.lab.speed import piece_us, scaled, slope

FEWEST: Final = 3
"""Of fewer rows a mean over rows says less than the fixed piece of work does in each run."""
SITTING_DOUBT: Final = 0.01
"""The gauges drift apart over minutes, more than turns of single rows show: a standard deviation, as a share."""
SLOPE_DOUBT: Final = 0.1
"""How sure it is how much dearer a rate is where the piece of work takes longer: a standard deviation. So much depends
on how it is estimated, and it matters where one machine was much slower than the other."""

_ByRow: TypeAlias = Mapping[object, list[float]]


@dataclass(frozen=True, slots=True)
class Alike:
    """All runs, those of rows that are in both with their processor time as on A's machine; `error` is of B's against
    A's."""

    a: list[Run]
    b: list[Run]
    error: Error


@dataclass(frozen=True, slots=True)
class _Gauges:
    """How much dearer a rate is, as a logarithm, by what each gauge tells of a run's machine."""

    piece_slope: float
    generator_slope: float

    def by_piece(self, run: Run) -> float:
        return self.piece_slope * math.log(piece_us(run))

    def by_generator(self, run: Run) -> float:
        return self.generator_slope * math.log(_generator_us(run))

    def apart(self, run: Run) -> float:
        return self.by_piece(run) - self.by_generator(run)


def alike(a: Sequence[Run], b: Sequence[Run]) -> Alike | None:
    """None where the fixed piece of work alone tells more: of few rows, without what the generator took in each run, or
    where the costs scatter less by the piece."""
    of_a, of_b = ([run for run in runs if run.outcome == "measured"] for runs in (a, b))
    rows = {run.row for run in of_a} & {run.row for run in of_b}
    of_a, of_b = ([run for run in runs if run.row in rows] for runs in (of_a, of_b))
    if len(rows) < FEWEST or (gauges := _gauges([*of_a, *of_b])) is None:
        return None
    if _scatter(of_a, of_b, gauges.by_generator) >= _scatter(of_a, of_b, gauges.by_piece):
        return None
    usual = {row: fmean(figures) for row, figures in _by_row(of_a, gauges.by_generator).items()}
    shifts, error = _shifts(_by_row(of_a, gauges.apart), _by_row(of_b, gauges.apart))
    slower = fmean(math.log(piece_us(run)) for run in of_b) - fmean(math.log(piece_us(run)) for run in of_a)

    def corrected(run: Run, shift: float) -> Run:
        if run.outcome != "measured" or run.row not in rows:
            return run
        return scaled(run, math.exp(usual[run.row] - gauges.by_generator(run) - shift))

    return Alike(
        [corrected(run, 0.0) for run in a],
        [corrected(run, shifts.get(run.row, 0.0)) for run in b],
        replace(error, shared=error.shared + SITTING_DOUBT**2 + (SLOPE_DOUBT * slower) ** 2),
    )


def _gauges(runs: Sequence[Run]) -> _Gauges | None:
    if not all(cost(run) and piece_us(run) > 0 and _generator_us(run) > 0 for run in runs):
        return None
    piece_slope, generator_slope = slope(runs, piece_us), slope(runs, _generator_us)
    if piece_slope is None or generator_slope is None:
        return None
    return _Gauges(piece_slope, generator_slope)


def _generator_us(run: Run) -> float:
    """What the load generator took for a rate, at full load."""
    return run.peak.cpu_us_per_rate.get(OWN, 0.0) if run.peak else 0.0


def _shifts(a: _ByRow, b: _ByRow) -> tuple[dict[object, float], Error]:
    """For each row by how much its figures in B are above those in A: the mean of all rows, and as much of its own
    distance from that as is more than the turns explain."""
    apart = {row: fmean(b[row]) - fmean(a[row]) for row in a}
    squares, freedom = squares_within([*a.values(), *b.values()])
    by_chance = squares / freedom * fmean(1 / len(a[row]) + 1 / len(b[row]) for row in a)
    own = max(0.0, variance(apart.values()) - by_chance)
    kept = own / (own + by_chance) if own else 0.0
    middle = fmean(apart.values())
    shifts = {row: middle + kept * (each - middle) for row, each in apart.items()}
    return shifts, Error(shared=(own + by_chance) / len(apart), own=kept * by_chance, freedom=freedom)


def _scatter(a: Iterable[Run], b: Iterable[Run], gauge: Callable[[Run], float]) -> float:
    """Of what is left of the costs, between turns of a row in one sitting; a sum of squares."""

    def left(run: Run) -> float:
        return math.log(cost(run) or 1.0) - gauge(run)

    return squares_within([*_by_row(a, left).values(), *_by_row(b, left).values()])[0]


def _by_row(runs: Iterable[Run], figure: Callable[[Run], float]) -> _ByRow:
    found: dict[object, list[float]] = defaultdict(list)
    for run in runs:
        found[run.row].append(figure(run))
    return found
