"""The schedules of the open loop are data."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean, variance

import pytest

from bench.schedule import Schedule


def test_even_requests_come_at_equal_distances() -> None:
    times = list(Schedule(250, 2).times())
    assert (len(times), times[0], times[-1]) == (500, 0, pytest.approx(1.996))
    assert all(later - earlier == pytest.approx(0.004) for earlier, later in pairwise(times))


def test_poisson_gaps_are_exponential() -> None:
    """Mean 1 / rate, variance 1 / rate squared, and, as of requests that know nothing of each other, numbers per second
    whose variance is their mean."""
    times = list(Schedule(100, 1000, "poisson", seed=7).times())
    gaps = [later - earlier for earlier, later in pairwise([0.0, *times])]
    assert fmean(gaps) == pytest.approx(0.01, rel=0.02)
    assert variance(gaps) == pytest.approx(0.01**2, rel=0.05)
    per_second = [0] * 1000
    for at in times:
        per_second[int(at)] += 1
    assert variance(per_second) == pytest.approx(100, rel=0.15)
    assert times == sorted(times)
    assert times[-1] < 1000


def test_a_seed_is_a_schedule() -> None:
    def times(seed: int) -> list[float]:
        return list(Schedule(100, 1, "poisson", seed).times())

    assert times(1) == times(1) != times(2)
