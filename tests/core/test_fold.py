"""The fold is pure: held against counting one rate at a time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.batches import Batch, Key
from core.fold import ALL, cut, fold, without_doubles

PRODUCER = "0123456789abcdef" * 2
rates = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(-3, 3)), min_size=1, max_size=8)


def batch(sequence: int, rates: list[tuple[str, int]], at: float = 0.0, keys: list[Key] | None = None) -> Batch:
    return Batch(
        version=1, shard=0, producer=PRODUCER, sequence=sequence, opened=0, at=at, rates=rates, keys=keys or []
    )


@given(st.lists(st.tuples(rates, st.floats(0, 300)), min_size=1, max_size=6))
def test_fold_equals_counting_one_by_one(parts: list[tuple[list[tuple[str, int]], float]]) -> None:
    batches = [batch(number, rates, at) for number, (rates, at) in enumerate(parts)]
    folded = fold(batches)
    expected: Counter[tuple[str, int]] = Counter()
    minutes: Counter[tuple[int, str]] = Counter()
    for each in batches:
        for subject, rate in each.rates:
            for name in (subject, ALL):
                expected[name, rate] += 1
                minutes[int(each.at // 60), name] += 1
    assert {(name, rate): n for name, of in folded.counts.items() for rate, n in of.items()} == dict(expected)
    assert {(minute, name): n for minute, of in folded.minutes.items() for name, n in of.items()} == dict(minutes)
    assert folded.rates == sum(len(each.rates) for each in batches)


def test_a_key_counts_once_within_a_fold_and_not_when_known() -> None:
    first = batch(0, [("a", 1), ("a", 2), ("b", 9)], keys=[Key("1" * 32, 0, 2)])
    again = batch(1, [("c", 5), ("a", 1), ("a", 2)], keys=[Key("1" * 32, 1, 2)])
    assert fold([first, again]).counts == {
        "a": {1: 1, 2: 1},
        "b": {9: 1},
        "c": {5: 1},
        ALL: {1: 1, 2: 1, 9: 1, 5: 1},
    }
    known = fold([first, again], frozenset({"1" * 32}))
    assert known.counts == {"b": {9: 1}, "c": {5: 1}, ALL: {9: 1, 5: 1}}
    assert known.keys == ()


def test_a_fold_of_nothing_but_known_keys_marks_its_batch() -> None:
    folded = fold([batch(0, [("a", 1)], keys=[Key("1" * 32, 0, 1)])], frozenset({"1" * 32}))
    assert len(folded.batches) == 1
    assert folded.counts == {}
    assert folded.minutes == {}
    assert folded.rates == 0


def test_cut_keeps_the_bounds_and_every_batch() -> None:
    batches = [batch(number, [(f"s{number}-{i}", 1) for i in range(4)]) for number in range(10)]
    runs = list(cut(batches, max_subjects=10, max_bytes=10**6))
    assert [len(run) for run in runs] == [2, 2, 2, 2, 2]
    assert [each for run in runs for each in run] == batches
    assert [len(run) for run in cut(batches, max_subjects=1, max_bytes=1)] == [1] * 10


def test_doubles_go_in_order() -> None:
    batches = [batch(1, [("a", 1)]), batch(0, [("b", 1)]), batch(1, [("a", 1)])]
    assert without_doubles(batches) == batches[:2]
