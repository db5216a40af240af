"""`python -m bench compare`: what it tells of two sittings, and its exit codes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bench import commands as command
from bench.lab import compare
from bench.lab.compare import Comparison
from bench.lab.document import Books, Run, Setup, Workload
from bench.lab.figures import COST, LATENCY, RPS
from bench.lab.rows import NoDocuments
from tests.bench.lab.documents import LOUD, Maker, brokers, plain, without_figures


def _sitting(seed: int, **more: float) -> list[Run]:
    return brokers(Maker(seed, sitting=f"s{seed}", **more)).made  # type: ignore[arg-type] # numbers only


def _calls(comparison: Comparison) -> list[str]:
    return [pair.difference.call for pair in comparison.figures[0].pairs]


def test_one_build_twice_is_equal() -> None:
    comparison = compare.compare_runs(_sitting(1), _sitting(2))
    assert _calls(comparison) == ["equal"] * 16
    assert not comparison.worse([COST])


def test_a_dearer_build_is_found_and_a_cheaper_one_is_not_worse() -> None:
    plain_runs, dear = _sitting(1), _sitting(2, dearer=1.1)
    assert _calls(compare.compare_runs(plain_runs, dear)).count("higher") >= 15
    assert compare.compare_runs(plain_runs, dear).worse([COST])
    assert _calls(compare.compare_runs(dear, plain_runs)).count("lower") >= 15
    assert not compare.compare_runs(dear, plain_runs).worse([COST])


def test_a_slower_machine_is_no_dearer_build() -> None:
    comparison = compare.compare_runs(_sitting(1), _sitting(2, slower=1.25))
    assert comparison.slower == pytest.approx(1.25, rel=0.01)
    assert _calls(comparison) == ["equal"] * 16
    assert "% more CPU time for the fixed piece of work" in compare.lines(comparison)[0]


@pytest.mark.parametrize(("slower", "found"), [(1.0, 0.9), (1.15, 0.9), (0.87, 0.5)])
def test_on_a_machine_whose_speed_changes_all_the_time(slower: float, found: float) -> None:
    """By what the generator took, for the fixed piece of work tells too little. What that is flattened by its own noise
    makes a B on a faster machine look cheaper than it is, within what is told as noise."""
    calls = {
        dearer: [
            call
            for seed in range(20)
            for call in _calls(
                compare.compare_runs(
                    _sitting(seed, uneven=0.15), _sitting(100 + seed, uneven=0.15, slower=slower, dearer=dearer)
                )
            )
        ]
        for dearer in (1.0, 1.1)
    }
    assert calls[1.0].count("equal") >= 0.98 * len(calls[1.0])
    assert calls[1.1].count("higher") >= found * len(calls[1.1])


def test_a_machine_whose_speed_the_fixed_piece_of_work_tells_exactly_is_corrected_run_by_run() -> None:
    a, b = (_uneven(runs, seed) for runs, seed in ((_sitting(1), 1), (_sitting(2, dearer=1.1), 2)))
    assert _calls(compare.compare_runs(a, b)).count("higher") >= 15
    assert _calls(compare.compare_runs(a, _uneven(_sitting(3), 3))) == ["equal"] * 16


def _uneven(runs: list[Run], seed: int) -> list[Run]:
    """Each run on a machine that was up to twice as slow just then."""
    source = random.Random(seed)
    return [_slowed(run, source.uniform(1, 2)) for run in runs]


def _slowed(run: Run, factor: float) -> Run:
    slower = _spending(run, lambda spent: {role: us * factor for role, us in spent.items()})
    return msgspec.structs.replace(slower, calibration_us=run.calibration_us * factor)


def test_a_build_that_makes_the_generator_dearer_in_some_rows_is_called_no_cheaper_there() -> None:
    b = [_driven(run, 1.2 if run.setup.broker == "kafka" else 1.0) for run in _sitting(2, uneven=0.1)]
    comparison = compare.compare_runs(_sitting(1, uneven=0.1), b)
    assert comparison.gauges.startswith("the load generator")
    assert _calls(comparison) == ["equal"] * 16


@pytest.mark.parametrize("dearer", [1.0, 1.1])
def test_a_build_that_makes_the_generator_dearer_in_all_rows_is_told_as_it_is(dearer: float) -> None:
    """As by answers that come one by one."""
    b = [_driven(run, 1.2) for run in _sitting(2, uneven=0.1, dearer=dearer)]
    assert _calls(compare.compare_runs(_sitting(1, uneven=0.1), b)) == ["equal" if dearer == 1 else "higher"] * 16


def _driven(run: Run, factor: float) -> Run:
    return _spending(run, lambda spent: {**spent, "load": factor * spent["load"]})


def test_rows_of_one_sitting_alone_failed_turns_and_unequal_numbers_of_turns_disturb_no_correction() -> None:
    a = [run for run in _sitting(1, uneven=0.15) if run.turn < 3 or run.setup.broker != "nats"]
    b = [
        without_figures(run, "failed", "nats-server ended") if run.turn == 1 and run.setup.broker == "redis" else run
        for run in _sitting(2, uneven=0.15, dearer=1.1)
    ]
    lonely = Maker(5, sitting="s1", uneven=0.15).rows("x", "x", [(Setup(broker="nats"), Workload())]).made
    comparison = compare.compare_runs([*a, *lonely], b)
    assert comparison.gauges.startswith("the load generator")
    assert _calls(comparison) == ["higher"] * 16
    assert len(comparison.only_a) == 1


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_of_few_rows_equal_ones_are_equal_too(rows: int) -> None:
    whats = [(Setup(broker="nats"), Workload(connections=2**each)) for each in range(rows)]
    calls = [
        call
        for seed in range(40)
        for call in _calls(
            compare.compare_runs(
                Maker(seed, sitting="a", uneven=0.15).rows("x", "x", whats).made,
                Maker(100 + seed, sitting="b", uneven=0.15).rows("x", "x", whats).made,
            )
        )
    ]
    assert calls.count("equal") >= 0.97 * len(calls)


def test_on_a_steady_machine_the_gauge_that_scatters_less_is_taken() -> None:
    comparison = compare.compare_runs(_sitting(1), _sitting(2))
    assert compare.lines(comparison)[0].endswith("told as on A's machine, by the fixed piece of work.")


@pytest.mark.parametrize("spoilt_us", [0.0, -1.0])
def test_where_a_run_does_not_tell_what_the_generator_took_the_fixed_piece_of_work_is_the_gauge(
    spoilt_us: float,
) -> None:
    a, b = _sitting(1, uneven=0.03), _sitting(2, uneven=0.03, slower=1.25)
    spoilt = [_spending(run, lambda spent: {**spent, "load": spoilt_us}) if run.turn == 1 else run for run in a]
    comparison = compare.compare_runs(spoilt, b)
    assert _calls(comparison) == ["equal"] * 16
    assert comparison.slower == pytest.approx(1.25, rel=0.05)
    assert compare.lines(comparison)[0].endswith("told as on A's machine, by the fixed piece of work.")


def _spending(run: Run, change: Callable[[dict[str, float]], dict[str, float]]) -> Run:
    assert run.peak is not None
    peak = msgspec.structs.replace(run.peak, cpu_us_per_rate=change(run.peak.cpu_us_per_rate))
    return msgspec.structs.replace(run, peak=peak)


def test_without_any_gauge_figures_are_compared_as_they_are_and_it_says_so() -> None:
    slower = [msgspec.structs.replace(run, calibration_us=0.0) for run in _sitting(2, slower=1.25)]
    comparison = compare.compare_runs(_sitting(1), slower)
    assert comparison.slower is None
    assert set(_calls(comparison)) == {"higher"}
    assert "not known: CPU figures are compared as they are" in compare.lines(comparison)[0]


def test_a_single_broker_that_became_dearer_is_found_alone() -> None:
    maker = Maker(2, cpu_us=lambda setup, work: _dearer(plain(setup, work), 1.2 if setup.broker == "kafka" else 1.0))
    comparison = compare.compare_runs(_sitting(1), brokers(maker).made)
    higher = [pair.label for pair in comparison.figures[0].pairs if pair.difference.call == "higher"]
    assert len(higher) == 4
    assert all("Kafka" in label for label in higher)


def test_rows_of_one_sitting_only_and_rows_that_came_to_nothing_are_named() -> None:
    a, b = _sitting(1), _sitting(2)
    ended = "redis-server ended"
    broken = [
        without_figures(run, "failed", ended) if run.setup.broker == "redis" else run
        for run in b
        if run.setup.broker != "nats"
    ]
    comparison = compare.compare_runs(a, broken)
    assert len(comparison.only_a) == 4
    assert comparison.only_b == []
    assert len(comparison.lost) == 4
    assert comparison.worse([COST])
    assert sum(ended in line and "not measured in B" in line for line in compare.lines(comparison)) == 4
    assert sum("only in A: " in line for line in compare.lines(comparison)) == 4


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda run: without_figures(run, "failed", "nats-server ended") if run.turn == 2 else run, "failed in 1 of 3"),
        (lambda run: without_figures(run, "void", "late"), "measured in A, not in B: void: late"),
        (lambda run: without_figures(run, "skipped", "no server"), "measured in A, not in B: skipped: no server"),
        (lambda run: _with_ledger(run, loss=5) if run.turn == 3 else run, "OPEN LEDGER in B"),
        (lambda run: _with_ledger(run, loss=5), "LOSS 5 DUP 0 in turn 1 of s2"),
    ],
    ids=["a failed turn", "void", "skipped", "an open ledger", "all ledgers open"],
)
def test_what_b_lost_is_loud_and_worse_whatever_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Run], Run], told: str
) -> None:
    what = [(Setup(broker="nats"), Workload())]
    a, b = (Maker(seed, sitting=f"s{seed}").rows("x", "x", what) for seed in (1, 2))
    b.made = [spoil(run) for run in b.made]
    paths = [str(maker.write(tmp_path / maker.sitting)) for maker in (a, b)]
    assert command.main(["compare", *paths, "--figure", "memory"]) == 1
    assert told in capsys.readouterr().out
    assert command.main(["compare", *reversed(paths), "--figure", "batch"]) != 1


def test_a_turn_that_fails_in_both_is_no_loss_and_is_named() -> None:
    a, b = (
        [without_figures(run, "failed", "full disk") if run.turn == 2 else run for run in _sitting(seed)]
        for seed in (1, 2)
    )
    comparison = compare.compare_runs(a, b)
    assert not comparison.worse([COST])
    assert sum("1 of 3 turns not measured in B: failed: full disk" in line for line in compare.lines(comparison)) == 16


def test_a_figure_that_is_gone_is_worse_where_it_decides() -> None:
    void = [_with_failed_loads(run) if run.setup.broker == "kafka" else run for run in _sitting(2)]
    comparison = compare.compare_runs(_sitting(1), void)
    assert not comparison.worse([COST])
    assert comparison.worse([LATENCY["p99"]])
    assert sum(line.startswith("LOST, it is told in A and not in B: Kafka") for line in compare.lines(comparison)) == 4


def test_builds_are_compared_between_a_and_b_and_never_mixed_in_one() -> None:
    a, b = _sitting(1), [msgspec.structs.replace(run, commit="abcdef0") for run in _sitting(2)]
    assert _calls(compare.compare_runs(a, b)) == ["equal"] * 16
    with pytest.raises(NoDocuments, match=r"B holds a row twice, of build 0\.2\.0 and build 0\.2\.0 abcdef0"):
        compare.compare_runs(a, [*a, *b])


def test_a_busy_machine_and_different_ones_are_told_first() -> None:
    assert not any("WARNING" in line for line in compare.lines(compare.compare_runs(_sitting(1), _sitting(2))))
    loud = brokers(Maker(2, busy=LOUD)).made
    first, second, *_ = compare.lines(compare.compare_runs(loud, _sitting(1)))
    assert first.startswith("WARNING: A: The machine was busy")
    assert "WARNING" not in second
    larger = [msgspec.structs.replace(run, machine=msgspec.structs.replace(run.machine, cores=64)) for run in loud]
    told = compare.lines(compare.compare_runs(_sitting(1), larger))
    assert told[0].startswith("WARNING: B: The machine was busy")
    assert "different machines" in told[1]
    assert "64 cores" in told[1]


def _with_ledger(run: Run, loss: int) -> Run:
    return msgspec.structs.replace(run, ledger=Books(100, 100, 100 - loss, loss=loss, dup=0))


def _with_failed_loads(run: Run) -> Run:
    return msgspec.structs.replace(run, tails=[msgspec.structs.replace(each, failed=10**6) for each in run.tails])


def test_a_figure_that_no_row_has_is_told_as_missing() -> None:
    runs = brokers(Maker(1, tails=False)).made
    assert "no row has it in both" in compare.lines(compare.compare_runs(runs, runs))


def test_the_figure_decides_what_is_worse() -> None:
    a = _sitting(1)
    faster = [_with_rates_per_s(run, 0.8) for run in _sitting(2)]
    comparison = compare.compare_runs(a, faster)
    assert not comparison.worse([COST])
    assert comparison.worse([RPS])


@pytest.mark.parametrize(
    ("second", "arguments", "code"), [({}, [], 0), ({"dearer": 1.1}, [], 1), ({}, ["--figure", "p99"], 0)]
)
def test_the_exit_code_is_for_ci(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], second: dict[str, float], arguments: list[str], code: int
) -> None:
    a = brokers(Maker(1)).write(tmp_path / "a")
    b = brokers(Maker(2, **second)).write(tmp_path / "b")  # type: ignore[arg-type] # numbers only
    assert command.main(["compare", str(a), str(b), *arguments]) == code
    told = capsys.readouterr().out
    assert "all together" in told
    assert ("CPU per rate" in told) == (not arguments)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: None, "holds no documents"),
        (lambda folder: (folder / "x.json").write_text("{}"), "x.json is not the document of a run"),
        (lambda folder: (folder / "x.json").write_text('{"version": 99}'), "version 99"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], reason: str
) -> None:
    a = brokers(Maker(1)).write(tmp_path / "a")
    b = tmp_path / "b"
    b.mkdir()
    spoil(b)
    assert command.main(["compare", str(a), str(b)]) == 2
    assert reason in capsys.readouterr().err


def test_sittings_without_a_common_row_or_of_single_turns_are_no_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(Setup(broker="nats"), Workload()), (Setup(broker="kafka"), Workload())]
    one, other = (Maker(1).rows("x", "x", [what], 1).write(tmp_path / what[0].broker) for what in rows)
    assert command.main(["compare", str(one), str(other)]) == 2
    assert "no measured row in common" in capsys.readouterr().err
    assert command.main(["compare", str(one), str(one)]) == 2
    assert "nothing is known about noise" in capsys.readouterr().err


def _dearer(spent: dict[str, float], factor: float) -> dict[str, float]:
    return {role: us * (1 if role == "load" else factor) for role, us in spent.items()}


def _with_rates_per_s(run: Run, factor: float) -> Run:
    assert run.peak is not None
    return msgspec.structs.replace(
        run, peak=msgspec.structs.replace(run.peak, rates_per_s=run.peak.rates_per_s * factor)
    )
