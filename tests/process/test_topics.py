"""A process that reads several topics, and the dead letters of all of them."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest

from brokers.memory import MemoryBroker
from core.batches import Batch, encode
from core.errors import BrokerUnavailable
from core.letters import GROUP as REDRIVE
from core.letters import dead_topic
from core.lifecycle import until
from core.telemetry import Exposition
from process.consumer import Consumer
from process.reader import Reading
from process.redrive import letters, redrive
from store.memory import MemoryStore

TOPICS = ["rates_1", "rates_2", "rates_3"]
GROUPS = ["counters", "audit"]


class Broker(MemoryBroker):
    """Will not make what is in `missing`."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: set[str] = set()

    async def ensure(self, topic: str, groups: Sequence[str]) -> None:
        if topic in self.missing:
            raise BrokerUnavailable(f"no {topic}")
        await super().ensure(topic, groups)


class Setting:
    def __init__(self) -> None:
        self.broker = Broker()
        self.store = MemoryStore(horizon_s=60, idempotency_s=60)
        self.consumer = self.member(TOPICS)

    def member(self, topics: Sequence[str]) -> Consumer:
        reading = Reading(topics, GROUPS, "counters")
        return Consumer(self.broker, self.store, topic="rates", oldest_allowed_s=60, reading=reading)

    async def publish(self, topic: str, *bodies: bytes) -> None:
        for body in bodies:
            await self.broker.publish(topic, body, 1)

    def all_read(self) -> bool:
        return not any(self.broker.unread(topic, "counters") for topic in TOPICS)


@pytest.fixture
async def setting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setting]:
    monkeypatch.setattr("process.redrive.QUIET_S", 0.05)
    made = Setting()
    for topic in TOPICS:
        await made.broker.ensure(topic, GROUPS)
    yield made
    await made.consumer.close()
    await made.broker.close()


def batch(rates: int = 1) -> bytes:
    return encode(Batch(1, 0, uuid4().hex, 0, rates, time.time(), [("film", 5)] * rates))


async def test_all_topics_are_counted_into_one_sum(setting: Setting) -> None:
    for number, topic in enumerate(TOPICS, 1):
        await setting.publish(topic, *[batch() for _ in range(100 * number)])
    await setting.consumer.start()
    assert await until(setting.all_read, 5)
    assert (await setting.store.totals()).count == 600
    text = Exposition(setting.consumer.metrics).text()
    assert re.findall(rb"^fanrate_counted_rates_total (\S+)", text, re.MULTILINE) == [b"600.0"]
    assert setting.consumer.check().ok
    for topic in TOPICS:
        assert setting.broker.unread(topic, "audit") > 0, "the other group has it too"


async def test_a_batch_in_two_topics_counts_once(setting: Setting) -> None:
    body = batch()
    for topic in TOPICS:
        await setting.publish(topic, body)
    await setting.consumer.start()
    assert await until(setting.all_read, 5)
    assert (await setting.store.totals()).count == 1


async def test_processes_that_read_different_topics(setting: Setting) -> None:
    for topic in TOPICS:
        await setting.publish(topic, batch())
    one = setting.member(TOPICS[:2])
    await one.start()
    assert await until(lambda: setting.broker.unread("rates_2", "counters") == 0, 5)
    assert await until(lambda: setting.broker.unread("rates_1", "counters") == 0, 5)
    assert setting.broker.unread("rates_3", "counters") == 1
    assert (await setting.store.totals()).count == 2
    await one.drain(1)


async def test_a_topic_that_is_missing_is_named_and_holds_up_no_other(setting: Setting) -> None:
    setting.broker.missing = {"rates_2"}
    await setting.publish("rates_1", batch())
    await setting.consumer.start()
    assert await until(lambda: setting.broker.unread("rates_1", "counters") == 0, 5)
    assert str(setting.consumer.check()) == "waits for the broker: no rates_2"
    assert setting.consumer.alive()["loop"].ok
    setting.broker.missing = set()
    assert await until(lambda: setting.consumer.check().ok, 5)


async def test_a_newer_message_stops_its_topic_and_turns_all_red(setting: Setting) -> None:
    await setting.publish("rates_2", b'{"version": 2}')
    await setting.consumer.start()
    assert await until(lambda: "upgrade" in str(setting.consumer.check()), 5)
    assert "rates_2: stopped at a newer message" in str(setting.consumer.check())
    await setting.publish("rates_1", batch())
    assert await until(lambda: setting.broker.unread("rates_1", "counters") == 0, 5)
    assert setting.broker.unread("rates_2", "counters") == 1
    assert not setting.consumer.check().ok


async def test_dead_letters_are_in_one_place_and_go_back_to_their_topics(setting: Setting) -> None:
    for topic in TOPICS:
        await setting.publish(topic, f"bad in {topic}".encode())
    await setting.consumer.start()
    assert await until(setting.all_read, 5)
    assert sorted([letter.topic async for letter in letters(setting.broker, "rates")]) == TOPICS
    await setting.consumer.drain(1)
    done = await redrive(setting.broker, "rates", expired=False, topics=TOPICS)
    assert done.sent == 3
    for topic in TOPICS:
        member = await setting.broker.subscribe(topic, "counters")
        (message,) = await member.fetch(10, 10_000, 1)
        assert message.body == f"bad in {topic}".encode()
        await member.close()


async def test_a_letter_of_a_topic_that_nobody_reads_any_more(setting: Setting) -> None:
    """TOPICS is smaller now, or wrong: the letter stays, for what is sent there would be lost."""
    await setting.publish("rates_3", b"bad")
    await setting.consumer.start()
    assert await until(setting.all_read, 5)
    await setting.consumer.drain(1)
    left = await redrive(setting.broker, "rates", expired=False, topics=TOPICS[:2])
    assert (left.sent, left.elsewhere) == (0, 1)
    assert (await redrive(setting.broker, "rates", expired=False, topics=TOPICS)).sent == 1
    assert [setting.broker.unread(topic, "counters") for topic in TOPICS] == [0, 0, 1]
    assert setting.broker.unread(dead_topic("rates"), REDRIVE) == 0
