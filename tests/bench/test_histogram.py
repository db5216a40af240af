"""Histograms of durations, held against the durations themselves."""

from __future__ import annotations

import random

import pytest

from bench.histogram import LONGEST_S, PERCENTILES, Histogram
from bench.load import percentile


def of(*durations_s: float) -> Histogram:
    histogram = Histogram()
    for duration_s in durations_s:
        histogram.record(duration_s)
    return histogram


def test_percentiles_are_right_to_three_digits() -> None:
    draw = random.Random(3)
    durations_s = [draw.lognormvariate(-6, 1.5) for _ in range(20_000)]
    histogram = of(*durations_s)
    assert histogram.count == 20_000
    assert histogram.mean_s == pytest.approx(sum(durations_s) / 20_000, rel=0.002)
    for at, found_s in histogram.percentiles_s().items():
        assert found_s == pytest.approx(percentile(durations_s, at), rel=0.002)


def test_what_is_asked_for_between_records() -> None:
    histogram = of(0.001)
    assert histogram.percentile_s(100) == pytest.approx(0.001, rel=0.001)
    histogram.record(0.5)
    assert histogram.percentile_s(100) == pytest.approx(0.5, rel=0.001)
    assert histogram.percentile_s(50) == pytest.approx(0.001, rel=0.001)


def test_the_ends() -> None:
    assert of(-0.001, 0.0).percentile_s(100) == 0
    assert of(1000.0).percentile_s(100) == pytest.approx(LONGEST_S, rel=0.001)
    assert of().percentiles_s() == dict.fromkeys(PERCENTILES, 0.0)
    assert of().share_above(0) == of().mean_s == of().count == 0


def test_the_share_of_slow_ones() -> None:
    assert of(0.1, 0.4, 0.6, 2.0).share_above(0.5) == 0.5
    assert of(0.1).share_above(0.5) == 0


def test_a_file_gives_it_back_and_two_become_one() -> None:
    fast, slow = of(0.001, 0.002), of(1.5)
    read = Histogram.decode(slow.encode())
    assert read.percentiles_s() == slow.percentiles_s()
    fast.add(read)
    assert fast.count == 3
    assert fast.told_ms() == {
        "p50": pytest.approx(2, rel=0.001),
        "p90": pytest.approx(1500, rel=0.001),
        "p99": pytest.approx(1500, rel=0.001),
        "p99.9": pytest.approx(1500, rel=0.001),
        "max": pytest.approx(1500, rel=0.001),
    }
    assert Histogram.decode(Histogram().encode()).count == 0
