"""Processor time as on a machine of steady speed.

A virtual machine's host makes it slower and faster while it runs, by more than most changes of a build do. Each run
tells how long a fixed piece of work took beside its load (`calibration_us`). A service suffers more, or less, from a
slower hour than that piece does: by how much is taken from the data, as the slope of one against the other, on
logarithms, over the turns of each row in each sitting (an analysis of covariance with one slope for all rows). Few
turns, or a steady machine, say little about a slope; it stays near 1 then. Without two turns of any row nothing at all
is known of it, and figures stay as they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Final, TypeAlias

import msgspec

from bench.lab.document import Run
from bench.lab.figures import cost

Gauge: TypeAlias = Callable[[Run], float]
"""What a run tells of its machine's slowness, in microseconds; 0 where it does not."""

STEEPEST: Final = 2.0
PRIOR: Final = 0.2
"""What the data must outweigh to move the slope from 1: a sum of squares, as of twenty turns 10 % off. What the piece
of work scatters by itself, about 1 %, would flatten the slope otherwise."""


def piece_us(run: Run) -> float:
    """What the fixed piece of work took."""
    return run.calibration_us


def usual_us(runs: Iterable[Run]) -> float:
    """The median of what the fixed piece of work took; 0 where no run tells."""
    told = [us for run in runs if (us := piece_us(run)) > 0]
    return median(told) if told else 0.0


def at_speed(runs: Sequence[Run], us: float, slope: float) -> list[Run]:
    """`runs` with their processor time as if the fixed piece of work had always taken `us`; those that do not tell how
    long it took as they are."""
    return [scaled(run, _factor(run, us, slope)) for run in runs]


def at_usual_speed(runs: Sequence[Run]) -> list[Run]:
    """`runs` of any sittings, each as on its machine at the usual speed of that sitting."""
    return [scaled(run, factor) for run, factor in zip(runs, factors(runs), strict=True)]


def factors(runs: Sequence[Run]) -> list[float]:
    """By what the processor time of each run is multiplied for that; 1 where nothing is known."""
    steepness = slope(runs) or 0.0
    sittings = {run.sitting for run in runs}
    told = {sitting: usual_us(run for run in runs if run.sitting == sitting) for sitting in sittings}
    return [_factor(run, told[run.sitting], steepness) for run in runs]


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


def _factor(run: Run, us: float, slope: float) -> float:
    return (us / piece_us(run)) ** slope if us and piece_us(run) > 0 else 1.0


def scaled(run: Run, factor: float) -> Run:
    """`run` with all of its processor time multiplied."""
    peak = run.peak and msgspec.structs.replace(run.peak, cpu_us_per_rate=_times(run.peak.cpu_us_per_rate, factor))
    tails = [msgspec.structs.replace(tail, cpu_us_per_rate=_times(tail.cpu_us_per_rate, factor)) for tail in run.tails]
    return msgspec.structs.replace(run, peak=peak, tails=tails)


def _times(spent_us: Mapping[str, float], factor: float) -> dict[str, float]:
    return {role: us * factor for role, us in spent_us.items()}
