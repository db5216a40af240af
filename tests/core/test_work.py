"""The schedule of the workers, by a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from core.work import Work


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("rates", "concurrency", "takes_s"),
    [(0, 1, 0.0), (1, 1, 0.5), (4, 1, 2.0), (4, 4, 0.5), (5, 4, 1.0), (8, 3, 1.5)],
)
def test_how_long_rates_take(rates: int, concurrency: int, takes_s: float) -> None:
    work = Work(0.5, concurrency, Clock())
    assert work.begin(rates) == pytest.approx(100 + takes_s)


def test_what_comes_later_waits_for_the_first_free_worker() -> None:
    clock = Clock()
    work = Work(1.0, 2, clock)
    assert work.begin(3) == pytest.approx(102)
    assert work.begin(1) == pytest.approx(102), "the second worker is free from 101"
    assert work.begin(1) == pytest.approx(103)
    clock.now = 102.5
    assert work.left_s(103) == pytest.approx(0.5)
    assert work.left_s(102) == 0


def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    work = Work(1.0, 1, clock)
    work.begin(1)
    clock.now = 200.0
    assert work.begin(1) == pytest.approx(201)


def test_no_work_takes_no_time() -> None:
    work = Work(0.0, 1, Clock())
    assert not work.takes_time
    assert work.begin(10_000) == 100


def test_what_fits() -> None:
    assert Work(0.01, 1).rates_in(5.0) == 500
    assert Work(0.01, 4).rates_in(5.0) == 2000
    assert Work(60, 1).rates_in(5.0) == 1


async def test_a_thousand_works_of_a_millisecond_take_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a timer that is a millisecond late."""
    clock = Clock()

    async def late(delay_s: float) -> None:
        clock.now += delay_s + 0.001

    monkeypatch.setattr(asyncio, "sleep", late)
    work = Work(0.001, 1, clock)
    for _ in range(10):
        await work.done(100)
    assert 1.0 <= clock.now - 100 < 1.02
