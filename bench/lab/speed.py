"""Processor time as on a machine of steady speed.

A virtual machine's host makes it slower and faster while it runs, by more than most changes of a build do. There are
two gauges of that:

- *The fixed piece of work* that each run does beside its load (`calibration_us`). It is the same in every run, so any
  two can be held against each other; but it is a loop in one process, and tells little of a slower kernel.
- *The load generator*, which does for a request what every other role does: takes turns on the same cores, reads and
  writes sockets. It tells much more: on a host that was up to 40 % slower, turns of a row scattered by 12.6 %, by 5.6 %
  once the piece of work was allowed for, and by 2.2 % with the generator. But it works otherwise for another system:
  answers that come one by one cost it more each. A service that was made a third dearer made it 8 % dearer.

So in a report, where systems stand side by side, processor time is told by the piece of work. Of two sittings with the
same rows the generator tells how turns of a row stand to each other, and the piece of work, on average over all rows,
how the sittings do; how sure that average is goes with it.

A service suffers more, or less, from a slower hour than a gauge does: by how much is taken from the data, as the slope
of one against the other, on logarithms, over the turns of each row in each sitting (an analysis of covariance with one
slope for all rows). Few turns, or a steady machine, say little about a slope; it stays near 1 then. Without two turns
of any row nothing at all is known of it, and figures stay as they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final, TypeAlias

import msgspec

from bench.lab.document import Run
from bench.lab.figures import OWN, cost
from bench.lab.noise import Error

Gauge: TypeAlias = Callable[[Run], float]
"""What a run tells of its machine's slowness, in microseconds; 0 where it does not."""

STEEPEST: Final = 2.0
PRIOR: Final = 0.2
"""What the data must outweigh to move the slope from 1: a sum of squares, as of twenty turns 10 % off. What the piece
of work scatters by itself, about 1 %, would flatten the slope otherwise."""


def piece_us(run: Run) -> float:
    """What the fixed piece of work took."""
    return run.calibration_us


def generator_us(run: Run) -> float:
    """What the load generator took for a rate, at full load."""
    return run.peak.cpu_us_per_rate.get(OWN, 0.0) if run.peak else 0.0


def usual_us(runs: Iterable[Run]) -> float:
    """The median of what the fixed piece of work took; 0 where no run tells."""
    told = [run.calibration_us for run in runs if run.calibration_us > 0]
    return median(told) if told else 0.0


def at_speed(runs: Sequence[Run], us: float, slope: float) -> list[Run]:
    """`runs` with their processor time as if the fixed piece of work had always taken `us`; those that do not tell how
    long it took as they are."""
    return [_scaled(run, _factor(us, run, slope)) for run in runs]


@dataclass(frozen=True, slots=True)
class AsInA:
    """Two sittings at one speed. `error` is that of B's level against A's, which all rows share."""

    a: list[Run]
    b: list[Run]
    error: Error


def as_in_a(a: Sequence[Run], b: Sequence[Run]) -> AsInA | None:
    """The runs of two sittings with their processor time as on A's machine: turns by the generator, the sittings' level
    by the fixed piece of work. None where a measured run does not tell both, nothing is known of the slopes, or no row
    is in both."""
    every = [*a, *b]
    by_piece, by_generator = slope(every, piece_us), slope(every, generator_us)
    if by_piece is None or by_generator is None:
        return None
    if not all(piece_us(run) and generator_us(run) for run in every if run.outcome == "measured"):
        return None

    def apart(run: Run) -> float:
        return by_piece * math.log(piece_us(run)) - by_generator * math.log(generator_us(run))

    found = _level(_by_row(a, apart), _by_row(b, apart))
    if found is None:
        return None
    level, error = found
    usual = {row: fmean(logs) for runs in (b, a) for row, logs in _by_row(runs, _log_generator_us).items()}

    def told(runs: Sequence[Run], level: float) -> list[Run]:
        return [
            _scaled(run, math.exp(by_generator * (usual[run.row] - _log_generator_us(run)) - level))
            if run.outcome == "measured"
            else run
            for run in runs
        ]

    return AsInA(told(a, 0.0), told(b, level), error)


def _by_row(runs: Iterable[Run], figure: Callable[[Run], float]) -> dict[object, list[float]]:
    """Of measured runs."""
    found: dict[object, list[float]] = defaultdict(list)
    for run in runs:
        if run.outcome == "measured":
            found[run.row].append(figure(run))
    return found


def _log_generator_us(run: Run) -> float:
    return math.log(generator_us(run))


def _level(a: Mapping[object, list[float]], b: Mapping[object, list[float]]) -> tuple[float, Error] | None:
    """By how much B's rows are above A's, on average, and how sure that is, by how far apart the turns of each are."""
    both = [(a[row], b[row]) for row in a if row in b]
    turns = [each for pair in both for each in pair]
    freedom = sum(len(each) - 1 for each in turns)
    if not freedom:
        return None
    squares = sum((x - fmean(each)) ** 2 for each in turns for x in each)
    variance = squares / freedom * sum(1 / len(each) for each in turns) / len(both) ** 2
    return fmean(fmean(in_b) - fmean(in_a) for in_a, in_b in both), Error(variance, freedom)


def at_usual_speed(runs: Sequence[Run]) -> list[Run]:
    """`runs` of any sittings, each as on its machine at the usual speed of that sitting."""
    return [_scaled(run, factor) for run, factor in zip(runs, factors(runs), strict=True)]


def factors(runs: Sequence[Run]) -> list[float]:
    """By what the processor time of each run is multiplied for that; 1 where nothing is known."""
    steepness = slope(runs) or 0.0
    sittings = {run.sitting for run in runs}
    told = {sitting: usual_us(run for run in runs if run.sitting == sitting) for sitting in sittings}
    return [_factor(told[run.sitting], run, steepness) for run in runs]


def slope(runs: Iterable[Run], gauge: Gauge = piece_us) -> float | None:
    """How many per cent dearer a rate is where the gauge shows one per cent more; 0 to STEEPEST. None without two turns
    of a row in one sitting."""
    turns: dict[object, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        spent_us = cost(run)
        if run.outcome == "measured" and spent_us and gauge(run) > 0:
            turns[run.sitting, run.row].append((math.log(gauge(run)), math.log(spent_us)))
    if all(len(pairs) < 2 for pairs in turns.values()):
        return None
    together, along = PRIOR, PRIOR
    for pairs in turns.values():
        middle = fmean(x for x, _ in pairs)
        height = fmean(y for _, y in pairs)
        together += sum((x - middle) * (y - height) for x, y in pairs)
        along += sum((x - middle) ** 2 for x, _ in pairs)
    return min(max(together / along, 0.0), STEEPEST)


def _factor(us: float, run: Run, slope: float) -> float:
    return (us / piece_us(run)) ** slope if us and piece_us(run) > 0 else 1.0


def _scaled(run: Run, factor: float) -> Run:
    peak = run.peak and msgspec.structs.replace(run.peak, cpu_us_per_rate=_times(run.peak.cpu_us_per_rate, factor))
    tails = [msgspec.structs.replace(tail, cpu_us_per_rate=_times(tail.cpu_us_per_rate, factor)) for tail in run.tails]
    return msgspec.structs.replace(run, peak=peak, tails=tails)


def _times(spent_us: Mapping[str, float], factor: float) -> dict[str, float]:
    return {role: us * factor for role, us in spent_us.items()}
