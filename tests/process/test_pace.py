"""A process whose handling of a rate takes time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

import process.membership
import process.reader
from brokers.base import Message
from brokers.memory import MemoryBroker, MemorySubscription
from core import counting
from core.batches import Batch, encode
from core.lifecycle import until
from core.work import Work
from process.consumer import Consumer
from process.reader import Fetched, Reading, portions
from store.memory import MemoryStore


class Broker(MemoryBroker):
    """Counts what is asked of it."""

    def __init__(self, *, redeliver_after_s: float = 30.0) -> None:
        super().__init__(redeliver_after_s=redeliver_after_s)
        self.extended: list[int] = []
        self.fetched: list[int] = []
        self.acknowledged: list[int] = []

    async def subscribe(self, topic: str, group: str) -> MemorySubscription:
        subscription = await super().subscribe(topic, group)
        fetch, extend, acknowledge = subscription.fetch, subscription.extend, subscription.acknowledge

        async def counting_fetch(max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
            messages = await fetch(max_messages, max_bytes, timeout_s)
            self.fetched += [len(messages)] if messages else []
            return messages

        async def counting_extend(messages: Sequence[Message]) -> None:
            self.extended.append(len(messages))
            await extend(messages)

        async def counting_acknowledge(messages: Sequence[Message]) -> None:
            self.acknowledged.append(len(messages))
            await acknowledge(messages)

        subscription.fetch, subscription.extend = counting_fetch, counting_extend  # type: ignore[method-assign]
        subscription.acknowledge = counting_acknowledge  # type: ignore[method-assign]
        return subscription


class Setting:
    def __init__(self, broker: Broker, store: MemoryStore, start: Callable[..., Consumer]) -> None:
        self.broker = broker
        self.store = store
        self.consumer = start()
        self.another = start

    async def publish(self, *rates: int) -> None:
        """A batch of each number of rates."""
        await self.broker.ensure("rates", [counting.GROUP])
        for count in rates:
            batch = Batch(1, 0, uuid4().hex, 0, count, time.time(), [("film", 5)] * count)
            await self.broker.publish("rates", encode(batch), 1)

    @property
    def unread(self) -> int:
        return self.broker.unread("rates", counting.GROUP)

    async def count(self) -> int:
        return (await self.store.totals()).count


@asynccontextmanager
async def working(work_s: float, concurrency: int = 1, *, redeliver_after_s: float = 30.0) -> AsyncIterator[Setting]:
    broker, store = Broker(redeliver_after_s=redeliver_after_s), MemoryStore(horizon_s=60, idempotency_s=60)
    made: list[Consumer] = []

    def start() -> Consumer:
        work = Work(work_s, concurrency)
        made.append(Consumer(broker, store, topic="rates", oldest_allowed_s=60, work=work))
        return made[-1]

    yield Setting(broker, store, start)
    for consumer in made:
        await consumer.close()
    await broker.close()
    await store.close()


@pytest.mark.parametrize(("work_s", "concurrency", "batches", "rates"), [(0.001, 1, 1000, 1), (0.01, 64, 40, 160)])
async def test_the_pace(work_s: float, concurrency: int, batches: int, rates: int) -> None:
    """A second's worth of work takes a second, in small batches and in large ones. A timer for each of the small would
    take longer, as would one worker for the large: a minute."""
    async with working(work_s, concurrency) as setting:
        await setting.publish(*[rates] * batches)
        began = time.monotonic()
        await setting.consumer.start()
        assert await until(lambda: setting.unread == 0, 10)
        assert time.monotonic() - began >= 0.99
        assert len(setting.broker.acknowledged) < 10
        assert await setting.count() == batches * rates


async def test_a_fetch_is_what_fits_five_seconds_of_work() -> None:
    async with working(1.0) as setting:
        await setting.publish(*[1] * 20)
        await setting.consumer.start()
        assert await until(lambda: bool(setting.broker.fetched), 5)
        assert setting.broker.fetched == [1], "its 40 bytes of rates are one message"
        await setting.consumer.close()
        assert setting.unread == 20


def test_portions() -> None:
    def batch(rates: int) -> tuple[Batch, Message]:
        return Batch(1, 0, "a" * 32, 0, rates, 1.0, [("film", 5)] * rates), Message(b"", None)

    fetched = Fetched([batch(rates) for rates in (2, 2, 3, 9, 1, 1)], [(Message(b"", None), "malformed")])
    cut = list(portions(fetched, 5))
    assert [[len(each.rates) for each, _ in portion.batches] for portion in cut] == [[2, 2], [3], [9], [1, 1]]
    assert [len(portion.malformed) for portion in cut] == [1, 0, 0, 0]
    assert list(portions(Fetched(), 5)) == []
    assert len(list(portions(Fetched([], fetched.malformed), 5))) == 1


async def test_long_work_is_extended_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that takes longer than the redelivery time, with another member waiting for what comes again."""
    monkeypatch.setattr(process.reader, "EXTEND_EVERY_S", 0.1)
    async with working(0.01, redeliver_after_s=3.0) as setting:
        await setting.publish(400)
        await setting.consumer.start()
        assert await until(lambda: bool(setting.broker.fetched), 5)
        await setting.another().start()
        assert await until(lambda: setting.unread == 0, 20)
        assert setting.broker.fetched == [1], "it never came again"
        assert len(setting.broker.extended) >= 8
        assert await setting.count() == 400


