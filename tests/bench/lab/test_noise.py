"""When two rows differ: how often equal ones are called different, how often different ones are found."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.lab import noise, student
from bench.lab.noise import Difference, Error, Noise

ROWS = 16
SITTINGS = 80
Turns = list[float]

figures = st.floats(0.01, 1e7)
turns = st.lists(figures, min_size=1, max_size=5)
known = st.builds(Noise, st.floats(1e-6, 0.1), st.floats(1, 1000))


def _turns(source: random.Random, count: int, spread: float, disturbed: float) -> Turns:
    return [
        50 * math.exp(source.gauss(0, spread)) * (1.1 if source.random() < disturbed else 1.0) for _ in range(count)
    ]


def _sittings(count: int, spread: float, disturbed: float, factor: float = 1.0) -> list[dict[int, tuple[Turns, Turns]]]:
    """Pairs of sittings with the same rows, of which the second's cost `factor` as much."""
    source = random.Random(7)
    return [
        {
            row: (
                _turns(source, count, spread, disturbed),
                [factor * each for each in _turns(source, count, spread, disturbed)],
            )
            for row in range(ROWS)
        }
        for _ in range(SITTINGS)
    ]


def _share(called: list[Difference], wanted: Callable[[Difference], bool]) -> float:
    return sum(map(wanted, called)) / len(called)


def _called(sittings: list[dict[int, tuple[Turns, Turns]]]) -> list[Difference]:
    return [one for pairs in sittings for one in noise.differences(pairs)[0].values()]


@pytest.mark.parametrize("spread", [0.02, 0.03, 0.04])
@pytest.mark.parametrize(("count", "disturbed"), [(3, 0.0), (3, 0.1), (5, 0.1)])
def test_the_same_build_twice_is_called_different_in_no_more_than_one_row_of_fifty(
    count: int, spread: float, disturbed: float
) -> None:
    called = _called(_sittings(count, spread, disturbed))
    assert _share(called, lambda one: one.call != "equal") <= 0.02


@pytest.mark.parametrize("spread", [0.02, 0.03, 0.04])
@pytest.mark.parametrize("disturbed", [0.0, 0.1])
def test_a_build_that_costs_a_tenth_more_is_called_so_in_nine_rows_of_ten(spread: float, disturbed: float) -> None:
    called = _called(_sittings(3, spread, disturbed, factor=1.1))
    assert _share(called, lambda one: one.call == "higher") >= 0.9


@pytest.mark.parametrize(("count", "spread"), [(3, 0.025), (5, 0.035)])
def test_a_single_row_that_costs_a_tenth_more_is_found_where_turns_are_quiet(count: int, spread: float) -> None:
    changed = [
        pairs | {0: (pairs[0][0], [1.1 * b for b in pairs[0][1]])} for pairs in _sittings(count, spread, 0.0) * 5
    ]
    found = [noise.differences(pairs)[0][0] for pairs in changed]
    assert _share(found, lambda one: one.call == "higher") >= 0.9


def test_what_all_rows_may_be_wrong_by_is_part_of_the_noise() -> None:
    (pairs,) = _sittings(3, 0.02, 0.0)[:1]
    moved = {key: (a, [1.05 * each for each in b]) for key, (a, b) in pairs.items()}
    known, together = noise.differences(moved)
    doubted, doubtful = noise.differences(moved, error=Error(shared=0.03**2, freedom=100))
    assert together is not None
    assert doubtful is not None
    assert (together.call, doubtful.call) == ("higher", "equal")
    assert all(doubted[key].noise > known[key].noise for key in known)
    assert sum(one.call == "equal" for one in doubted.values()) > ROWS / 2
    own, alone = noise.differences(moved, error=Error(own=0.03**2, freedom=100))
    assert alone == together
    assert own[0].call == "higher"


def test_a_few_rows_that_changed_do_not_take_the_others_with_them() -> None:
    for pairs in _sittings(3, 0.02, 0.0):
        mixed = {key: (a, [1.3 * each for each in b] if key < 5 else b) for key, (a, b) in pairs.items()}
        called, together = noise.differences(mixed)
        assert together is not None
        assert together.call == "equal"
        assert [called[key].call for key in range(5)] == ["higher"] * 5


def test_rows_that_changed_in_all_directions_did_not_move_together() -> None:
    """Their median is off by chance; how far it may be is told by how much the rows differ."""
    source = random.Random(2)
    changes = [source.gauss(0.05, 0.2) for _ in range(9)]
    pairs = {
        key: ([50.0, 50.1, 50.2], [each * math.exp(change) for each in (50.0, 50.1, 50.2)])
        for key, change in enumerate(changes)
    }
    _, together = noise.differences(pairs)
    assert together is not None
    assert abs(together.change) > noise.LEAST
    assert together.call == "equal"


