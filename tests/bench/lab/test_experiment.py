"""Experiments: files and axes become rows, in an order that favours none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.lab.document import FANRATE, Setup, Workload
from bench.lab.experiment import BadExperiment, Row, load, named, rows_of
from bench.lab.order import Turn, turns
from bench.lab.sitting import check, file_name
from bench.peers import PEERS
from core.errors import SettingsError


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
        ({"broker": "nats", "settings": "MAX_IN_FLIGHTS=1"}, {}, "MAX_IN_FLIGHTS"),
        ({"broker": "nats", "settings": "MAX_IN_FLIGHT"}, {}, "NAME=VALUE"),
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


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(b"title = '\xff'")
    with pytest.raises(BadExperiment, match=r"bad\.toml"):
        load(str(path))


def test_a_file_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(BadExperiment, match="brokers, hot, peers, scale"):
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


def test_each_round_takes_every_row_once() -> None:
    planned = turns(_rows(), 3, "seed")
    assert Counter(planned) == Counter(Turn(row, number) for row in _rows() for number in (1, 2, 3))
    assert [turn.number for turn in planned] == sorted(turn.number for turn in planned)


def test_the_order_is_random_and_the_seed_tells_it() -> None:
    first, again, other = (turns(_rows(), 3, seed) for seed in ("one", "one", "two"))
    assert first == again
    assert first != other
    rounds = [[turn.row for turn in first if turn.number == number] for number in (1, 2, 3)]
    assert rounds[0] != rounds[1] != rounds[2]
    assert rounds[0] != _rows()


@pytest.mark.parametrize(
    ("setup", "workload", "why"),
    [
        (Setup("nats", replicas=3), Workload(connections=2), "2 connections for 3 replicas"),
        (Setup("nats", system="go", dispatch="topics"), Workload(), "dispatch"),
        (Setup("nats", system="go", processes=2), Workload(), "processes"),
        (Setup("nats", system="go", settings="TOPICS=3"), Workload(), "settings"),
        (Setup("nats", system="go"), Workload(rates_per_request=2), "one rate per request"),
    ],
)
def test_a_row_that_would_say_what_it_is_not_is_refused(setup: Setup, workload: Workload, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        check(Row("s", setup, workload))


def test_rows_that_are_what_they_say_are_taken() -> None:
    for row in (row for name in named() for row in load(name).rows):
        check(row)
    check(Row("s", Setup("nats", replicas=3, balancer="nginx-tuned"), Workload(connections=1)))


def test_equal_rows_are_one() -> None:
    assert len(rows_of("s", {"broker": ["nats", "nats"]}, {"connections": [1, 1]})) == 1


def test_file_names_are_of_one_row_and_turn() -> None:
    names = [file_name(row, turn) for row in _rows() for turn in (1, 2)]
    assert len(set(names)) == len(names)
    other = Row("s", Setup("nats"), Workload(subjects=7))
    assert file_name(other, 1) != file_name(Row("s", Setup("nats"), Workload()), 1)
    assert file_name(other, 1) == file_name(Row("s", Setup("nats"), Workload(subjects=7)), 1)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for name in names)
    assert len(file_name(Row("s" * 300, Setup("nats"), Workload()), 1)) < 200
