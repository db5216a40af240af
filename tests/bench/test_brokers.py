"""The comparison of brokers: its order, its bars, its table and its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import commands as command
from bench.bars import Options
from bench.brokers import memory, table
from bench.brokers.contestants import CONTESTANTS, KAFKA, NATS, RABBIT_CLASSIC, RABBIT_QUORUM, REDIS, Contestant
from bench.brokers.hot import p99_ratio
from bench.brokers.measures import Asked, Measure, Row, Taken, Visit
from bench.brokers.plan import Stop, order, stops
from bench.brokers.results import Results
from bench.brokers.run import ALONE, MEASURES, QUICK, _possible
from bench.ledger import compare_totals
from bench.load import OpenLoopReport
from stack import programs
from stack.programs import MISSING_PROGRAM
from tests.servers import needs

USUAL = [measure for name, measure in MEASURES.items() if name not in ALONE]
VERSIONS = {"nats-server": "2.15.2", "nats-py": "2.16.0"}
ASKED = Asked("post", "CPU per POST / nothing", "", True, {NATS: 1.10, KAFKA: 1.20})


async def _nothing(_: Visit) -> list[Taken]:
    return []


MEASURE = Measure("post", [ASKED], _nothing, lambda options: options.seconds)


def _row(*values: float | None, cpu_us: Mapping[str, float] | None = None) -> Row:
    return Row(ASKED, NATS, [Taken("post", value, cpu_us or {}) for value in values])


def test_each_round_has_every_contestant_once_in_another_order() -> None:
    rounds = [order(CONTESTANTS, turn) for turn in range(1, 11)]
    assert all(sorted(each, key=str) == sorted(CONTESTANTS, key=str) for each in rounds)
    assert len({tuple(each) for each in rounds}) == 10
    for place in range(len(CONTESTANTS)):
        assert {each[place] for each in rounds} == set(CONTESTANTS)


def test_every_bar_is_planned_in_every_round_and_end_states_once_at_the_end() -> None:
    planned = stops(list(MEASURES.values()), CONTESTANTS, 3)
    for measure in MEASURES.values():
        for contestant in measure.contestants:
            turns = [stop.turn for stop in planned if stop.contestant is contestant and measure in stop.measures]
            assert turns == ([1] if measure.once else [1, 2, 3])
    kinds = [all(measure.once for measure in stop.measures) for stop in planned]
    assert kinds == sorted(kinds)


def test_measures_of_one_topology_share_a_stop_and_others_have_their_own() -> None:
    planned = stops(USUAL, [NATS, RABBIT_CLASSIC], 1)
    told = [(stop.contestant, [measure.name for measure in stop.measures]) for stop in planned]
    assert told == [
        (NATS, ["post", "p99", "group", "fold"]),
        (NATS, ["balancer"]),
        (RABBIT_CLASSIC, ["group"]),
        (NATS, ["tls", "memory"]),
    ]
    assert (planned[1].topology.replicas, planned[1].topology.balancer) == (2, "nginx-tuned")
    assert (planned[2].topology.broker, planned[2].topology.durability) == ("rabbit", "relaxed")


@pytest.mark.parametrize(("options", "most_min"), [(Options(), 45), (QUICK, 8)])
def test_the_whole_is_planned_to_end_in_time(options: Options, most_min: float) -> None:
    planned = stops(USUAL, CONTESTANTS, options.repeat)
    assert sum(stop.lasts_s(options) for stop in planned) < most_min * 60


@pytest.mark.parametrize(
    ("key", "limits"),
    [
        ("post", {NATS: 1.05, RABBIT_QUORUM: 1.12, KAFKA: 1.20, REDIS: 1.15}),
        ("hot", {NATS: 0.55, RABBIT_QUORUM: 0.6, KAFKA: 0.6, REDIS: 0.6}),
        ("hot p99", dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), 1.0)),
        ("heads", {NATS: 0.85}),
        ("handed over", {NATS: 1.05}),
        ("idle", {NATS: 12.0}),
        ("group", {NATS: 1.8, RABBIT_QUORUM: 3.5, RABBIT_CLASSIC: 3.4, KAFKA: 1.25}),
        ("fold", dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), 150_000)),
        ("p99", dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), 25)),
        ("tls", dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), 1.10)),
        ("balancer", {NATS: 3}),
        ("most-api", dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), 200)),
        ("most-process", dict.fromkeys((NATS, RABBIT_QUORUM, KAFKA, REDIS), 200)),
    ],
)
def test_the_bars(key: str, limits: dict[Contestant, float]) -> None:
    found = [asked for measure in MEASURES.values() for asked in measure.asked if asked.key == key]
    assert [asked.limits for asked in found] == [limits]


def test_the_median_of_the_turns_counts_and_void_ones_do_not() -> None:
    assert _row(1.3, 1.0, None, 1.1).bar.value == 1.1
    assert _row(1.3, 1.0, None, 1.1).bar.met
    assert not _row(1.3, 1.2, 1.0).bar.met
    assert not _row(None).bar.met


def test_a_row_tells_what_it_was_measured_with_and_what_each_role_cost() -> None:
    cells = table.cells(_row(1.3, 1.054, None, cpu_us={"api": 30.126, "load": 9.0, "redis": 0.0}), VERSIONS)
    assert cells == (
        *("nats", "confirmed", "nats-server 2.15.2, nats-py 2.16.0", "<= 1.1", "1.177", "1.3 1.054 void", "MISSED"),
        *("30.13", "-", "-", "-", "-", "9.00"),
    )


def test_a_table_has_a_block_for_each_kind_of_figure() -> None:
    memory_rows = [Row(asked, NATS, [Taken(asked.key, 55.5)]) for asked in memory.MEASURE.asked]
    lines = table.lines([_row(1.0), *memory_rows], VERSIONS)
    titles = [line for number, line in enumerate(lines) if number and not lines[number - 1]]
    assert titles == [ASKED.text, *(f"{asked.text}, MB" for asked in memory.MEASURE.asked)]
    assert len({len(line) for line in lines if line.startswith("nats")}) == 1


def test_growth_is_from_the_second_tenth_to_the_last() -> None:
    warming = [10] * 10 + [50] * 10
    assert memory.growth_bytes([*warming, *[50] * 79, 900]) == 0
    assert memory.growth_bytes([*warming, *[50] * 70, *[90] * 10]) == 40
    assert memory.growth_bytes([70]) == 0


@pytest.mark.parametrize(
    ("value", "counted", "trouble", "fine"),
    [(1.0, 10, "", True), (1.5, 10, "", False), (1.0, 9, "", False), (1.0, 12, "", False), (1.0, 10, "it fell", False)],
)
def test_a_run_is_fine_only_with_all_bars_met_all_ledgers_closed_and_no_stop_failed(
    value: float, counted: int, trouble: str, fine: bool
) -> None:
    results = Results([MEASURE], troubles=[trouble] if trouble else [])
    results.taken[NATS, "post"].append(Taken("post", value))
    results.ledgers.append((Stop(NATS, [MEASURE], 1), compare_totals(sent=11, confirmed=10, counted=counted)))
    assert results.fine is fine
    report = results.report({}, VERSIONS)
    loss, dup = max(0, 10 - counted), max(0, counted - 11)
    assert report[-1] == f"1 runs, 10 rates confirmed: LOSS {loss} DUP {dup}"
    assert any(trouble in line for line in report)


def test_what_was_never_taken_has_no_row() -> None:
    results = Results([MEASURE])
    results.taken[KAFKA, "post"].append(Taken("post", 1.0))
    assert [row.contestant for row in results.rows] == [KAFKA]


def test_a_broker_without_its_server_is_skipped_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(["redis-server", "nats-server"], tmp_path, monkeypatch)
    results = Results(list(MEASURES.values()))
    possible = _possible(stops(results.measures, CONTESTANTS, 1), results)
    assert {stop.contestant for stop in possible} == {NATS, REDIS}
    assert "nginx is not installed" in results.skipped[NATS]  # the balancer's stop
    assert results.skipped.keys() == {NATS, KAFKA, RABBIT_QUORUM, RABBIT_CLASSIC}


@pytest.mark.parametrize("installed", [[], ["wrk"]])
def test_a_run_that_no_broker_is_there_for_ends_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _install(installed, tmp_path, monkeypatch)
    assert command.main(["brokers"]) == MISSING_PROGRAM
    assert "is not installed" in capsys.readouterr().err


def _install(names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make just these programs be found."""
    for name in names:
        (folder / name).touch(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(programs, "SYSTEM_FOLDERS", "")


def _quick_run(directory: Path, measures: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """The printed lines, and the rows of the file, of a short run on NATS."""
    only = [word for name in measures for word in ("--only", name)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "brokers", *only, "--brokers", "nats", "--quick", "--seconds", "1"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode in {command.FINE, command.FOUND}, done.stderr
    report = done.stdout.splitlines()
    document = json.loads((directory / report[-1].removeprefix("written to ")).read_bytes())
    return report, document["results"]["rows"]


@pytest.mark.timeout(300)
def test_a_run_of_one_measure(tmp_path: Path) -> None:
    """Whether the bar is met on a busy machine is not asked for here."""
    needs("redis-server", "nats-server", "wrk")
    report, rows = _quick_run(tmp_path, ["group"])
    assert [line for line in report if line.startswith("nats ")]
    assert report[-2].startswith("1 runs, ")
    assert report[-2].endswith(" LOSS 0 DUP 0")
    [row] = rows
    assert (row["contestant"], row["durability"], row["at_least"]) == ("nats", "confirmed", 1.8)
    assert row["turns"][0]["sample"].keys() == {"publish per request", "group commit"}
    assert {"api", "broker", "load"} <= {role for role, spent_us in row["cpu_us_per_rate"].items() if spent_us}


@pytest.mark.timeout(300)
def test_a_run_of_the_hot_route(tmp_path: Path) -> None:
    """Whether the bars are met on a busy machine is not asked for here."""
    needs("redis-server", "nats-server", "wrk")
    _, rows = _quick_run(tmp_path, sorted(ALONE))
    assert len(rows) == 5
    hot, _, heads, handed_over, idle = (row["turns"][0] for row in rows)
    assert hot["sample"].keys() == {"aiohttp", "hot"}
    assert [len(loads) for loads in hot["sample"].values()] == [2, 2]
    assert 0 < hot["value"] < 1
    assert 0 < heads["value"] < 2
    assert {name: len(each) for name, each in heads["sample"]["cpu_us_per_rate"].items()} == {"aiohttp": 2, "hot": 2}
    reads = handed_over["sample"]["cpu_us_per_read"]
    assert {name: len(each) for name, each in reads.items()} == {"aiohttp": 4, "handed over": 4}
    assert 0 < idle["value"] < 100


def _tail(p99_s: float, *, late_s: float = 0.0, unsent: int = 0) -> OpenLoopReport:
    report = OpenLoopReport(unsent=unsent, scheduled=100, scheduled_s=1.0)
    for _ in range(100):
        report.latency.record(p99_s)
        report.lateness.record(late_s)
    return report


@pytest.mark.parametrize(
    ("hot", "plain", "ratio"),
    [
        (_tail(0.008), _tail(0.010), 0.8),
        (_tail(0.012), _tail(0.010), 1.2),
        (_tail(0.008, late_s=0.004), _tail(0.010), 0.8),
        (_tail(0.012, late_s=0.004), _tail(0.010), None),
        (_tail(0.008), _tail(0.010, late_s=0.004), None),
        (_tail(0.008, unsent=1), _tail(0.010), None),
        (_tail(0.008), _tail(0.010, unsent=1), None),
    ],
    ids=[
        "faster",
        "slower",
        "faster though late",
        "slower, perhaps for late",
        "late",
        "incomplete",
        "plain incomplete",
    ],
)
def test_a_late_generator_may_speak_against_the_hot_route_and_never_for_it(
    hot: OpenLoopReport, plain: OpenLoopReport, ratio: float | None
) -> None:
    assert p99_ratio(hot, plain) == (ratio if ratio is None else pytest.approx(ratio, rel=0.01))


@pytest.mark.parametrize("arguments", [["--brokers", "nats,none"], ["--brokers", ""], ["--only", "x"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["brokers", *arguments])
    assert stopped.value.code == command.WRONG_USAGE
    assert arguments[0] in capsys.readouterr().err
