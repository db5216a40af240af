"""Every broker, brought up as a user does: a rate goes all the way, and nothing is left behind."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Callable
from typing import get_args

import pytest

from stack.ports import HOST
from stack.topology import Broker
from tests.servers import needs
from tests.stack.conftest import Up, needs_broker, nothing_is_left_of, processes_of

BROKERS: tuple[Broker, ...] = get_args(Broker)
PARTS = {"nats": "nats", "nats+core": "nats", "kafka": "kafka", "rabbit": "rabbit", "redis": "streams"}
COUNTED_S = 10.0


def _arguments(broker: Broker) -> list[str]:
    return ["--broker", broker, *(["--durability", "relaxed"] if broker == "nats+core" else [])]


def _get(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own address
        answer: dict[str, int] = json.load(response)
        return answer


def _count_a_rate(url: str) -> None:
    request = urllib.request.Request(f"{url}/rate?rate=5", method="POST")  # noqa: S310 - our own address
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        assert response.status == 200
    deadline = time.monotonic() + COUNTED_S
    while _get(f"{url}/rates")["count"] != 1:
        assert time.monotonic() < deadline, "it was not counted"
        time.sleep(0.02)
    assert _get(f"{url}/opened") == {"opened": 0, "abandoned": 0}


@pytest.mark.parametrize("broker", BROKERS)
def test_a_rate_is_counted_and_all_stops(up: Callable[..., Up], broker: Broker):
    needs_broker(broker)
    running = up(*_arguments(broker))
    assert running.until("^ready (.*)$")[1] == f"http://{HOST}:{running.port}"
    assert processes_of(running.directory)
    assert list(running.parts()) == ["redis", PARTS[broker], "process-1", "api-1"]
    _count_a_rate(f"http://{HOST}:{running.port}")
    running.process.send_signal(signal.SIGINT)
    running.until("^stopped$")
    assert running.process.wait(10) == 0
    nothing_is_left_of(running.directory)


def test_topics_are_shared_out_among_processes(up: Callable[..., Up]):
    needs_broker("nats")
    running = up("--dispatch", "topics", "--processes", "2", TOPICS="2", TOPIC_CHOICE="round_robin", READ_TOPICS="1")
    running.until("^READ_TOPICS of the environment: passed over")
    running.until("^ready ")
    _count_a_rate(f"http://{HOST}:{running.port}")


def test_inline_has_neither_broker_nor_process(up: Callable[..., Up]):
    needs("redis-server")
    running = up("--dispatch", "inline", "--processes", "3")
    running.until("^DISPATCH=inline: .*no processes and no broker$")
    running.until("^ready ")
    assert list(running.parts()) == ["redis", "api-1"]
    _count_a_rate(f"http://{HOST}:{running.port}")
