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
from bench.lab.report.sections import report
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


def test_one_turn_of_each_row_says_nothing_and_figures_stay_as_they_are() -> None:
    runs = [run for run in _runs(1.0, swing=0.3) if run.turn == 1]
    assert speed.slope(runs) is None
    assert [cost(run) for run in speed.at_usual_speed(runs)] == [cost(run) for run in runs]
    assert any("told as it was taken" in text for text in report(runs).method)


def test_a_build_that_became_cheaper_on_a_slower_day_does_not_flatten_the_slope() -> None:
    day, other = _runs(1.0, swing=0.15), [_slower(run, 3, 1 / 3) for run in _runs(1.0, swing=0.15, seed=2)]
    runs = [*day, *(msgspec.structs.replace(run, sitting="s2") for run in other)]
    assert speed.slope(runs) == pytest.approx(1, abs=0.15)


def test_the_report_tells_processor_time_at_the_usual_speed_and_by_what_factors() -> None:
    calm = brokers(Maker(1), names=["nats"]).made
    uneven = [_slower(run, 2, 2) if run.turn == 3 else run for run in calm]
    told = report(uneven)
    (table,) = (table for table in told.sections[0].tables if table.caption == "Full load")
    place = next(at for at, column in enumerate(table.columns) if column.title == "CPU per rate")
    for row in table.rows:
        low, high = row[place + 1].split("\N{EN DASH}")
        assert float(high) < 1.2 * float(low)
    assert any("multiplied by factors of 0.5" in text for text in told.method)


def _slower(run: Run, machine: float, cost: float) -> Run:
    """Whose fixed piece of work took `machine` times as long, and whose rates cost `cost` times as much."""
    assert run.peak is not None
    spent = {role: us * cost for role, us in run.peak.cpu_us_per_rate.items()}
    peak = msgspec.structs.replace(run.peak, cpu_us_per_rate=spent)
    return msgspec.structs.replace(run, peak=peak, calibration_us=run.calibration_us * machine)


def test_a_usual_run_stays_as_it_is_and_runs_without_calibration_too() -> None:
    runs = _runs(1.0, swing=0.1)
    usual_us = speed.usual_us(runs)
    usual = msgspec.structs.replace(runs[0], calibration_us=usual_us)
    silent = msgspec.structs.replace(runs[1], calibration_us=0.0)
    kept, same = speed.at_speed([usual, silent], usual_us, 1.3)
    assert (cost(kept), same) == (cost(usual), silent)
