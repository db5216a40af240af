"""Dead letters that stay: they hold up none behind them, at whichever broker and however many they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from brokers.base import Broker
from brokers.conformance.harness import Harness
from brokers.memory import MemoryBroker
from core.batches import Batch, encode
from core.letters import GROUP, Reason, bury, dead_topic
from process.redrive import Redriven, letters, redrive
from tests.conformance.kinds import KAFKA

LETTERS = dead_topic("rates")


@pytest.fixture
async def broker(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MemoryBroker]:
    monkeypatch.setattr("process.redrive.QUIET_S", 0.05)
    made = MemoryBroker()
    await made.ensure("rates", ["counters"])
    await made.ensure(LETTERS, [GROUP])
    yield made
    await made.close()


def letter(reason: Reason, *, room_bytes: int = 2**20) -> bytes:
    body = encode(Batch(1, 0, uuid4().hex, 0, 1, time.time(), [("film", 5)]))
    return bury(body, "rates", reason, "for the test", max_message_bytes=room_bytes)


async def write(broker: Broker, *encoded: bytes) -> None:
    for each in encoded:
        await broker.publish(LETTERS, each, 5)


async def test_what_stays_is_counted_once_and_stays_whole(broker: MemoryBroker) -> None:
    staying = [letter("expired"), letter("refused", room_bytes=300), b"not a letter"]
    assert len(staying[1]) <= 300
    for _ in range(3):
        await write(broker, *(staying if not broker.unread(LETTERS, GROUP) else []), letter("refused"))
        done = await redrive(broker, "rates", expired=False)
        assert (done.sent, done.expired, done.cut, done.back, done.unreadable) == (1, 1, 1, 0, 1)
        assert broker.unread(LETTERS, GROUP) == 3
    assert broker.unread("rates", "counters") == 3
    kept = [each async for each in letters(broker, "rates")]
    assert {each.reason for each in kept} == {"expired", "refused", "malformed"}


async def test_more_of_them_than_are_read_at_one_time(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("process.redrive.MOST_LETTERS", 10)
    await write(broker, *[letter("expired") for _ in range(15)], *[letter("refused") for _ in range(3)])
    first, second = [await redrive(broker, "rates", expired=False) for _ in range(2)]
    assert (first.sent, first.expired, first.read) == (0, 10, 10)
    assert (second.sent, second.read) == (3, 10)
    assert broker.unread(LETTERS, GROUP) == 15


async def test_no_room_to_write_them_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("process.redrive.QUIET_S", 0.05)
    staying, going = letter("expired"), letter("refused")
    broker = MemoryBroker(max_bytes=len(staying) + len(going))
    await broker.ensure("rates", ["counters"])
    await broker.ensure(LETTERS, [GROUP])
    await write(broker, staying, going)
    assert await redrive(broker, "rates", expired=False) == Redriven(sent=1, expired=1)
    assert broker.unread(LETTERS, GROUP) == 1
    await broker.close()


async def test_a_broker_that_remembers_how_far_a_group_has_read() -> None:
    """What was sent is not sent again by the next call."""
    assert KAFKA.make_server
    server = KAFKA.make_server(False)
    server.start()
    harness = Harness(KAFKA, server)
    try:
        broker = await harness.broker()
        await broker.ensure("rates", ["counters"])
        await broker.ensure(LETTERS, [GROUP])
        await write(broker, *[letter("expired") for _ in range(12)], *[letter("refused") for _ in range(24)])
        done = [await asyncio.wait_for(redrive(broker, "rates", expired=False), 30) for _ in range(2)]
        assert [(each.sent, each.expired) for each in done] == [(24, 12), (0, 12)]
    finally:
        await harness.close()
        server.close()