def test_a_row_that_moved_the_other_way_does_not_follow() -> None:
    """Nor one that stood still: only what moved as all did is taken along."""
    factors = {**dict.fromkeys(range(15), 1.06), 15: 1.0, 16: 0.955}
    noisy = [48.0, 50.0, 52.0]
    pairs = {key: (noisy, [factor * each for each in noisy]) for key, factor in factors.items()}
    called, together = noise.differences(pairs)
    assert together is not None
    assert together.call == "higher"
    assert [called[key].call for key in (0, 15, 16)] == ["higher", "equal", "equal"]


def test_a_machine_that_differs_a_little_from_itself_is_no_change() -> None:
    called = _called(_sittings(3, 0.002, 0.0, factor=1.02))
    assert all(one.call == "equal" for one in called)


def test_one_turn_each_says_nothing_about_noise() -> None:
    called, together = noise.differences({key: ([50.0], [80.0]) for key in range(9)})
    assert {one.call for one in called.values()} == {"unknown"}
    assert together is None


def test_a_row_that_is_noisier_than_the_others_needs_a_larger_difference() -> None:
    rows = [
        [50.0, 50.5, 51.0],
        [20.0, 20.1, 20.3],
        [70.0, 70.9, 70.2],
        [9.0, 9.1, 9.05],
        [5.0, 5.03, 4.97],
        [40.0, 55.0, 70.0],
    ]
    shared = noise.pool(rows)
    assert noise.difference(rows[-1], rows[-1], shared).noise > 3 * noise.difference(rows[0], rows[0], shared).noise


def test_one_disturbed_turn_pulls_an_estimate_less_than_a_mean() -> None:
    shared = Noise(0.02**2, 60)
    assert noise.typical([50, 50.5, 75], shared) < 52 < (50 + 50.5 + 75) / 3


@given(turns, turns, known)
def test_b_against_a_is_the_opposite_of_a_against_b(a: Turns, b: Turns, shared: Noise) -> None:
    forth, back = noise.difference(a, b, shared), noise.difference(b, a, shared)
    assert (1 + forth.change) * (1 + back.change) == pytest.approx(1)
    assert (forth.call, back.call) in {("equal", "equal"), ("higher", "lower"), ("lower", "higher")}


@given(turns, turns, known, st.floats(0.001, 1000))
def test_units_make_no_difference(a: Turns, b: Turns, shared: Noise, unit: float) -> None:
    plain = noise.difference(a, b, shared)
    scaled = noise.difference([unit * each for each in a], [unit * each for each in b], shared)
    assert scaled.change == pytest.approx(plain.change, rel=1e-6, abs=1e-9)
    assert scaled.noise == pytest.approx(plain.noise, rel=1e-6, abs=1e-9)


@given(turns, known, st.randoms())
def test_an_estimate_lies_among_its_turns_whatever_their_order(a: Turns, shared: Noise, source: random.Random) -> None:
    estimate = noise.typical(a, shared)
    assert min(a) * (1 - 1e-9) <= estimate <= max(a) * (1 + 1e-9)
    assert noise.typical(source.sample(a, len(a)), shared) == pytest.approx(estimate, rel=1e-9)


@given(st.lists(turns, min_size=1, max_size=20))
def test_whatever_was_measured_has_a_noise_or_none(rows: list[Turns]) -> None:
    shared = noise.pool(rows)
    assert (shared is None) == all(len(row) == 1 for row in rows)
    if shared is not None:
        assert shared.variance >= 0
        assert shared.freedom > 0
        assert noise.difference(rows[0], rows[0], shared).call == "equal"


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 63.66), (2, 9.925), (3, 5.841), (4, 4.604), (6, 3.707), (10, 3.169), (30, 2.750), (1000, 2.581)],
)
def test_the_quantiles_are_those_of_student(freedom: float, expected: float) -> None:
    assert student.quantile(freedom, 0.01) == pytest.approx(expected, rel=0.002)


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_few_rows_too_equal_ones_are_seldom_called_different(rows: int, count: int) -> None:
    source = random.Random(rows)
    called = []
    for _ in range(2000 // rows):
        made = [[_turns(source, count, 0.03, 0.0) for _ in range(2)] for _ in range(rows)]
        pairs = {row: (a, b) for row, (a, b) in enumerate(made)}
        called += _alone(pairs)
    assert _share(called, lambda one: one.call != "equal") <= 0.015


def _alone(pairs: dict[int, tuple[Turns, Turns]]) -> list[Difference]:
    shared = noise.pool_pairs(list(pairs.values()))
    return [noise.difference(a, b, shared) for a, b in pairs.values()]


def test_what_shrinkage_is_reckoned_with() -> None:
    assert student.trigamma(1) == pytest.approx(math.pi**2 / 6)
    assert student.digamma(1) == pytest.approx(-0.5772156649)
    assert student.trigamma_inverse(student.trigamma(3.7)) == pytest.approx(3.7)
