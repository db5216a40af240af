"""Processor time of a machine whose speed changes."""

from __future__ import annotations

import math
import random
from statistics import stdev

import msgspec
import pytest

from bench.lab import speed
from bench.lab.document import Run
from bench.lab.figures import cost
from tests.bench.lab.documents import Maker, brokers


def _runs(steepness: float, *, swing: float, seed: int = 1) -> list[Run]:
    """Rows of a machine that is slower by `swing` (a standard deviation) from run to run."""
    chance = random.Random(seed)
    found = []
    for run in brokers(Maker(seed)).made:
        assert run.peak is not None
        slower = math.exp(chance.gauss(0, swing))
        spent = {role: us * slower**steepness for role, us in run.peak.cpu_us_per_rate.items()}
        peak = msgspec.structs.replace(run.peak, cpu_us_per_rate=spent)
        found.append(msgspec.structs.replace(run, peak=peak, calibration_us=run.calibration_us * slower))
    return found


def _scatter(runs: list[Run]) -> float:
    """Of turns of a row, as a share, on average."""
    rows: dict[object, list[float]] = {}
    for run in runs:
        spent = cost(run)
        assert spent
        rows.setdefault(run.row, []).append(math.log(spent))
    return sum(stdev(turns) for turns in rows.values()) / len(rows)


@pytest.mark.parametrize("steepness", [0.5, 1.0, 1.4])
def test_the_slope_is_found_and_what_the_host_did_is_taken_out(steepness: float) -> None:
    runs = _runs(steepness, swing=0.15)
    assert speed.slope(runs) == pytest.approx(steepness, abs=0.15)
    assert _scatter(runs) > 0.05
    assert _scatter(speed.at_usual_speed(runs)) < 0.03


def test_a_steady_machine_says_little_and_the_slope_stays_near_one() -> None:
    assert speed.slope(_runs(1.0, swing=0.0)) == pytest.approx(1, abs=0.15)


def test_a_usual_run_stays_as_it_is_and_runs_without_calibration_too() -> None:
    runs = _runs(1.0, swing=0.1)
    usual_us = speed.usual_us(runs)
    usual = msgspec.structs.replace(runs[0], calibration_us=usual_us)
    silent = msgspec.structs.replace(runs[1], calibration_us=0.0)
    kept, same = speed.at_speed([usual, silent], usual_us, 1.3)
    assert (cost(kept), same) == (cost(usual), silent)
