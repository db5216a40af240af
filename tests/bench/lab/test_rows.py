"""Turns of one row are put together; what was not measured is told."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from bench.lab.axes import label, varying
from bench.lab.document import BadDocument, Setup, Workload
from bench.lab.figures import COST, FIGURES, LATENCY, RPS, told_share
from bench.lab.report.ranking import contests
from bench.lab.rows import NoDocuments, Row, read, rows
from tests.bench.lab.documents import Maker, brokers, without_figures


def _row(maker: Maker, work: Workload | None = None, turns: int = 3) -> Row:
    maker.rows("brokers", "brokers", [(Setup(broker="nats"), work or Workload())], turns)
    (row,) = rows(maker.made)
    return row


def test_turns_of_one_row_are_together_and_told_by_median_and_range() -> None:
    row = _row(Maker())
    costs = sorted(
        sum(us for role, us in run.peak.cpu_us_per_rate.items() if role != "load") for run in row.runs if run.peak
    )
    spread = row.spread(COST)
    assert spread is not None
    assert (spread.low, spread.median, spread.high) == pytest.approx(costs)


def test_roles_come_in_the_order_of_a_rates_way_and_the_generator_is_told_apart() -> None:
    row = _row(Maker())
    spent = row.cpu_us()
    assert list(spent) == ["api", "broker", "process", "redis", "load"]
    cost = row.spread(COST)
    assert cost is not None
    assert cost.median < sum(each.median for each in spent.values())


def test_turns_of_other_machines_and_builds_are_rows_of_their_own() -> None:
    run = _row(Maker()).runs[0]
    larger = msgspec.structs.replace(run, machine=msgspec.structs.replace(run.machine, cores=64))
    newer = msgspec.structs.replace(run, commit="abcdef0")
    busier = msgspec.structs.replace(run, machine=msgspec.structs.replace(run.machine, load_average=1.5))
    found = rows([run, larger, newer, busier])
    assert [len(row.runs) for row in found] == [2, 1, 1]
    assert [axis.name for axis in varying(found)] == ["machine", "build"]
    assert "64 cores" in label(found[2], varying(found))
    assert "build 0.2.0 abcdef0" in label(found[1], varying(found))
    assert all(len(contest.rows) == 1 for contest in contests(found))


def test_void_failed_and_skipped_turns_count_for_nothing_and_are_told() -> None:
    maker = Maker()
    maker.rows("brokers", "brokers", [(Setup(broker="nats"), Workload())], 4)
    first, second, third, fourth = maker.made
    others = [
        without_figures(second, "void", "the generator fell behind"),
        without_figures(third, "void", "the generator fell behind"),
        without_figures(fourth, "failed", ""),
    ]
    (row,) = rows([first, *others])
    assert row.measured == [first]
    assert row.reasons == {("void", "the generator fell behind"): 2, ("failed", "no reason was told"): 1}


def test_a_load_in_which_the_generator_fell_behind_gives_no_latency() -> None:
    row = _row(Maker(), Workload(offered=(0.5, 0.9)), turns=1)
    run = row.runs[0]
    half, most = run.tails
    (late,) = rows([msgspec.structs.replace(run, tails=[msgspec.structs.replace(half, fell_behind=True), most])])
    assert row.spread(LATENCY["p99"]) is not None
    assert late.spread(LATENCY["p99"]) is None
    assert (row.offered(), late.offered()) == ([0.5, 0.9], [0.9])


def test_latency_is_told_at_the_load_nearest_to_half() -> None:
    assert told_share(Workload(offered=(0.1, 0.4, 0.6, 1.2))) == 0.4
    assert told_share(Workload(offered=())) is None
    row = _row(Maker(), Workload(offered=(0.9, 0.5)))
    spread = row.spread(LATENCY["p50"])
    assert spread is not None
    assert spread.values == tuple(run.tails[1].latency_ms["p50"] for run in row.runs)


def test_a_run_without_figures_has_none() -> None:
    (row,) = rows([without_figures(_row(Maker()).runs[0], "measured", "")])
    assert [figure.name for figure in FIGURES.values() if row.spread(figure)] == []
    assert (row.cpu_us(), row.memory_bytes(), row.offered()) == ({}, {}, [])


def test_the_order_of_rows_does_not_depend_on_when_they_ran() -> None:
    made = brokers(Maker()).made
    told = [row.key for row in rows(made)]
    assert told == [row.key for row in rows(random.Random(3).sample(made, len(made)))]
    assert [setup.broker for _, setup, *_ in told[::4]] == ["nats", "kafka", "rabbit", "redis"]
    assert [setup.replicas for _, setup, *_ in told[:4]] == [1, 3, 1, 3]


def test_folders_and_files_are_read_once_each(tmp_path: Path) -> None:
    maker = Maker()
    _row(maker)
    folder = maker.write(tmp_path / "deep" / "er")
    assert read([tmp_path, folder, next(folder.iterdir())]) == maker.made


def test_what_a_killed_run_left_is_passed_over(tmp_path: Path) -> None:
    maker = Maker()
    _row(maker)
    maker.write(tmp_path / "out")
    left = tmp_path / "out" / "scene-x1" / "data"
    left.mkdir(parents=True)
    (left / "definitions.json").write_text("{}")
    assert read([tmp_path]) == maker.made


def test_what_is_no_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoDocuments, match="holds no documents"):
        read([tmp_path])
    path = tmp_path / "other.json"
    path.write_text('{"run": "spine"}')
    with pytest.raises(BadDocument, match=r"other\.json"):
        read([tmp_path])


def test_rates_per_second_are_those_of_the_peak() -> None:
    row = _row(Maker())
    spread = row.spread(RPS)
    assert spread is not None
    assert spread.values == tuple(run.peak.rates_per_s for run in row.runs if run.peak)
