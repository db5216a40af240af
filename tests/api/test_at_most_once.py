"""A broker that only sends: what it loses turns abandoned, and nobody ever vouched for it."""

from __future__ import annotations

import asyncio

import pytest

import api.lane
from api.publisher import Publisher
from brokers.base import Features
from brokers.memory import MemoryBroker
from core import counting
from core.lifecycle import until
from core.settings import Publishing
from core.store import Opened
from process.consumer import Consumer
from store.memory import MemoryStore


class LossyBroker(MemoryBroker):
    """Confirms each message and loses every third."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Features(max_message_bytes=2**20, server=False, at_most_once=True)
        self._sent = 0

    async def publish(self, topic: str, body: bytes, timeout_s: float) -> None:
        self._sent += 1
        if self._sent % 3:
            await super().publish(topic, body, timeout_s)


async def test_what_is_lost_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, store = LossyBroker(), MemoryStore(horizon_s=60, idempotency_s=60)
    publisher = Publisher(broker, store, Publishing(), topic="rates", groups=[counting.GROUP], max_rates=10)
    consumer = Consumer(broker, store, topic="rates", oldest_allowed_s=60)
    await publisher.start()
    await consumer.start()
    assert await until(lambda: publisher.check().ok, 5)
    for rate in range(9):
        assert await publisher.join([("film", rate), ("film", rate)]) is None
    await publisher.report(1)
    assert (await store.opened()).opened >= 6, "the producer is still there: it may only be late"
    monkeypatch.setattr(api.lane, "SHORT_LIFETIME_S", 0.3)
    monkeypatch.setattr("store.memory.LEASE_S", 0.5)
    async with asyncio.timeout(10):
        while await store.opened() != Opened(0, 6):
            await asyncio.sleep(0.02)
    assert (await store.totals()).count == 12
    assert publisher.check().ok, "the replica is still there, under another id"
    assert await publisher.join([("film", 1)]) is None
    await publisher.drain(2)
    await publisher.close()
    await consumer.close()
    await broker.close()
