"""What the report says: winners, ties, what is missing, what casts doubt."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import get_args

import msgspec
import pytest

from bench.lab import noise
from bench.lab.document import Books, Run, Setup, Workload
from bench.lab.figures import COST
from bench.lab.noise import Noise
from bench.lab.report import method, peers, words
from bench.lab.report.ranking import contests, rank, shared_noise, turns
from bench.lab.report.replicas import replicas
from bench.lab.report.worth import worth
from bench.lab.rows import Row, rows
from stack.topology import Broker
from tests.bench.lab import documents
from tests.bench.lab.documents import LOUD, Maker, brokers, plain, without_figures


def _rows(made: Sequence[Run]) -> list[Row]:
    return rows(made)


def _said(made: Sequence[Run]) -> dict[str, str]:
    return {answer.question: " ".join(answer.sentences) for answer in words.answers(rows(made))}


def _priced(costs: dict[Broker, float], turns: int = 3, spread: float = 0.02) -> list[Run]:
    """A sitting in which a rate costs so much CPU time on each broker."""
    maker = Maker(3, noise=spread, cpu_us=lambda setup, work: {"api": costs[setup.broker], "load": 5.0})
    return maker.rows("brokers", "brokers", [(Setup(broker=name), Workload()) for name in costs], turns).made


def test_the_winner_is_named_with_its_figure_the_others_distance_and_the_noise() -> None:
    said = _said(_priced({"nats": 50, "kafka": 62, "redis": 140}))["Least processor time per rate"]
    assert said.startswith("NATS JetStream costs the least processor time: ")
    assert "µs per rate" in said
    assert "Kafka 2" in said  # per cent: 62 / 50 within the noise of the turns
    assert "% more" in said
    assert "Redis Streams 2.8\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN} as much" in said
    assert "noise: up to" in said


def test_a_difference_within_noise_has_no_winner() -> None:
    said = _said(_priced({"nats": 50, "kafka": 50.5, "redis": 51}))["Least processor time per rate"]
    assert said.startswith("No difference beyond noise: ")
    assert "least" not in said


def test_those_that_cannot_be_told_from_the_best_share_its_place() -> None:
    said = _said(_priced({"nats": 50, "kafka": 50.5, "redis": 90}))["Least processor time per rate"]
    assert "NATS JetStream and Kafka are equal within noise" in said or "Kafka and NATS JetStream are equal" in said
    assert "Redis Streams" in said.partition("equal")[2]


def test_with_one_broker_there_is_nothing_to_choose_from() -> None:
    made = _priced({"kafka": 60})
    assert _said(made) == {}
    (line,) = words.introduction(rows(made))
    assert "nothing to choose from" in line


def test_with_one_broker_its_set_ups_are_ranked() -> None:
    costs = {1: 50.0, 2: 75.0, 3: 100.0}
    maker = Maker(3, cpu_us=lambda setup, work: {"api": costs[setup.replicas], "load": 5.0})
    setups = [Setup(broker="nats", replicas=n, balancer="none" if n == 1 else "nginx-tuned") for n in (1, 2, 3)]
    made = maker.rows("x", "x", [(setup, Workload()) for setup in setups]).made
    said = _said(made)["Least processor time per rate"]
    assert said.startswith("1 replica costs the least processor time: ")
    assert "3 replicas 99" in said
    introduction = " ".join(words.introduction(rows(made)))
    assert "of NATS JetStream, set-ups: " in introduction
    assert "replica," not in introduction.partition("set-ups: ")[2]


def test_latencies_stand_with_the_load_that_they_were_taken_at() -> None:
    made = _timed({"nats": (5, 9000), "kafka": (12, 6000)})
    said = _said(made)["Lowest latency of a POST"]
    assert said.startswith("NATS JetStream answers soonest")
    assert "at 9\N{NO-BREAK SPACE}000 requests/s" in said
    assert "Kafka 2.4\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN} as much at 6\N{NO-BREAK SPACE}000 requests/s" in said
    assert said.endswith("Each was offered 50\N{NO-BREAK SPACE}% of its own peak.")


def test_who_is_quicker_because_it_was_offered_less_is_not_called_better() -> None:
    made = _timed({"nats": (5, 6000), "kafka": (12, 9000)})
    said = _said(made)["Lowest latency of a POST"]
    assert "the quicker was offered less, so none is called better" in said
    assert "soonest" not in said
    assert "Of 4 questions" in words.introduction(rows(made))[0]


def _timed(brokers: dict[Broker, tuple[float, float]]) -> list[Run]:
    """Rows with a p99 in ms, give or take a hundredth, at so many requests/s."""
    made = []
    for run in _priced({"nats": 50, "kafka": 60}):
        p99, per_s = brokers[run.setup.broker]
        latency = {"p50": 1.0, "p99": p99 * (1 + 0.01 * run.turn)}
        tails = [msgspec.structs.replace(each, latency_ms=latency, scheduled_per_s=per_s) for each in run.tails]
        made.append(msgspec.structs.replace(run, tails=tails))
    return made


def test_brokers_count_only_where_all_were_measured() -> None:
    made = [_without_loads(run) if run.setup.broker == "kafka" else run for run in _priced({"nats": 50, "kafka": 90})]
    assert words.introduction(rows(made))[0].startswith("Of 3 questions")


def _without_loads(run: Run) -> Run:
    return msgspec.structs.replace(run, tails=[])


def test_set_ups_are_held_against_each_other_over_the_brokers_that_both_have() -> None:
    costs = {"redis": 30.0, "nats": 50.0, "kafka": 80.0}
    maker = Maker(3, cpu_us=lambda setup, work: {"api": costs[setup.broker], "load": 5.0})
    names: tuple[Broker, ...] = ("nats", "kafka", "redis")
    setups = [Setup(broker=name) for name in names] + [Setup(broker=name, dispatch="topics") for name in names[:2]]
    said = _said(maker.rows("x", "x", [(setup, Workload()) for setup in setups]).made)["Least processor time per rate"]
    assert said.startswith("Redis Streams costs the least")
    assert "Not so" not in said


def test_estimates_that_contradict_the_medians_are_equal() -> None:
    one, far = 0.02, 3 * 0.02
    low = _costing("nats", [0, 0, 0, 0, far, far, far])
    high = _costing("kafka", [each + 0.1 * one for each in (0, 0, 0, 0, -far, -far, -far)])
    shared = Noise(one**2, 1000)
    (contest,) = contests(rows([*low, *high]))
    ranking = rank(contest, COST, shared)
    assert ranking is not None
    assert noise.difference(*(turns(row, COST) for row in ranking.rows), shared).call == "lower"
    assert ranking.best == ["NATS JetStream", "Kafka"]


def _costing(broker: Broker, logs: Sequence[float]) -> list[Run]:
    maker = Maker(1)
    for turn, each in enumerate(logs, 1):
        run = maker.run("x", "x", Setup(broker=broker), Workload(), turn)
        assert run.peak is not None
        peak = msgspec.structs.replace(run.peak, cpu_us_per_rate={"api": 50 * math.exp(each)})
        maker.made.append(msgspec.structs.replace(run, peak=peak))
    return maker.made


def test_the_best_of_many_equal_ones_is_seldom_called_better() -> None:
    source, called = random.Random(5), 0
    brokers = get_args(Broker)
    for _ in range(300):
        logs = {name: [source.gauss(0, 0.02) for _ in range(3)] for name in brokers}
        (contest,) = contests(rows([run for name in brokers for run in _costing(name, logs[name])]))
        ranking = rank(contest, COST, Noise(0.02**2, 1000))
        called += ranking is not None and len(ranking.best) < len(brokers)
    assert called <= 6


def test_one_turn_each_names_no_winner() -> None:
    made = _priced({"nats": 50, "kafka": 90}, turns=1)
    said = _said(made)["Least processor time per rate"]
    assert "nothing is known about noise" in said
    assert "least" not in said.lower().partition("nothing")[0]
    assert not any("best" in sentence for sentence in words.introduction(rows(made)))


def test_void_rows_take_no_part_and_are_told() -> None:
    made = [
        without_figures(run, "void", "the generator fell behind") if run.setup.broker == "nats" else run
        for run in _priced({"nats": 10, "kafka": 62, "redis": 90})
    ]
    said = _said(made)["Least processor time per rate"]
    assert said.startswith("Kafka")
    assert "NATS" not in said
    assert any("3 were void" in text for text in method.method(made, rows(made)))
    assert method.warnings(made) == []


def test_nothing_measured_is_nothing_said() -> None:
    made = [without_figures(run, "skipped", "no server") for run in _priced({"nats": 50, "kafka": 62})]
    assert words.answers(rows(made)) == []
    assert words.introduction(rows(made)) == []
    assert worth(rows(made)) == []


def test_a_busy_machine_is_a_warning_and_a_quiet_one_is_none() -> None:
    assert method.warnings(brokers(Maker(1), turns=1).made) == []
    (warning,) = method.warnings(brokers(Maker(1, busy=LOUD), turns=1).made)
    assert "busy" in warning
    assert "up to 31\N{NO-BREAK SPACE}%" in warning
    assert "Do not trust" in warning


def test_an_open_ledger_and_a_failed_run_are_warnings() -> None:
    first, *others = _priced({"nats": 50, "kafka": 62})
    lost = msgspec.structs.replace(first, outcome="failed", ledger=Books(100, 100, 97, loss=3, dup=0))
    told = method.warnings([lost, *others])
    assert any("did not close, of fanrate on" in text for text in told)
    assert any("1 of 6 runs failed" in text for text in told)
    assert "LOSS 3 DUP 0" in method.totals([lost])


def test_brokers_of_another_durability_are_not_held_against_each_other() -> None:
    maker = Maker(1)
    setups = [Setup(broker="nats"), Setup(broker="kafka"), Setup(broker="nats+core", durability="relaxed")]
    found = rows(maker.rows("brokers", "brokers", [(setup, Workload()) for setup in setups]).made)
    assert [[row.setup.broker for row in contest.rows] for contest in contests(found)] == [
        ["nats", "kafka"],
        ["nats+core"],
    ]
    assert any("may be lost" in line for line in worth(found))


def test_what_a_200_is_worth_is_said_to_differ_where_it_does() -> None:
    every = worth(rows(brokers(Maker(1), turns=1).made))
    assert len(every) == 5
    assert "RabbitMQ" in every[-1]
    alone = worth(rows(brokers(Maker(1), turns=1, names=["nats", "kafka"]).made))
    assert not any("not worth the same" in line for line in alone)


def test_set_ups_that_come_out_otherwise_are_named() -> None:
    def turned(setup: Setup, work: Workload) -> dict[str, float]:
        cheap = "kafka" if setup.dispatch == "topics" else "nats"
        return {role: us * (1 if setup.broker == cheap else 2) for role, us in plain(setup, work).items()}

    made = brokers(Maker(1, cpu_us=turned), names=["nats", "kafka"]).made
    said = _said(made)["Least processor time per rate"]
    assert said.startswith("NATS JetStream")
    assert "Not so with topics, 1 replica: Kafka" in said


def test_every_ranking_agrees_with_its_medians() -> None:
    found = rows(brokers(Maker(5, noise=0.1)).made)
    shared = shared_noise(found, COST)
    for contest in contests(found):
        ranking = rank(contest, COST, shared)
        assert ranking is not None
        middles = [spread.median for row in ranking.rows if (spread := row.spread(COST))]
        assert middles == sorted(middles)
        assert all(each.change > 0 for each in ranking.against if each.call != "equal")


def test_replicas_are_told_as_a_factor_or_as_no_difference() -> None:
    told = replicas(rows(brokers(Maker(1), names=["nats"]).made))
    assert any("a rate costs" in line and "NATS JetStream 1.3" in line for line in told)
    flat = Maker(1, cpu_us=lambda setup, work: {"api": 50.0})
    assert all("the same, within noise" in line for line in replicas(rows(brokers(flat, names=["nats"]).made)))
    assert replicas(rows(_priced({"nats": 50}))) == []
    assert replicas(rows(brokers(Maker(1), turns=1).made)) == []


def _of_replicas(*setups: Setup, work: Workload | None = None) -> list[str]:
    """Of set-ups whose rates cost as many tens as they have replicas, twice that behind a balancer or on topics, and
    half with two processes."""

    def cost(setup: Setup, work: Workload) -> dict[str, float]:
        dear = 2 if setup.balancer != "none" or setup.dispatch == "topics" else 0.5 if setup.processes > 1 else 1
        return {"api": 10.0 * setup.replicas * dear}

    made = Maker(1, noise=0.002, cpu_us=cost).rows("x", "x", [(setup, work or Workload()) for setup in setups])
    return [line for line in replicas(rows(made.made)) if "costs" in line]


def test_replicas_are_compared_with_the_same_set_up_alone() -> None:
    assert _of_replicas(Setup(broker="nats"), Setup(broker="nats", replicas=3, processes=2)) == []
    (line,) = _of_replicas(
        Setup(broker="nats"), Setup(broker="nats", replicas=3), Setup(broker="nats", replicas=3, dispatch="topics")
    )
    assert "NATS JetStream 3.0" in line
    assert _of_replicas(*(Setup(broker="nats", replicas=n, dispatch="topics") for n in (1, 3))) == []
    (line,) = _of_replicas(*(Setup(broker="nats", replicas=n, balancer="nginx-tuned") for n in (1, 3)))
    assert "NATS JetStream 3.0" in line


def test_a_replica_without_a_balancer_is_the_yardstick_where_it_is_the_only_one_and_that_is_said() -> None:
    (line,) = _of_replicas(Setup(broker="nats"), Setup(broker="nats", replicas=3, balancer="nginx-tuned"))
    assert line.startswith("With 3 replicas behind nginx-tuned a rate costs")
    assert "with 1 without a balancer: NATS JetStream 6.0" in line


def test_several_sentences_of_one_broker_name_what_they_differ_in() -> None:
    (line,) = _of_replicas(
        *(Setup(broker="nats", replicas=n, settings=settings) for n in (1, 3) for settings in ("", "A=1"))
    )
    assert "NATS JetStream (default settings) 3" in line
    assert "NATS JetStream (A=1) 3" in line


def test_peers_are_held_against_the_row_that_is_set_up_the_same_or_the_only_one() -> None:
    fanrate = [Setup(broker="nats", settings=each, dispatch="topics") for each in ("", "A=1")]
    go = Setup(broker="nats", system="go")
    assert peers.against_fanrate(_peers([go, *fanrate])) == {}
    assert len(peers.against_fanrate(_peers([go, fanrate[1]]))) == 1
    found = _peers([go, *fanrate, Setup(broker="nats")])
    assert len(peers.against_fanrate(found)) == 1
    other = Setup(broker="nats", system="go", balancer="nginx-tuned")
    told = " ".join(peers.sentences(_peers([go, other, Setup(broker="nats")])))
    assert "NATS JetStream (balancer none) 2" in told
    assert "and NATS JetStream (balancer nginx-tuned) " in told


def test_peers_of_one_turn_each_say_that_nothing_is_known_about_noise() -> None:
    setups = [Setup(broker="nats", system=system) for system in ("fanrate", "go")]
    assert "nothing is known about noise" in " ".join(peers.sentences(_peers(setups, turns=1)))
    assert "nothing is known about noise" not in " ".join(peers.sentences(_peers(setups)))


def _peers(setups: Sequence[Setup], turns: int = 3) -> list[Row]:
    maker = Maker(1, cpu_us=_by_system)
    return rows(maker.rows("peers", "peers", [(setup, Workload()) for setup in setups], turns).made)


def test_peers_are_told_by_ratio_and_by_their_better_setting() -> None:
    maker = Maker(1, cpu_us=_by_system)
    systems = ("fanrate", "go", "mq-bridge-128x1", "mq-bridge-1x128")
    found = rows(
        maker.rows("peers", "peers", [(Setup(broker="nats", system=each), Workload()) for each in systems]).made
    )
    assert [row.setup.system for row in peers.better_settings(found)] == ["fanrate", "go", "mq-bridge-1x128"]
    ratios = {row.setup.system: peers.against_fanrate(found).get(row.key) for row in found}
    assert ratios["fanrate"] is None
    assert ratios["go"] == pytest.approx(2, rel=0.1)
    told = " ".join(peers.sentences(found))
    assert "128x1" not in told
    assert "NATS JetStream as many, within noise" in told


def test_rows_without_a_counterpart_have_no_ratio() -> None:
    whats = [(Setup(broker="nats", system="go"), Workload()), (Setup(broker="kafka"), Workload())]
    found = rows(Maker(1, cpu_us=_by_system).rows("peers", "peers", whats).made)
    assert peers.against_fanrate(found) == {}
    assert peers.sentences(found) == []


def _by_system(setup: Setup, work: Workload) -> dict[str, float]:
    return {"api": {"fanrate": 50.0, "go": 100.0, "mq-bridge-128x1": 70.0, "mq-bridge-1x128": 50.0}[setup.system]}


def test_the_days_and_the_machine_are_told_from_the_runs() -> None:
    told = dict(method.facts(brokers(Maker(1), turns=1).made))
    assert told["measured"] == "2026-03-04 UTC"
    assert "2 cores" in told["machine"]
    assert documents.MACHINE.versions["nats-server"] in told["versions"]