async def test_what_waits_for_its_portion_is_extended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.reader, "EXTEND_EVERY_S", 0.05)
    monkeypatch.setattr(process.reader, "PORTION_S", 0.2)
    monkeypatch.setattr(process.reader, "LEAST_RATE_BYTES", 1000)
    async with working(0.01) as setting:
        await setting.publish(*[18] * 4)
        await setting.consumer.start()
        assert await until(lambda: setting.unread == 0, 10)
        assert setting.broker.fetched == [4]
        assert set(setting.broker.extended) == {1, 2, 3, 4}
        assert await setting.count() == 72


async def test_work_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of it. After a pause of the machine the loop looks hung, but only until it turns again."""
    monkeypatch.setattr(process.reader, "EXTEND_EVERY_S", 0.05)
    monkeypatch.setattr(process.membership, "STALLED_AFTER_S", 0.3)
    async with working(0.01) as setting:
        await setting.publish(6000)
        await setting.consumer.start()
        assert await until(lambda: bool(setting.broker.fetched), 5)
        await asyncio.sleep(0.6)
        assert await until(lambda: setting.consumer.alive()["loop"].ok, 10)
        assert setting.unread == 1, "it is still at work"


async def test_drain_does_not_wait_for_work() -> None:
    """Which would take 100 seconds."""
    async with working(0.1) as setting:
        await setting.publish(1, 1000, 1)
        await setting.consumer.start()
        assert await until(lambda: setting.broker.fetched == [2] or setting.unread == 2, 5)
        async with asyncio.timeout(10):
            await setting.consumer.drain(60)
        assert setting.unread >= 2, "what was not done is another member's"
        counted = await setting.count()
        assert counted + setting.unread == 3


async def test_topics_share_the_workers() -> None:
    """Two topics with half a second of work each, one worker: a second."""
    broker, store = MemoryBroker(), MemoryStore(horizon_s=60, idempotency_s=60)
    reading = Reading(["rates_1", "rates_2"], [counting.GROUP], counting.GROUP)
    consumer = Consumer(broker, store, topic="rates", oldest_allowed_s=60, reading=reading, work=Work(0.01, 1))
    for topic in reading.topics:
        await broker.ensure(topic, reading.groups)
        batch = Batch(1, 0, uuid4().hex, 0, 50, time.time(), [("film", 5)] * 50)
        await broker.publish(topic, encode(batch), 1)
    began = time.monotonic()
    await consumer.start()
    assert await until(lambda: not any(broker.unread(topic, counting.GROUP) for topic in reading.topics), 10)
    assert time.monotonic() - began >= 0.99
    await consumer.drain(2)
    await broker.close()
