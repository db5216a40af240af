"""What a course of clusters is measured by."""

from __future__ import annotations

from dataclasses import replace

import pytest

import bench.commands as command
from bench.clusters.course import Course, Kill
from bench.clusters.gaps import longest_gap_s
from bench.clusters.run import KINDS, bars, lines, met
from bench.ledger import Verdict, compare_totals


@pytest.mark.parametrize(
    ("times", "longest_s"),
    [
        ([], 10.0),
        ([15.0], 5.0),
        ([11.0, 12.0, 18.5, 19.0], 6.5),
        ([18.0], 8.0),
        ([12.0], 8.0),
        ([1.0, 2.0, 11.0, 19.0, 20.0, 40.0], 8.0),
    ],
)
def test_the_longest_gap(times: list[float], longest_s: float) -> None:
    assert longest_gap_s(times, 10.0, 20.0) == longest_s


KILL = Kill("nats-2", "the stream", unconfirmed_s=5.5, uncounted_s=6.5, in_sync_s=3.0)
DONE = Course("nats", [KILL, replace(KILL, node="nats-1")], Verdict(9, 8, 8, ()), confirmed=8, failed=1)


def test_a_course_within_the_bars() -> None:
    assert met(DONE)
    assert len(list(bars(DONE))) == 4
    assert lines(DONE)[-1] == "nats: LOSS 0 DUP 0"


@pytest.mark.parametrize(
    "worse",
    [
        {"kills": [KILL, replace(KILL, unconfirmed_s=10.1)]},
        {"kills": [replace(KILL, uncounted_s=15.1), KILL]},
        {"verdict": compare_totals(sent=9, confirmed=8, counted=7)},
        {"verdict": compare_totals(sent=9, confirmed=8, counted=10)},
    ],
)
def test_a_course_beyond_one(worse: dict[str, object]) -> None:
    assert not met(replace(DONE, **worse))  # type: ignore[arg-type]


def test_all_is_each_of_them() -> None:
    parse = command._parser("test").parse_args
    assert parse(["clusters", "--kinds", "all"]).kinds == parse(["clusters"]).kinds == list(KINDS)


@pytest.mark.parametrize("kinds", ["", "nats,memory", "nats+core"])
def test_wrong_usage(kinds: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["clusters", "--kinds", kinds])
    assert stopped.value.code == command.WRONG_USAGE
