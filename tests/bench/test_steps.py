"""Which step is the last good one."""

from __future__ import annotations

import pytest

from bench.steps import HELD, LOOKS, MOST_STEPS, Look, Steps

FINE = Look(0.02, 100.0)
SLOW = Look(0.3, 90.0)
FAILING = Look(0.001, 5000.0, failed=1)
CHANGED = Look(9.0, 1.0)
"""The first look after a change of users, which tells nothing."""


def _pass(steps: Steps, times: int) -> None:
    for _ in range(times):
        for look in [CHANGED, *[FINE] * LOOKS]:
            steps.see(look)


def test_users_grow_while_all_is_well() -> None:
    steps = Steps(20, 0.1)
    seen = []
    for _ in range(3):
        seen.append(steps.users)
        _pass(steps, 1)
    assert seen == [20, 40, 60]
    assert str(steps.good) == "60 users, 100 requests/s, p99 20 ms"


def test_two_looks_beyond_the_bound_and_the_step_before_is_held_and_told() -> None:
    steps = Steps(20, 0.1)
    _pass(steps, 2)
    for look in (CHANGED, SLOW, FINE, SLOW):
        assert steps.users == 60
        steps.see(look)
    for _ in range(1 + HELD):
        assert steps.users == 40
        steps.see(FINE)
    assert steps.users is None
    assert steps.lines() == [
        "the last good step: 40 users, 100 requests/s, p99 20 ms",
        "with 60 users, 93 requests/s, p99 300 ms it went beyond 100 ms, failed or fell silent, in 2 looks",
    ]


def test_one_look_beyond_it_is_chance() -> None:
    steps = Steps(20, 0.1)
    for look in (CHANGED, FINE, SLOW, FINE, FINE):
        steps.see(look)
    assert steps.users == 40
    assert steps.good is not None
    assert steps.good.p99_s == 0.02


def test_fast_failures_are_no_good_step() -> None:
    steps = Steps(20, 0.1)
    for look in (CHANGED, FAILING, FAILING):
        steps.see(look)
    assert steps.users is None
    assert steps.lines()[0].startswith("no step was good: already with 20 users, ")


@pytest.mark.parametrize("look", [Look(0.0, 0.0), Look(0.02, 24.0), Look(0.02, 100.0, waiting_s=0.2)])
def test_a_service_that_answers_few_or_nobody_has_no_good_step(look: Look) -> None:
    """What is not answered is in no percentile: that of none is 0."""
    steps = Steps(20, 0.1)
    _pass(steps, 1)
    for each in (CHANGED, look, look):
        assert steps.users == 40
        steps.see(each)
    assert steps.users == 20
    assert steps.broken is not None
    assert steps.broken.p99_s == max(look.p99_s, look.waiting_s)


def test_who_waits_within_the_bound_is_in_the_percentile_later() -> None:
    steps = Steps(20, 0.1)
    for each in (CHANGED, *[Look(0.02, 100.0, waiting_s=0.09)] * LOOKS):
        steps.see(each)
    assert steps.good is not None
    assert steps.good.p99_s == 0.02


def test_it_ends_also_where_nothing_gives_in() -> None:
    steps = Steps(1, 0.1)
    assert steps.lines() == ["it ended before the first step was over"]
    _pass(steps, MOST_STEPS)
    assert steps.users is None
    assert steps.lines()[0].startswith(f"p99 never went beyond 100 ms: the last step was {MOST_STEPS} users, ")
