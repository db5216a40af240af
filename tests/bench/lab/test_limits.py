"""What Fanrate is held to is read from the rows that it is said of."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import commands
from bench.bars import Bar
from bench.lab.document import Setup, Workload
from bench.lab.limits import bars
from tests.bench.lab.documents import Maker, brokers, peers, scale

STILL = Workload(offered=(), consumers="frozen")


def found(maker: Maker) -> dict[str, Bar]:
    return {bar.name: bar for bar in bars(maker.made)}


def test_peers_by_their_better_setting_and_processor_time() -> None:
    made = found(peers(Maker(1, noise=0.0)))
    faststream = made["rates/s, of FastAPI + FastStream; NATS JetStream, 64 (peers)"]
    assert faststream.limit == 4
    assert faststream.value == pytest.approx((230 + 30 + 9) / (27 + 6 + 6 + 11 + 7), rel=0.03)
    assert made["rates/s, of Go; NATS JetStream, 64 (peers)"].limit == 2
    assert "rates/s, of Go; Kafka, 64 (peers)" not in made
    assert made["rates/s, of mq-bridge; Kafka, 64 (peers)"].limit == 1.4
    cost = made["CPU of API and broker, of mq-bridge's; NATS JetStream, 64 (peers)"]
    assert cost.at_most
    assert cost.value == pytest.approx((27 + 6) / (21 + 30), rel=0.03)


def test_two_replicas_against_plain_ones() -> None:
    tuned = Setup(broker="nats", replicas=2, balancer="nginx-tuned")
    plain_ones = Setup(broker="nats", replicas=2, balancer="nginx-plain", system="aiohttp-publish")
    made = Maker(1, noise=0.0).rows("peers", "balanced", [(tuned, STILL), (plain_ones, STILL)])
    (bar,) = bars(made.made)
    assert (bar.limit, bar.at_most) == (5, False)


def test_replicas_and_freshness() -> None:
    made = found(brokers(Maker(1, noise=0.0)))
    assert [name for name in made if name.startswith("POST to visible")] == [
        f"POST to visible, p99; {broker}, 64 (brokers)"
        for broker in ("NATS JetStream", "Kafka", "RabbitMQ", "Redis Streams")
    ]
    assert all(bar.met for name, bar in made.items() if name.startswith("POST to visible"))
    grown = found(scale(Maker(1, noise=0.0)))[
        "CPU per rate, 3 replicas / 1; NATS JetStream, nginx-tuned, 64 (replicas)"
    ]
    assert grown.value == pytest.approx((27 * 1.3 + 6 + 6 + 11 + 9) / (27 + 6 + 6 + 11 + 9), rel=0.03)


def test_nothing_is_visible_where_consumers_stand_still() -> None:
    still = Workload(offered=(0.5,), consumers="frozen")
    made = Maker(1, noise=0.0).rows("peers", "peers", [(Setup(broker="nats"), still)])
    assert bars(made.made) == []


def test_the_command_tells_each_and_whether_all_are_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = brokers(Maker(1)).write(tmp_path / "fine")
    assert commands.main(["bars", str(fine)]) == 0
    missed = peers(Maker(1)).write(tmp_path / "missed")
    assert commands.main(["bars", str(fine), str(missed)]) == 1
    assert "MISSED" in capsys.readouterr().out
    nothing = Maker(1).rows("x", "x", [(Setup(broker="nats", replicas=2), STILL)]).write(tmp_path / "nothing")
    assert commands.main(["bars", str(nothing)]) == 2
    assert commands.main(["bars", str(tmp_path / "absent")]) == 2
