"""Experiments: files and axes become rows, in an order that favours none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.lab.document import Setup, Workload
from bench.lab.experiment import FANRATE, BadExperiment, Row, load, named, rows_of
from bench.lab.order import visits
from bench.lab.sitting import file_name
from bench.peers import PEERS


@pytest.mark.parametrize("name", named())
def test_the_experiments_that_come_along_can_be_read(name: str) -> None:
    experiment = load(name)
    assert experiment.title
    assert len(set(experiment.rows)) == len(experiment.rows) > 1
    assert {row.setup.system for row in experiment.rows} <= {FANRATE, *PEERS}


def test_every_list_is_an_axis_and_the_offered_loads_are_none() -> None:
    rows = rows_of(
        "s", {"broker": ["nats", "kafka"], "replicas": [1, 3]}, {"connections": [1, 64], "offered": [0.5, 1]}
    )
    assert len(rows) == 8
    assert {row.workload.offered for row in rows} == {(0.5, 1.0)}
    assert {(row.setup.broker, row.setup.replicas, row.workload.connections) for row in rows} == {
        (broker, replicas, connections)
        for broker in ("nats", "kafka")
        for replicas in (1, 3)
        for connections in (1, 64)
    }


@pytest.mark.parametrize(
    ("setup", "workload", "named_field"),
    [
        ({"broker": ["nats", "zmq"]}, {}, "zmq"),
        ({"broker": "nats", "replicas": 0}, {}, "replicas"),
        ({"broker": "nats", "replica": 1}, {}, "replica"),
        ({"replicas": 1}, {}, "broker"),
        ({"broker": "nats", "settings": "MAX_IN_FLIGHT"}, {}, "MAX_IN_FLIGHT"),
        ({"broker": "nats", "system": "faster"}, {}, "faster"),
        ({"broker": "nats"}, {"offered": [0.5, 3]}, "offered"),
        ({"broker": "nats"}, {"seconds": 0}, "seconds"),
        ({"broker": "nats"}, {"connections": "many"}, "connections"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    setup: dict[str, object], workload: dict[str, object], named_field: str
) -> None:
    with pytest.raises(BadExperiment, match=named_field):
        rows_of("s", setup, workload)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("title = 1", "title"),
        ("title = 'x'\nseries = []\nextra = 1", "extra"),
        ("title = 'x'\n[[series]]\nname = 's'\nsetup.broker = 'mqtt'", "mqtt"),
        ("not toml", "bad.toml"),
        ("title = 'x'\nrepeat = 0\nseries = []", "repeat"),
        ("title = 'x'\nseries = []", "no rows"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused_by_name(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(BadExperiment, match=what):
        load(str(path))


def test_a_file_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(BadExperiment, match="brokers, peers, scale"):
        load("nothing-of-that-name")


def test_quick_takes_each_row_once_and_briefly() -> None:
    experiment = load("brokers")
    quick = experiment.quick()
    assert quick.repeat == 1
    assert len(quick.rows) == len(experiment.rows)
    assert max(row.workload.seconds for row in quick.rows) < min(row.workload.seconds for row in experiment.rows)


def _rows() -> list[Row]:
    return rows_of(
        "s", {"broker": ["nats", "kafka", "rabbit", "redis"], "replicas": [1, 2, 3]}, {"connections": [1, 16, 64]}
    )


def test_each_round_takes_every_row_once_and_a_setup_is_up_once_a_round() -> None:
    planned = visits(_rows(), 3, "seed")
    assert Counter((row, visit.turn) for visit in planned for row in visit.rows) == Counter(
        (row, turn) for row in _rows() for turn in (1, 2, 3)
    )
    assert [visit.turn for visit in planned] == sorted(visit.turn for visit in planned)
    assert len(planned) == 3 * 12


def test_the_order_is_random_and_the_seed_tells_it() -> None:
    first, again, other = (visits(_rows(), 3, seed) for seed in ("one", "one", "two"))
    assert first == again
    assert first != other
    rounds = [[visit.setup for visit in first if visit.turn == turn] for turn in (1, 2, 3)]
    assert rounds[0] != rounds[1] != rounds[2]


def test_file_names_are_of_one_row_and_turn() -> None:
    names = [file_name(row, turn) for row in _rows() for turn in (1, 2)]
    assert len(set(names)) == len(names)
    other = Row("s", Setup("nats"), Workload(subjects=7))
    assert file_name(other, 1) != file_name(Row("s", Setup("nats"), Workload()), 1)
    assert file_name(other, 1) == file_name(Row("s", Setup("nats"), Workload(subjects=7)), 1)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for name in names)
